//! Follows the logs while they are read: each entry, its leaf hash and the tree over them, and the chain of state changes through all logs.

use std::collections::HashMap;

use super::{
    row::{Row, Value},
    tables::{ENTRIES, TREE},
};
use crate::{
    audit::{
        Entry, leaf_hash,
        merkle::{Frontier, Hash},
    },
    storage::{CHAIN_START, StoreError, VerifiedState},
};

/// The end of a log that was read as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The number of entries.
    pub entries: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// The newest state change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// Its number.
    pub revision: u64,
    /// Its leaf hash.
    pub head: Hash,
}

/// A log while it is read.
#[derive(Default)]
pub(super) struct LogReader {
    frontier: Frontier,
    /// The hashes of complete subtrees that the entries give, and that the table of the tree must have.
    completed: HashMap<(u32, u64), Hash>,
    /// The newest entry without bytes. 0 if there is none.
    removed: u64,
    /// The entries up to this one may have none, as the log states.
    removable: u64,
}

impl LogReader {
    /// Looks at the next row of a table.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the entry or hash that is not as it was written.
    pub(super) fn read(&mut self, table: &str, row: &Row) -> Result<(), StoreError> {
        match (table, row.as_slice()) {
            (ENTRIES, [sequence, entry, leaf, state_revision]) => self.entry(sequence, entry, leaf, state_revision),
            (TREE, [level, position, hash]) => self.hash(level, position, hash),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, sequence: &Value, entry: &Value, leaf: &Value, state_revision: &Value) -> Result<(), StoreError> {
        let expected = self.frontier.size().saturating_add(1);
        let wrong = |what: &dyn std::fmt::Display| StoreError::Corrupt { table: ENTRIES, what: format!("entry {expected}: {what}") };
        if sequence.integer().and_then(|number| u64::try_from(number).ok()) != Some(expected) {
            return Err(wrong(&"it is missing"));
        }
        let bytes = entry.bytes().unwrap_or_default();
        let leaf: Hash = leaf.bytes().and_then(|leaf| leaf.try_into().ok()).ok_or_else(|| wrong(&"its hash has another length"))?;
        if !bytes.is_empty() {
            if leaf_hash(bytes) != leaf {
                return Err(wrong(&"its hash is not that of its bytes"));
            }
            let entry = Entry::decode(bytes).map_err(|error| wrong(&error))?;
            if entry.sequence != expected {
                return Err(wrong(&format_args!("its bytes say {}", entry.sequence)));
            }
            self.removable = self.removable.max(entry.removed_through.unwrap_or(0));
        } else if state_revision.integer().is_some() {
            return Err(wrong(&"it is a state change without bytes"));
        } else {
            self.removed = expected;
        }
        let completed = &mut self.completed;
        self.frontier.append(leaf, |hash| {
            completed.insert((hash.level, hash.position), hash.hash);
        });
        Ok(())
    }

    fn hash(&mut self, level: &Value, position: &Value, hash: &Value) -> Result<(), StoreError> {
        let number = |value: &Value| value.integer().and_then(|number| u64::try_from(number).ok());
        let place = number(level).and_then(|level| u32::try_from(level).ok()).zip(number(position));
        let expected = place.and_then(|place| self.completed.remove(&place));
        if expected.is_some() && expected.as_ref().map(<[u8; 32]>::as_slice) == hash.bytes() {
            Ok(())
        } else {
            let what = format!("the hash at {place:?} (level, position) is not that of the entries");
            Err(StoreError::Corrupt { table: TREE, what })
        }
    }

    /// The end of the log.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the tree lacks a hash, or an entry was removed that the log does not state.
    pub(super) fn end(self) -> Result<LogEnd, StoreError> {
        if let Some(((level, position), _)) = self.completed.iter().next() {
            return Err(StoreError::Corrupt { table: TREE, what: format!("the hash {position} of level {level} is missing") });
        }
        if self.removed > self.removable {
            let what = format!("entry {} has no bytes, and the log states a removal up to {} only", self.removed, self.removable);
            return Err(StoreError::Corrupt { table: ENTRIES, what });
        }
        Ok(LogEnd { entries: self.frontier.size(), root: self.frontier.root() })
    }
}

/// The chain of state changes while it is read.
#[derive(Default)]
pub(super) struct ChainReader(Option<VerifiedState>);

impl ChainReader {
    /// The next state change: its number, its entry and its leaf hash. The entries were compared with their hashes before.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the entry that does not follow.
    pub(super) fn read(&mut self, row: &Row) -> Result<(), StoreError> {
        let wrong = |what: &dyn std::fmt::Display| StoreError::Corrupt { table: ENTRIES, what: what.to_string() };
        let [_, Value::Bytes(entry), Value::Bytes(leaf)] = row.as_slice() else { return Err(wrong(&"a state change has other columns")) };
        let leaf: Hash = leaf.as_slice().try_into().map_err(|error| wrong(&error))?;
        let entry = Entry::decode(entry).map_err(|error| wrong(&error))?;
        let before = entry.state_revision.unwrap_or(0).saturating_sub(1);
        let state = self.0.get_or_insert_with(|| VerifiedState::before(before));
        state.extend(&entry, leaf).map_err(|error| wrong(&format_args!("entry {}: {error}", entry.sequence)))
    }

    /// The end of the chain.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the table `meta` has another revision.
    pub(super) fn end(self, store_revision: i64) -> Result<ChainEnd, StoreError> {
        let (revision, head) = self.0.map_or((WITHOUT_CHANGES, CHAIN_START), |state| (state.revision, state.head));
        if u64::try_from(store_revision) == Ok(revision) {
            return Ok(ChainEnd { revision, head });
        }
        let what = format!("store_revision is {store_revision}, and the chain in the log has {revision}");
        Err(StoreError::Corrupt { table: "meta", what })
    }
}

/// The revision of a store without state changes.
const WITHOUT_CHANGES: u64 = 1;
