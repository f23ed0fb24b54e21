//! What is written in one transaction, and why it may be refused.

use crate::domain::{AuditEvent, Job, KeyId, KeyRecord, StateChange, Timestamp, Wrap, WrapperKey, WrapperKeyId};

use super::{JobEnd, Reseal, Retirement, StoreError};

/// What is written in one transaction. Made by the vault's `commit` alone.
#[derive(Debug)]
pub struct Commit {
    /// The change of state, if there is one.
    pub change: Option<Change>,
    /// What to remember for a repeated call.
    pub idempotency: Option<NewIdempotencyRecord>,
    /// What must still hold for a use to count.
    pub precondition: Option<KeyPrecondition>,
    /// What happened.
    pub event: AuditEvent,
}

impl Commit {
    /// An audit entry without a change of state.
    pub const fn entry(event: AuditEvent) -> Self {
        Self { change: None, idempotency: None, precondition: None, event }
    }

    /// A change of state with its audit entry.
    pub const fn change(change: Change, event: AuditEvent) -> Self {
        Self { change: Some(change), idempotency: None, precondition: None, event }
    }
}

/// A change of state. Each bumps the store's revision, but for `AddWrap`, which changes nothing that an open key depends on.
#[derive(Debug)]
pub enum Change {
    /// A new key with its first wraps. Refused if `active` is no longer the active wrapper key.
    InsertKey {
        /// The key; its id must be new.
        record: Box<KeyRecord>,
        /// The wrapper key that was active when the data key was wrapped.
        active: WrapperKeyId,
        /// The predecessor's new link, in the same transaction, with an event of its own.
        link: Option<(KeyUpdate, Box<AuditEvent>)>,
    },
    /// A key takes a step, compare-and-swap on its revision.
    UpdateKey(KeyUpdate),
    /// A key whose row cannot be read is quarantined; refused if the log's newest word on it is not the one before `to`. What can
    /// change in a row becomes what `to` says, and loses its tag.
    SetAside {
        /// Which key.
        key: KeyId,
        /// What the row becomes.
        to: StateChange,
    },
    /// A wrap was found not to open although its wrapper key works.
    QuarantineWrap {
        /// Of which key.
        key: KeyId,
        /// Under which wrapper key.
        wrapper_key: WrapperKeyId,
        /// Of which generation.
        generation: u32,
        /// What was found not to open: a wrap that replaced it meanwhile is another.
        wrapped: Vec<u8>,
    },
    /// A key gets a further wrap of its data key. Refused as [`CommitError::LostRace`] if the key is gone, has another generation or has such
    /// a wrap already, and as [`CommitError::WrapperKeyNotFilled`] unless the wrapper key is active or standby.
    AddWrap {
        /// Which key.
        key: KeyId,
        /// The wrap.
        wrap: Wrap,
    },
    /// A key gets a new data key. Refused if the wrap is not under the active wrapper key.
    Reseal(Box<Reseal>),
    /// A job begins. A rotation makes `to` active and `from` draining in the same transaction; refused as
    /// [`CommitError::ActiveWrapperChanged`] if `from` is not active now, and as [`CommitError::JobRunning`] beside another job.
    StartJob(Box<Job>),
    /// A job ends.
    EndJob(JobEnd),
    /// A wrapper key that is standby or draining gets no new wraps from now on: `retiring`.
    BeginRetirement(WrapperKeyId),
    /// The wraps of a retiring wrapper key go: `retired`.
    Retire(Retirement),
    /// A new wrapper key. Its identity must be new.
    InsertWrapperKey(Box<WrapperKey>),
    /// A wrapper key lives in other regions than before, compare-and-swap on those it had.
    SetWrapperKeyRegions {
        /// Which one.
        id: WrapperKeyId,
        /// The regions that the row must have now.
        from: Vec<String>,
        /// Those it has from now on, in the order to try.
        to: Vec<String>,
    },
    /// The incident switch.
    SetFrozen(bool),
}

/// A compare-and-swap on the facts of a key that change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUpdate {
    /// Which key.
    pub key: KeyId,
    /// The revision that the row must have now.
    pub if_revision: u64,
    /// What the row becomes. For `destroyed` the sealed bytes and all wraps are deleted in the same transaction.
    pub to: StateChange,
    /// The row's tag from now on.
    pub row_tag: Option<[u8; 32]>,
    /// A quarantined wrap of the row's generation that was found to open after all.
    pub reinstate_wrap: Option<WrapperKeyId>,
}

/// What a result was computed under. The writer compares `store_revision` with its own; where it moved on, it rereads the key's
/// revision and the frozen switch, and refuses the commit as [`CommitError::Stale`] if this key changed or the vault froze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPrecondition {
    /// Which key was used.
    pub key: KeyId,
    /// The revision it had.
    pub revision: u64,
    /// The store's revision when that was known to be so.
    pub store_revision: u64,
}

/// Where an idempotency key counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyScope {
    /// Whose.
    pub principal: String,
    /// On which call.
    pub route: String,
    /// The key that the caller chose, 1 to 255 visible ASCII characters.
    pub key: String,
}

/// What is remembered of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Keyed hash of the body without secrets: another body under the same key is refused.
    pub body_hash: [u8; 32],
    /// The answer, as the vault encoded it; no secrets.
    pub answer: Vec<u8>,
}

/// A record to make with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdempotencyRecord {
    /// Where it counts.
    pub scope: IdempotencyScope,
    /// What is remembered.
    pub record: IdempotencyRecord,
    /// Until when.
    pub expires_at: Timestamp,
}

/// What a commit became in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The entry's place.
    pub sequence: u64,
    /// The store's revision after it.
    pub store_revision: u64,
}

/// Why a commit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The key changed, or the vault froze, while the result was computed: discard the result.
    #[error("the key changed while it was used")]
    Stale,
    /// The row has another revision, or is gone.
    #[error("the key changed meanwhile")]
    LostRace,
    /// A key with this id exists.
    #[error("a key with this id exists")]
    KeyExists,
    /// A wrapper key with this identity exists.
    #[error("a wrapper key with this identity is registered already")]
    WrapperKeyExists,
    /// Another wrapper key is active now: wrap again.
    #[error("another wrapper key became active meanwhile")]
    ActiveWrapperChanged,
    /// A job is running already.
    #[error("a job is running already")]
    JobRunning,
    /// The wrapper key gets no new wraps: it is neither active nor on standby.
    #[error("the wrapper key gets no new wraps")]
    WrapperKeyNotFilled,
    /// Keys are left that do not have what this needs.
    #[error("{0} keys do not have what this needs")]
    KeysLeft(u64),
    /// The same idempotency key was used meanwhile.
    #[error("the same idempotency key was used meanwhile")]
    IdempotencyKeyTaken,
    /// The entry could not be made durable in time.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}
