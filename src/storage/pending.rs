//! What a commit is checked against: the verified state, and the state changes of the open transaction after it.

use crate::{
    audit::{Entry, StatePosition, WrapperKeyChange, merkle::Hash},
    domain::{KeyId, StateChange, Work, WrapperKeyId, WrapperState},
};

use super::{
    Change, Commit, VerifiedState,
    verified_state::{LoggedUse, is_import},
};

/// The state changes of the open transaction: entries and their leaf hashes.
pub(super) type Pending = Vec<(Entry, Hash)>;

/// The entries of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) pending: Pending,
    /// The leaf hashes of all entries.
    pub(super) leaves: Vec<Hash>,
}

/// The verified state, and the changes of the open transaction after it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The state after the newest durable change.
    pub(super) state: &'a VerifiedState,
    /// The changes of the open transaction.
    pub(super) pending: &'a [(Entry, Hash)],
}

impl View<'_> {
    /// The newest state of a key.
    pub(super) fn key(self, id: KeyId) -> Option<StateChange> {
        let mut pending = self.pending.iter().rev().filter(|(entry, _)| entry.key_id == Some(id));
        let pending = pending.find_map(|(entry, _)| entry.state_change().ok().flatten());
        pending.or_else(|| self.state.key(id).map(|key| key.change))
    }

    /// Whether an imported key was used since its newest import.
    pub(super) fn is_used(self, id: KeyId) -> bool {
        let of_key = self.pending.iter().rev().map(|(entry, _)| entry).filter(|entry| entry.key_id == Some(id));
        let mut decides = of_key.filter_map(|entry| LoggedUse::of(entry).map(|_| true).or_else(|| is_import(entry).then_some(false)));
        decides.next().unwrap_or_else(|| self.state.first_use(id).is_some())
    }

    /// Whether the commit is the first use of an imported key since its import.
    pub(super) fn is_first_use(self, commit: &Commit) -> bool {
        commit.precondition.as_ref().is_some_and(|precondition| precondition.imported && !self.is_used(precondition.key))
    }

    /// The newest state of a wrapper key.
    pub(super) fn wrapper_key(self, id: WrapperKeyId) -> Option<WrapperState> {
        let pending = self.pending.iter().rev().flat_map(|(entry, _)| &entry.wrapper_keys).find(|change| change.id == id);
        pending.map(|change| change.state).or_else(|| self.state.wrapper_key(id).map(|key| key.state))
    }

    /// Whether the commit is an entry alone, such as a use, and changes nothing else.
    pub(super) fn is_entry_alone(self, commit: &Commit) -> bool {
        commit.further.is_empty() && self.is_entries_alone(commit)
    }

    /// Whether the commit is one or more entries, such as uses in one call, and changes nothing else.
    pub(super) fn is_entries_alone(self, commit: &Commit) -> bool {
        let Commit { change, idempotency, precondition: _, event, further } = commit;
        let calls_no_kms = std::iter::once(event).chain(further).all(|event| event.kms.wrapper_keys.is_empty());
        change.is_none() && idempotency.is_none() && calls_no_kms && !self.is_first_use(commit)
    }

    /// Whether the commit is a state change.
    pub(super) fn changes_state(self, commit: &Commit) -> bool {
        // A further wrap does not concern open keys. If it were a state change, each use during a rotation would read its key again.
        self.is_first_use(commit)
            || commit.idempotency.is_some()
            || commit.change.as_ref().is_some_and(|change| !matches!(change, Change::AddWrap { .. }))
    }

    /// What a change sets besides the state of a key.
    pub(super) fn position(self, change: Option<&Change>) -> StatePosition {
        let wrapper_key = |id: WrapperKeyId, state| WrapperKeyChange { id, state, identity: None, name: None };
        let mut position = StatePosition::default();
        match change {
            Some(Change::SetFrozen(frozen)) => position.frozen = Some(*frozen),
            Some(Change::BeginIncarnation(incarnation)) => position.incarnation = Some(*incarnation),
            Some(Change::RemoveEntries { through }) => position.removed_through = Some(*through),
            Some(Change::InsertWrapperKey(key)) => {
                let (identity, name) = (Some(key.identity.clone()), key.name.as_ref().map(ToString::to_string));
                position.wrapper_keys = vec![WrapperKeyChange { identity, name, ..wrapper_key(key.id, key.state) }];
            }
            Some(Change::RenameWrapperKey { id, to }) => {
                let name = Some(to.as_ref().map(ToString::to_string).unwrap_or_default());
                position.wrapper_keys =
                    self.wrapper_key(*id).map(|state| WrapperKeyChange { name, ..wrapper_key(*id, state) }).into_iter().collect();
            }
            Some(Change::StartJob(job)) => match job.work {
                // A rotation to the active wrapper key changes no wrapper key.
                Work::Rotation { from, to } if self.wrapper_key(to) != Some(WrapperState::Active) => {
                    position.wrapper_keys = vec![wrapper_key(from, WrapperState::Draining), wrapper_key(to, WrapperState::Active)];
                }
                _ => {}
            },
            Some(Change::BeginRetirement(id)) => position.wrapper_keys = vec![wrapper_key(*id, WrapperState::Retiring)],
            Some(Change::Retire(retirement)) => position.wrapper_keys = vec![wrapper_key(retirement.wrapper_key, WrapperState::Retired)],
            _ => {}
        }
        position
    }
}
