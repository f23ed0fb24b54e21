//! The state that the chain of state changes in the audit log establishes: keys, wrapper keys, freeze, idempotent creations. Decisions rest on
//! this state, never on a column that no hash covers.
//!
//! Each state change is an audit entry with a number (`state_revision`) and the leaf hash of the state change before it (`previous`). A start
//! reads the chain from its first entry, and the writer extends it with each commit.
//!
//! The first use of an imported key is a state change too, so that the chain authenticates whether a key can be withdrawn. Later uses are not,
//! because a signature must not change the state of the store.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::{
    audit::Entry,
    domain::{Hex, KeyId, NodeName, Operation, Outcome, StateChange, Timestamp, WrapperKeyId, WrapperKeyName, WrapperState},
};

use super::{IdempotencyRecord, IdempotencyScope};

/// The leaf hash before the first state change of a chain.
pub const CHAIN_START: [u8; 32] = [0; 32];

/// Why an entry does not continue the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A state change is missing, or two have one number.
    #[error("the state change {expected} is missing: the next entry has {found:?}")]
    Gap {
        /// The number that should follow.
        expected: u64,
        /// The number in the entry.
        found: Option<u64>,
    },
    /// The entry names another state change before it.
    #[error("the state change {0} does not follow the one before it: an entry was changed or replaced")]
    Previous(u64),
    /// The entry has no valid content.
    #[error("the state change {0} cannot be read: {1}")]
    Unreadable(u64, String),
}

/// The newest state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedKey {
    /// The state.
    pub change: StateChange,
    /// The number of the state change that set it.
    pub state_revision: u64,
}

/// A use of a key that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedUse {
    /// What the key was used for.
    pub operation: Operation,
    /// The time.
    pub at: Timestamp,
    /// The sequence number of the entry.
    pub sequence: u64,
}

impl LoggedUse {
    /// The use in an entry. `None` if the entry is no use, or a refused one.
    pub fn of(entry: &Entry) -> Option<Self> {
        let is_use = entry.operation.uses_key() && entry.outcome == Outcome::Ok;
        is_use.then_some(Self { operation: entry.operation, at: entry.at, sequence: entry.sequence })
    }
}

impl std::fmt::Display for LoggedUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}, entry {} of the log", self.operation, self.at, self.sequence)
    }
}

/// Whether an entry imports a key, again or for the first time. The uses before it are not those of the imported key.
pub(super) fn is_import(entry: &Entry) -> bool {
    entry.operation == Operation::ImportKey && entry.revision.is_some()
}

/// The newest state of a wrapper key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedWrapperKey {
    /// The identity that was registered.
    pub identity: String,
    /// The state.
    pub state: WrapperState,
    /// The name.
    pub name: Option<WrapperKeyName>,
}

/// The state after the newest verified state change.
#[derive(Debug, Clone)]
pub struct VerifiedState {
    /// The number of the newest state change.
    pub revision: u64,
    /// Its leaf hash.
    pub head: [u8; 32],
    /// Whether the vault is frozen.
    pub frozen: bool,
    /// The incarnation of the log, from 1.
    pub incarnation: u64,
    /// The key that signs checkpoints of the log.
    pub checkpoint_key: Option<KeyId>,
    /// The entries up to this one may be removed, except state changes. 0 if there was no removal.
    pub removed_through: u64,
    /// The instance whose log this process writes. `None` if the store has one log, whatever instances wrote it.
    instance: Option<String>,
    keys: HashMap<KeyId, VerifiedKey>,
    /// The first use of each imported key since its import.
    uses: HashMap<KeyId, LoggedUse>,
    wrapper_keys: HashMap<WrapperKeyId, VerifiedWrapperKey>,
    /// Digests of idempotency records, with the time of their entry.
    idempotency: HashMap<[u8; 32], Timestamp>,
}

impl VerifiedState {
    /// The state before the first state change of a chain, which gets the number after `revision`.
    pub fn before(revision: u64) -> Self {
        Self {
            revision,
            head: CHAIN_START,
            frozen: false,
            incarnation: 1,
            checkpoint_key: None,
            removed_through: 0,
            instance: None,
            keys: HashMap::new(),
            uses: HashMap::new(),
            wrapper_keys: HashMap::new(),
            idempotency: HashMap::new(),
        }
    }

    /// As [`VerifiedState::before`], for a store in which each instance has a log of its own: a new incarnation and a removal of entries concern
    /// the log of the instance in their entry.
    pub fn of_instance(revision: u64, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..Self::before(revision) }
    }

    /// The newest state of a key.
    pub fn key(&self, id: KeyId) -> Option<VerifiedKey> {
        self.keys.get(&id).copied()
    }

    /// The first use of an imported key since its newest import. `None` if the chain has no use of it: then no program that writes the first
    /// use into the chain used the key.
    pub fn first_use(&self, id: KeyId) -> Option<LoggedUse> {
        self.uses.get(&id).copied()
    }

    /// The keys that the chain knows, in no order.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.keys().copied()
    }

    /// The newest state of a wrapper key.
    pub fn wrapper_key(&self, id: WrapperKeyId) -> Option<&VerifiedWrapperKey> {
        self.wrapper_keys.get(&id)
    }

    /// The retired wrapper keys.
    pub fn retired_wrapper_keys(&self) -> Vec<WrapperKeyId> {
        self.wrapper_keys.iter().filter(|(_, key)| key.state == WrapperState::Retired).map(|(id, _)| *id).collect()
    }

    /// The number of wrapper keys.
    pub fn wrapper_keys(&self) -> usize {
        self.wrapper_keys.len()
    }

    /// Whether an entry of the chain confirms this idempotency record.
    pub fn has_idempotency(&self, digest: &[u8; 32]) -> bool {
        self.idempotency.contains_key(digest)
    }

    /// Forgets the idempotency records of entries before `time`.
    pub fn forget_idempotency(&mut self, time: Timestamp) {
        self.idempotency.retain(|_, at| *at >= time);
    }

    /// Extends the chain by one state change.
    ///
    /// # Errors
    /// [`ChainError`]; nothing is changed then.
    pub fn extend(&mut self, entry: &Entry, leaf: [u8; 32]) -> Result<(), ChainError> {
        let expected = self.revision.saturating_add(1);
        if entry.state_revision != Some(expected) {
            return Err(ChainError::Gap { expected, found: entry.state_revision });
        }
        if entry.previous.as_deref() != Some(Hex(&self.head).to_string().as_str()) {
            return Err(ChainError::Previous(expected));
        }
        let unreadable = |what: &dyn std::fmt::Display| ChainError::Unreadable(expected, what.to_string());
        let change = entry.state_change().map_err(|error| unreadable(&error))?;
        let digest = entry.idempotency.as_deref().map(|hex| {
            let mut digest = [0; 32];
            base16ct::lower::decode(hex, &mut digest).ok().filter(|bytes| bytes.len() == 32).ok_or_else(|| unreadable(&"a digest"))?;
            Ok(digest)
        });
        let digest = digest.transpose()?;
        match (entry.key_id, LoggedUse::of(entry)) {
            (Some(id), Some(used)) => drop(self.uses.entry(id).or_insert(used)),
            (Some(id), None) if is_import(entry) => drop(self.uses.remove(&id)),
            _ => {}
        }
        if let (Some(id), Some(change)) = (entry.key_id, change) {
            if entry.node.as_ref().is_some_and(NodeName::is_vault) {
                self.checkpoint_key = match self.checkpoint_key {
                    _ if change.lifecycle.can_sign() => Some(id),
                    Some(current) if current == id => None,
                    other => other,
                };
            }
            self.keys.insert(id, VerifiedKey { change, state_revision: expected });
        }
        for wrapper_key in &entry.wrapper_keys {
            let identity = match (&wrapper_key.identity, self.wrapper_keys.get(&wrapper_key.id)) {
                (Some(identity), _) => identity.clone(),
                (None, Some(known)) => known.identity.clone(),
                (None, None) => return Err(unreadable(&format_args!("{} was never registered", wrapper_key.id))),
            };
            let name = match wrapper_key.name.as_deref() {
                None => self.wrapper_keys.get(&wrapper_key.id).and_then(|known| known.name.clone()),
                Some("") => None,
                Some(name) => Some(name.parse().map_err(|error| unreadable(&error))?),
            };
            self.wrapper_keys.insert(wrapper_key.id, VerifiedWrapperKey { identity, state: wrapper_key.state, name });
        }
        self.frozen = entry.frozen.unwrap_or(self.frozen);
        if self.instance.as_ref().is_none_or(|own| *own == entry.instance) {
            self.incarnation = entry.incarnation.unwrap_or(self.incarnation);
            self.removed_through = entry.removed_through.unwrap_or(0).max(self.removed_through);
        }
        if let Some(digest) = digest {
            self.idempotency.insert(digest, entry.at);
        }
        (self.revision, self.head) = (expected, leaf);
        Ok(())
    }
}

/// The digest of an idempotency record, which the entry of its change contains: SHA-256 over the length-prefixed principal, route, key, body hash
/// and answer.
pub fn idempotency_digest(scope: &IdempotencyScope, record: &IdempotencyRecord) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [scope.principal.as_bytes(), scope.route.as_bytes(), scope.key.as_bytes(), &record.body_hash, &record.answer] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Source, StatePosition, leaf_hash},
        domain::{AuditEvent, Lifecycle, Operation, Principal},
    };

    fn entry(state: &VerifiedState, sequence: u64) -> Entry {
        let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
        let change = StateChange { revision: sequence, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None };
        let event = AuditEvent {
            key: Some(KeyId::Symmetric([1; 16])),
            change: Some(change),
            ..AuditEvent::new(Timestamp::from_micros(1), Principal::system(), Operation::EnableKey, "p".into())
        };
        Entry::new(sequence, &source, &event, StatePosition::change(state.revision + 1, state.head))
    }

    #[test]
    fn only_the_next_entry_extends_the_chain() {
        let mut state = VerifiedState::before(4);
        let first = entry(&state, 1);
        state.extend(&first, leaf_hash(&first.encode().unwrap())).unwrap();
        let second = entry(&state, 2);
        assert_eq!(state.extend(&first, [1; 32]), Err(ChainError::Gap { expected: 6, found: Some(5) }));
        let replaced = Entry { previous: Some(Hex(&[7; 32]).to_string()), ..second.clone() };
        assert_eq!(state.extend(&replaced, [1; 32]), Err(ChainError::Previous(6)));
        let no_key = Entry { state: Some("excellent".into()), ..second.clone() };
        assert!(matches!(state.extend(&no_key, [1; 32]), Err(ChainError::Unreadable(6, _))));
        assert_eq!(state.key(KeyId::Symmetric([1; 16])).unwrap().change.revision, 1, "a refused entry changes nothing");
        state.extend(&second, [9; 32]).unwrap();
        let key = state.key(KeyId::Symmetric([1; 16])).unwrap();
        assert_eq!((key.change.revision, key.state_revision, state.revision, state.head), (2, 6, 6, [9; 32]));
    }

    #[test]
    fn a_removal_concerns_the_log_of_its_instance_only() {
        for (own, removed_through) in [("i", 9), ("j", 0)] {
            let mut state = VerifiedState::of_instance(4, own);
            let removal = Entry { removed_through: Some(9), ..entry(&state, 1) };
            state.extend(&removal, [1; 32]).unwrap();
            assert_eq!((state.removed_through, state.revision), (removed_through, 5));
        }
    }
}
