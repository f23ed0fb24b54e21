//! Where keys, wraps and the log are kept: one trait, one write path, and nothing that could take an open secret.

mod commit;
mod jobs;
mod sqlite;

use std::{path::Path, time::Duration};

use async_trait::async_trait;

use crate::{
    audit::Entry,
    domain::{
        Class, Job, JobId, JobKind, KeyId, KeyRecord, KeyState, NodeName, NodeScope, Operation, Outcome, ProviderKind, Purpose,
        StateChange, Timestamp, WrapperKey, WrapperKeyId, WrapperState,
    },
};

pub use self::commit::{
    Change, Commit, CommitError, Idempotency, IdempotencyRecord, IdempotencyScope, KeyPrecondition, KeyUpdate, Receipt,
};
pub use self::jobs::{Dependents, JobEnd, KeyRequirement, Reseal, Retirement, WrapperKeyUse};
pub use self::sqlite::{Inspection, Mode, OpenStoreError, SqliteConfig, SqliteStore, copy, inspect};

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
    async fn unreadable_key(&self, id: KeyId) -> Result<Option<UnreadableKey>, StoreError>;

    /// Keys in the order of creation.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys(&self, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError>;

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
    async fn left(&self, wanted: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError>;

    /// What would be lost if the wraps under a wrapper key went and only `holders` stayed.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError>;

    /// Jobs of a kind, oldest first. A running one has its numbers as of now, and no errors.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn jobs(&self, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError>;

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
    async fn remembered(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Entries in the order of the log.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn entries(&self, filter: &EntryFilter, page: PageRequest) -> Result<Vec<StoredEntry>, StoreError>;

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
pub struct UnreadableKey {
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
pub struct PageRequest {
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
