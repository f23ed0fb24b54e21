//! Whether an imported key was used since its import, from the entries about it in the log. It decides about uses by programs that did not
//! write the first use of a key into the chain of state changes.
//!
//! The entries are found by the summary of the log, from the newest one back to its import: the time depends on this key only. Each row is
//! compared with the bytes and the hash of its entry, and the revisions of the key must lead back, without a gap, from the one that the chain
//! has. Then the entries since the import are counted, because a removed entry leaves a gap in the sequence numbers. What remains undetected
//! is a use by an earlier program whose entry was replaced in all its parts, or hidden from the summary: no hash outside its row covers it.
//! A use by this program is in the chain, which a start verifies.

use std::sync::{PoisonError, RwLock};

use rusqlite::Connection;

use super::{
    StoreError, VerifiedState,
    chain::{CHECKED_COLUMNS, checked_entry},
    entries::Contained,
    error::{corrupt, signed},
    read::{self, Snapshot},
    rows::unsigned,
    spans::{Span, Spans},
};
use crate::{
    domain::KeyId,
    storage::{LoggedUse, Order, verified_state::is_import},
};

/// How many entries about a key one read decodes, and how many entries of the log one read looks at or counts. Each takes about 60 ms on two busy cores, so
/// that other reads of the log have their turn.
const READ_AT_ONCE: usize = 1 << 12;
pub(super) const COUNTED_AT_ONCE: u64 = 1 << 15;

/// What the chain says about the uses of a key, and where the entries of the log end.
pub(super) struct InChain {
    /// The first use since the import.
    pub(super) first_use: Option<LoggedUse>,
    /// The revision of the key.
    pub(super) revision: Option<u64>,
    /// The sequence number of the newest entry of the log.
    pub(super) newest: u64,
}

/// Looks for a use of the key in the chain.
pub(super) fn in_chain(db: &Connection, state: &RwLock<VerifiedState>, id: KeyId) -> Result<Snapshot<InChain>, StoreError> {
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let Snapshot::Read(revision) = read::snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
    let key = state.key(id);
    if key.is_some_and(|key| key.state_revision > revision) {
        return Ok(Snapshot::Moved);
    }
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    Ok(Snapshot::Read(InChain { first_use: state.first_use(id), revision: key.map(|key| key.change.revision), newest }))
}

/// How far the entries about a key were read, from the newest one back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// The entries up to this one remain.
    pub(super) up_to: u64,
    /// The revision that the next older state change of the key must lead to: that of the chain, or of the state change read last.
    revision: Option<u64>,
    /// Whether no state change of the key was read yet.
    is_newest: bool,
}

impl Position {
    /// Before the first read.
    pub(super) const fn newest(in_chain: &InChain) -> Self {
        Self { up_to: in_chain.newest, revision: in_chain.revision, is_newest: true }
    }

    /// Goes back to a state change of the key. `None` if one between is missing.
    fn back_to(self, found: u64) -> Option<Self> {
        let step = self.revision?.checked_sub(found)?;
        // The newest one is that of the chain. A restated state has the revision of the state before it.
        let follows = step == 0 || (step == 1 && !self.is_newest);
        follows.then_some(Self { revision: Some(found), is_newest: false, ..self })
    }
}

/// What some of the entries about a key say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entries {
    /// The key was used.
    Use(LoggedUse),
    /// They go back to the import, the entry with this number, and have no use.
    Import(u64),
    /// They have neither. Older ones remain.
    More(Position),
}

/// Reads some of the entries about a key, from `position` back.
pub(super) fn before(db: &Connection, id: KeyId, mut position: Position) -> Result<Entries, StoreError> {
    let mut sql = db.prepare_cached(&format!(
        "SELECT {CHECKED_COLUMNS} FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 AND entry <> x'' ORDER BY sequence DESC"
    ))?;
    let (about_key, mut read, mut looked_at) = (Contained::key(id), 0, 0_u64);
    let mut spans = Spans::of(db, Span { after: 0, last: position.up_to }, Order::Newest, Some(id))?;
    while let Some(span) = spans.next()? {
        let mut rows = sql.query((signed(span.after)?, signed(span.last)?))?;
        while let Some(row) = rows.next()? {
            if !about_key.in_entry(row.get_ref("entry")?.as_blob().unwrap_or_default()) {
                continue;
            }
            let (entry, _) = checked_entry(row)?;
            if let Some(found) = LoggedUse::of(&entry) {
                return Ok(Entries::Use(found));
            }
            if let Some(revision) = entry.revision {
                let missing = || unproven(format_args!("a state change of the key is missing after entry {}", entry.sequence));
                position = position.back_to(revision).ok_or_else(missing)?;
            }
            if is_import(&entry) {
                return Ok(Entries::Import(entry.sequence));
            }
            position.up_to = entry.sequence.saturating_sub(1);
            read += 1;
            if read == READ_AT_ONCE {
                return Ok(Entries::More(position));
            }
        }
        position.up_to = span.after;
        looked_at = looked_at.saturating_add(span.last - span.after);
        if looked_at >= COUNTED_AT_ONCE && position.up_to > 0 {
            return Ok(Entries::More(position));
        }
    }
    Err(unproven("it has no entry of the import of this key"))
}

/// Checks that no entry after `after` up to `last` is missing.
pub(super) fn without_gap(db: &Connection, after: u64, last: u64) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 AND entry <> x''";
    let found = unsigned(db.query_row(sql, [signed(after)?, signed(last)?], |row| row.get(0))?)?;
    match last.saturating_sub(after).saturating_sub(found) {
        0 => Ok(()),
        missing => Err(unproven(format_args!("{missing} of its entries after {after} up to {last} are missing"))),
    }
}

fn unproven(what: impl std::fmt::Display) -> StoreError {
    corrupt("audit_entries", what)
}
