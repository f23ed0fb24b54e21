//! Where keys, wraps and the log are kept: one trait, one write path, and nothing that could take an open secret.

mod jobs;
mod sqlite;

use std::{path::Path, time::Duration};

use async_trait::async_trait;

use crate::{
    audit::Entry,
    domain::{
        AuditEvent, Class, Job, JobId, JobKind, KeyId, KeyRecord, KeyState, NodeName, NodeScope, Operation, Outcome, ProviderKind, Purpose,
        StateChange, Timestamp, Wrap, WrapperKey, WrapperKeyId, WrapperState,
    },
};

pub use jobs::{Dependents, JobEnd, Reseal, Retirement, Wanted, WrapperKeyUse};
pub use sqlite::{Inspection, Mode, OpenStoreError, SqliteConfig, SqliteStore, copy, inspect};

/// A store of keys and of the log. All writing goes through [`KeyStore::commit`].
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// One transaction: the change, the idempotency record and the entry become durable together, or none of them.
    ///
    /// # Errors
    /// [`CommitError`]; except for `Unavailable` after a time-out, nothing was written.
    async fn commit(&self, commit: Commit) -> Result<Receipt, CommitError>;

    /// A key with the log's newest word on it, read in one snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    async fn key(&self, id: KeyId) -> Result<Option<StoredKey>, StoreError>;

    /// What can be said of a key whose row cannot be read.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn outline(&self, id: KeyId) -> Result<Option<Outline>, StoreError>;

    /// Keys in the order of creation.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys(&self, filter: &KeyFilter, page: Page) -> Result<Vec<Positioned<KeyRecord>>, StoreError>;

    /// How many keys there are, those whose rows cannot be read included. Takes longer the more keys there are.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn count_keys(&self, filter: &KeyFilter) -> Result<u64, StoreError>;

    /// Keys pending deletion whose time has come.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn due_for_destruction(&self, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError>;

    /// How many keys are in each state.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys_by_state(&self) -> Result<Vec<(KeyState, u64)>, StoreError>;

    /// All wrapper keys, oldest first.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn wrapper_keys(&self) -> Result<Vec<WrapperKey>, StoreError>;

    /// All wrapper keys, oldest first, each with what stands under it. Takes longer the more keys there are.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys_by_wrapper_key(&self) -> Result<Vec<WrapperKeyUse>, StoreError>;

    /// How many wraps that open there are under wrapper keys of each provider and state.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn wraps_by_state(&self) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError>;

    /// Keys that do not have what is wanted, in the order of creation. A row without a readable id is left out, but counts in
    /// [`KeyStore::commit`] of an end.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn left(&self, wanted: Wanted, page: Page) -> Result<Vec<Positioned<KeyId>>, StoreError>;

    /// What would be lost if the wraps under a wrapper key went and only `holders` stayed.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError>;

    /// Jobs of a kind, oldest first. A running one has its numbers as of now, and no errors.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn jobs(&self, kind: JobKind, page: Page) -> Result<Vec<Positioned<Job>>, StoreError>;

    /// One job, as in [`KeyStore::jobs`].
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The job that runs, if one does, without its numbers: costs the same however many keys there are.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn running_job(&self) -> Result<Option<Job>, StoreError>;

    /// What an earlier call with this idempotency key answered, if it has not expired at `now`.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn remembered(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<Remembered>, StoreError>;

    /// Entries in the order of the log.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn entries(&self, filter: &EntryFilter, page: Page) -> Result<Vec<StoredEntry>, StoreError>;

    /// Whether the store says that the vault is frozen.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn frozen(&self) -> Result<bool, StoreError>;

    /// 32 random bytes made with the store, for keyed hashes of request bodies. Not a key of anything else.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn hash_key(&self) -> Result<[u8; 32], StoreError>;

    /// Copies the store to a new file, online, consistently.
    ///
    /// # Errors
    /// [`StoreError`] if the file exists or cannot be written.
    async fn backup(&self, to: &Path) -> Result<(), StoreError>;

    /// Bytes free where the store lives; `None` if it has no disk of its own.
    fn free_disk(&self) -> Option<u64>;

    /// The revision of the store, as this process knows it: bumped by every state change. Costs an atomic load.
    fn revision(&self) -> u64;

    /// The version of the schema.
    fn schema(&self) -> u32;
}

/// What is written in one transaction. Made by the vault's `commit` alone.
#[derive(Debug)]
pub struct Commit {
    /// The change of state, if there is one.
    pub change: Option<Change>,
    /// What to remember for a repeated call.
    pub idempotency: Option<Idempotency>,
    /// What must still hold for a use to count.
    pub unchanged: Option<Unchanged>,
    /// What happened.
    pub event: AuditEvent,
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
    pub lift: Option<WrapperKeyId>,
}

/// What a result was computed under. The writer compares `store_revision` with its own; where it moved on, it rereads the key's
/// revision and the frozen switch, and refuses the commit as [`CommitError::Stale`] if this key changed or the vault froze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unchanged {
    /// Which key was used.
    pub key: KeyId,
    /// The revision it had.
    pub revision: u64,
    /// The store's revision when that was known to be so.
    pub store_revision: u64,
}

/// A key as stored, with the log's newest word on its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The row and its wraps.
    pub record: KeyRecord,
    /// The newest state change of this key in the log, from the entry's bytes; `None` if there is none.
    pub logged: Option<StateChange>,
    /// The store's revision in the same snapshot.
    pub store_revision: u64,
}

/// What can be said of a key whose row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its node, if at least that can be read.
    pub node: Option<NodeName>,
    /// The newest state change of this key in the log.
    pub logged: Option<StateChange>,
}

/// An item of a list and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positioned<T> {
    /// Where it stands: the cursor that continues after it.
    pub position: u64,
    /// The item.
    pub item: T,
}

/// A page of a list: after this position, at most so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Continue after this position; 0 begins.
    pub after: u64,
    /// At most so many items.
    pub limit: u32,
}

/// Which keys to list. Empty lists all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    /// On nodes that the caller may see.
    pub nodes: NodeScope,
    /// On this node.
    pub node: Option<NodeName>,
    /// With this purpose.
    pub purpose: Option<Purpose>,
    /// In this state.
    pub state: Option<KeyState>,
    /// Of this class.
    pub class: Option<Class>,
    /// Created before.
    pub created_before: Option<Timestamp>,
}

impl KeyFilter {
    /// All keys of all nodes.
    pub const fn all() -> Self {
        Self { nodes: NodeScope::All, node: None, purpose: None, state: None, class: None, created_before: None }
    }
}

/// Which entries to list. `from` is inclusive, `to` exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFilter {
    /// On nodes that the caller may see; entries without a node are shown to [`NodeScope::All`] only.
    pub nodes: NodeScope,
    /// About this key.
    pub key: Option<KeyId>,
    /// On this node.
    pub node: Option<NodeName>,
    /// By this principal.
    pub principal: Option<String>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// An entry with the hash of its stored bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The entry, decoded.
    pub entry: Entry,
    /// The stored bytes, which alone are hashed.
    pub bytes: Vec<u8>,
    /// The stored leaf hash.
    pub leaf: [u8; 32],
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
pub struct Remembered {
    /// Keyed hash of the body without secrets: another body under the same key is refused.
    pub body_hash: [u8; 32],
    /// The answer, as the vault encoded it; no secrets.
    pub answer: Vec<u8>,
}

/// A record to make with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Where it counts.
    pub scope: IdempotencyScope,
    /// What is remembered.
    pub remembered: Remembered,
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

/// Why the store cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk.
    #[error("no room left where the store lives")]
    DiskFull,
    /// The database said no.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A row that should be valid is not.
    #[error("{table} holds a row that cannot be read: {what}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The writer's queue is full, or it did not answer in time.
    #[error("the store did not answer within {0:?}")]
    TooSlow(Duration),
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
}
