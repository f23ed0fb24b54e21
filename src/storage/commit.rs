//! The content of one transaction, and why a commit can be refused.

use crate::domain::{AuditEvent, Job, KeyId, KeyName, KeyRecord, StateChange, Timestamp, Wrap, WrapperKey, WrapperKeyId, WrapperKeyName};

use super::{JobEnd, Reseal, Retirement, StoreError};

/// The content of one transaction. Only the audit gate of the vault makes one.
#[derive(Debug)]
pub struct Commit {
    /// The state change.
    pub change: Option<Change>,
    /// The idempotency record of the request.
    pub idempotency: Option<NewIdempotencyRecord>,
    /// What must still hold at the commit of a use.
    pub precondition: Option<KeyPrecondition>,
    /// The audit event.
    pub event: AuditEvent,
    /// The events of further uses in the same call. Their entries follow at once, all or none.
    pub further: Vec<AuditEvent>,
}

impl Commit {
    /// An audit entry without a change of state.
    pub const fn entry(event: AuditEvent) -> Self {
        Self { change: None, idempotency: None, precondition: None, event, further: Vec::new() }
    }

    /// A change of state with its audit entry.
    pub const fn change(change: Change, event: AuditEvent) -> Self {
        Self { change: Some(change), idempotency: None, precondition: None, event, further: Vec::new() }
    }
}

/// A state change. Each increases the revision of the store, except `AddWrap`, which does not concern open keys.
#[derive(Debug)]
pub enum Change {
    /// A new key with its first wraps. Refused if `active` is no longer the active wrapper key.
    InsertKey {
        /// The key. Its id must be new, except with `replaces`.
        record: Box<KeyRecord>,
        /// The wrapper key that was active when the data key was wrapped.
        active: WrapperKeyId,
        /// The link of the predecessor, in the same transaction, with its own audit event.
        link: Option<(KeyUpdate, Box<AuditEvent>)>,
        /// The revision of a destroyed key with this id. Its row is replaced. Refused as [`CommitError::LostRace`] unless the row and the log
        /// have a destroyed key in this revision.
        replaces: Option<u64>,
    },
    /// A transition of a key: a compare-and-swap on its revision.
    UpdateKey(KeyUpdate),
    /// The withdrawal of an imported key. Refused as [`CommitError::LostRace`] if the key was used since its import.
    Withdraw(KeyUpdate),
    /// Another name of a key: a compare-and-swap on the present one. The state of the key stays as it is.
    Rename {
        /// The key.
        key: KeyId,
        /// The present name.
        from: Option<KeyName>,
        /// The new name.
        to: Option<KeyName>,
    },
    /// The quarantine of a key whose row cannot be read. Refused unless the newest state change of the key in the audit log is the one
    /// before `to`. The mutable state of the row becomes `to`, and its tag is removed.
    SetAside {
        /// The key.
        key: KeyId,
        /// The new state of the row.
        to: StateChange,
    },
    /// The quarantine of a wrap that did not open although its wrapper key works.
    QuarantineWrap {
        /// The key.
        key: KeyId,
        /// The wrapper key.
        wrapper_key: WrapperKeyId,
        /// The generation.
        generation: u32,
        /// The bytes that did not open. A wrap that replaced it meanwhile has other bytes.
        wrapped: Vec<u8>,
    },
    /// A further wrap of the data key. Refused as [`CommitError::LostRace`] if the key does not exist, has another generation or has such a
    /// wrap, and as [`CommitError::WrapperKeyNotFilled`] unless the wrapper key is active or standby.
    AddWrap {
        /// The key.
        key: KeyId,
        /// The wrap.
        wrap: Wrap,
    },
    /// A new data key. Refused if its wrap is not under the active wrapper key.
    Reseal(Box<Reseal>),
    /// The start of a job. A rotation makes `to` active and `from` draining in the same transaction. Refused as
    /// [`CommitError::ActiveWrapperChanged`] if `from` is not active, and as [`CommitError::JobRunning`] if another job runs.
    StartJob(Box<Job>),
    /// The end of a job.
    EndJob(JobEnd),
    /// A standby or draining wrapper key becomes `retiring`: it gets no new wraps. Refused as [`CommitError::JobRunning`] during a rotation.
    BeginRetirement(WrapperKeyId),
    /// The wraps of a retiring wrapper key are deleted: `retired`. Refused as [`CommitError::JobRunning`] during a rotation.
    Retire(Retirement),
    /// A new wrapper key. Its identity must be new.
    InsertWrapperKey(Box<WrapperKey>),
    /// Another name of a wrapper key, or none. It is in the entry, from which the verified state has it, and in no column.
    RenameWrapperKey {
        /// The wrapper key.
        id: WrapperKeyId,
        /// The new name.
        to: Option<WrapperKeyName>,
    },
    /// The regions of a wrapper key: a compare-and-swap on the present ones.
    SetWrapperKeyRegions {
        /// The wrapper key.
        id: WrapperKeyId,
        /// The present regions.
        from: Vec<String>,
        /// The new regions, in the order to try.
        to: Vec<String>,
    },
    /// A freeze or an unfreeze.
    SetFrozen(bool),
    /// A new incarnation of the log, because an operator accepted a store that is older than the newest checkpoint.
    BeginIncarnation(u64),
    /// The removal of archived entries up to this one, except state changes. Refused as [`CommitError::LostRace`] unless it goes further than the removals
    /// before. [`super::KeyStore::remove_some_entries`] frees their space afterwards.
    RemoveEntries {
        /// The last entry.
        through: u64,
    },
}

/// A compare-and-swap on the mutable state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUpdate {
    /// The key.
    pub key: KeyId,
    /// The present revision of the row.
    pub if_revision: u64,
    /// The new state. For `destroyed`, the sealed bytes and all wraps are deleted in the same transaction.
    pub to: StateChange,
    /// The new tag of the row.
    pub row_tag: Option<[u8; 32]>,
    /// A quarantined wrap of the current generation that opened after all. Its quarantine ends.
    pub reinstate_wrap: Option<WrapperKeyId>,
}

/// The state under which a result was computed. The writer compares `store_revision` with its own. If it changed, the writer reads the
/// revision of the key again, and refuses the commit as [`CommitError::Stale`] if this key changed or the vault is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPrecondition {
    /// The key.
    pub key: KeyId,
    /// The revision of the key.
    pub revision: u64,
    /// A revision of the store at which the key had this revision.
    pub store_revision: u64,
    /// Whether the key was imported. The first use of an imported key is a state change, see
    /// [`VerifiedState::first_use`](super::VerifiedState::first_use).
    pub imported: bool,
}

/// The scope of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyScope {
    /// The principal.
    pub principal: String,
    /// The route.
    pub route: String,
    /// The `Idempotency-Key`, 1 to 255 visible ASCII characters.
    pub key: String,
}

/// What the store keeps of an idempotent request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Keyed hash of the body without secrets. Another body with the same key is refused.
    pub body_hash: [u8; 32],
    /// The id of the created object, as text. No secrets.
    pub answer: Vec<u8>,
}

/// An idempotency record to store with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdempotencyRecord {
    /// The scope.
    pub scope: IdempotencyScope,
    /// The record.
    pub record: IdempotencyRecord,
    /// The expiry.
    pub expires_at: Timestamp,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The sequence number of the audit entry.
    pub sequence: u64,
    /// The revision of the store after the commit.
    pub store_revision: u64,
}

/// Why a commit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The key changed or the vault was frozen while the result was computed. The result must be discarded.
    #[error("the key was changed during the call")]
    Stale,
    /// The row has another revision, or does not exist.
    #[error("the key was changed by another call")]
    LostRace,
    /// A key with this id exists.
    #[error("a key with this id exists")]
    KeyExists,
    /// A wrapper key with this identity exists.
    #[error("a wrapper key with this identity is registered already")]
    WrapperKeyExists,
    /// Another wrapper key became active. The data key must be wrapped again.
    #[error("another wrapper key became active meanwhile")]
    ActiveWrapperChanged,
    /// Another job runs.
    #[error("a job is running already")]
    JobRunning,
    /// The wrapper key gets no new wraps, because it is neither active nor standby.
    #[error("the wrapper key gets no new wraps")]
    WrapperKeyNotFilled,
    /// Some keys do not meet the requirement.
    #[error("{0} keys do not meet the requirement")]
    KeysLeft(u64),
    /// Another request with the same idempotency key was committed.
    #[error("the same idempotency key was used meanwhile")]
    IdempotencyKeyTaken,
    /// The audit entry could not be made durable in time.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}
