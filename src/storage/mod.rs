//! The store of keys, wraps and the audit log. It has one trait and one write path, and no function that could take an open secret.
//!
//! Every ciphertext arrives sealed or wrapped. A second store implements [`KeyStore`] and passes the same conformance tests.

mod commit;
#[cfg(feature = "postgresql")]
mod copy;
mod digest;
mod jobs;
mod log_query;
mod pending;
#[cfg(feature = "postgresql")]
mod postgres;
mod queue;
mod replication;
mod sqlite;
mod totals;
mod tree;
mod verified_state;
mod wrapper_key_names;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    audit::merkle::Hash,
    domain::{
        Class, Job, JobId, JobKind, KeyId, KeyName, KeyRecord, KeyState, Lifecycle, NodeName, NodeScope, ProviderKind, Purpose,
        StateChange, Timestamp, WrapperKey, WrapperKeyId, WrapperState,
    },
};

pub use commit::{
    Change, Commit, CommitError, IdempotencyRecord, IdempotencyScope, KeyPrecondition, KeyUpdate, NewIdempotencyRecord, Receipt,
};
#[cfg(feature = "postgresql")]
pub use copy::{ChainEnd, CopiedStore, CopyStoreError, LogEnd, StorePlace, backup_postgres, copies_column, copy_store};
pub use jobs::{Coverage, Dependents, JobEnd, KeyRequirement, Reseal, Retirement, WRAPS_AT_ONCE, WrapperKeyUse};
pub use log_query::{EntryFilter, EntryPage, Order, StoredEntry};
#[cfg(feature = "postgresql")]
pub use postgres::{PostgresConfig, PostgresInspection, PostgresStore, inspect_postgres};
#[cfg(feature = "postgresql")]
pub(crate) use postgres::{is_local, tls, with_causes};
pub use replication::{LEASE_SECONDS, Lease, Replica, Replication};
pub use sqlite::{
    BackupHead, Inspection, KeyRows, Mode, OpenStoreError, SqliteConfig, SqliteStore, StoreFacts, VerifyLogError, backup_head, copy, facts,
    free_disk, inspect, is_in_use, verify_log,
};
pub use totals::{MAX_GROUPS, Total, Totals, TotalsQuery};
pub use verified_state::{CHAIN_START, ChainError, LoggedUse, VerifiedKey, VerifiedState, VerifiedWrapperKey, idempotency_digest};

/// A store of keys and of the audit log. All writes go through [`KeyStore::commit`]. Several processes may share one store,
/// which then has [`KeyStore::replication`].
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Writes the change, the idempotency record and the audit entry in one transaction. Returns after they are durable.
    ///
    /// A commit that is not begun within [`KeyStore::commit_timeout`] is given up. A change that is begun is waited for without a limit, so
    /// that its outcome is always known.
    ///
    /// # Errors
    /// [`CommitError`]. Nothing was written, except possibly the entry of a commit without a change, for `Unavailable` with
    /// [`StoreError::TooSlow`].
    async fn commit(&self, commit: Commit) -> Result<Receipt, CommitError>;

    /// A key and its newest state change in the audit log, read in one snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    async fn key(&self, id: KeyId) -> Result<Option<StoredKey>, StoreError>;

    /// What is known of a key whose row cannot be read.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn unreadable_key(&self, id: KeyId) -> Result<Option<UnreadableKey>, StoreError>;

    /// Keys in the order of their creation.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys(&self, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError>;

    /// The number of keys, including those whose rows cannot be read. The time grows with the number of keys.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn count_keys(&self, filter: &KeyFilter) -> Result<u64, StoreError>;

    /// Keys whose deletion is due at `now`.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn due_for_destruction(&self, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError>;

    /// The number of keys in each state.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys_by_state(&self) -> Result<Vec<(KeyState, u64)>, StoreError>;

    /// All wrapper keys, oldest first.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn wrapper_keys(&self) -> Result<Vec<WrapperKey>, StoreError>;

    /// All wrapper keys with their use, oldest first. The time grows with the number of keys.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys_by_wrapper_key(&self) -> Result<Vec<WrapperKeyUse>, StoreError>;

    /// The number of wraps that are not quarantined, by provider and state of their wrapper keys.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn wraps_by_state(&self) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError>;

    /// Keys that do not meet a requirement, in the order of their creation. Rows without a readable id are omitted here, but are counted when
    /// a job ends.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn keys_missing(&self, requirement: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError>;

    /// How many keys meet a requirement, including keys whose rows cannot be read. The time grows with the number of keys.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn coverage(&self, requirement: KeyRequirement) -> Result<Coverage, StoreError>;

    /// What would be lost if the wraps under a wrapper key were deleted and only those under `holders` stayed.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError>;

    /// Jobs of a kind, oldest first. A running job has its current progress and no errors.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn jobs(&self, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError>;

    /// One job, as in [`KeyStore::jobs`].
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The state of the store as a whole, read in one snapshot. The time does not depend on the number of keys.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn state(&self) -> Result<StoreState, StoreError>;

    /// The idempotency record of an earlier request with this key, if it has not expired at `now`.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn idempotency_record(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Audit entries in the order of the filter. `page.after` is the sequence number of the last entry of the page before. A query takes a bounded
    /// time, however long the log is and whatever the filter is: then it gives the entries found so far and the place where it stopped.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn entries(&self, filter: &EntryFilter, page: PageRequest) -> Result<EntryPage, StoreError>;

    /// Digests a few complete blocks of the log that no digest has yet: filters for [`KeyStore::entries`], and totals. Returns whether more are
    /// left. For a background task: nothing waits for it, and a query reads the blocks without a digest.
    ///
    /// # Errors
    /// As [`KeyStore::key`]. Nothing was written then.
    async fn digest_log(&self) -> Result<bool, StoreError>;

    /// The entries up to this one may have no bytes any more, except state changes: the log states their removal. 0 if there was none.
    fn removed_through(&self) -> u64;

    /// Frees the space of some entries up to [`KeyStore::removed_through`] that were digested. Returns whether more are left. For a background task.
    ///
    /// # Errors
    /// As [`KeyStore::key`]. Nothing was removed then.
    async fn remove_some_entries(&self) -> Result<bool, StoreError>;

    /// Deletes up to [`WRAPS_AT_ONCE`] wraps under wrapper keys that are retired according to the log. Returns whether more may be left. For a background
    /// task.
    ///
    /// # Errors
    /// As [`KeyStore::key`]. Nothing was deleted then.
    async fn delete_retired_wraps(&self) -> Result<bool, StoreError>;

    /// Counts entries and the calls that they represent. A count takes a bounded time: then it says up to which entry it counted.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn totals(&self, query: TotalsQuery) -> Result<Totals, StoreError>;

    /// The lifecycle of a key after its newest state change up to this time, as the log states it. `None` if there is none.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn key_state_at(&self, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError>;

    /// Stores the text of a policy under its SHA-256 (hex), before an entry states the digest. A text that is there already stays.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn store_policy(&self, digest: &str, text: &str) -> Result<(), StoreError>;

    /// The text of a policy. The caller compares it with the digest.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn policy_text(&self, digest: &str) -> Result<Option<String>, StoreError>;

    /// The ids of keys with this name, or whose id begins with this text: at most `limit`.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn find_keys(&self, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError>;

    /// A use of an imported key since its newest import, if there is one. The chain of state changes has the first use, if a program made it that
    /// writes first uses into the chain. For uses by earlier programs, the entries about the key are read. The time grows with the number of
    /// entries since the import.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the entries do not prove that there is no use: one is missing or was changed, or the key was not imported.
    /// Otherwise as [`KeyStore::key`].
    async fn use_since_import(&self, id: KeyId) -> Result<Option<LoggedUse>, StoreError>;

    /// The end of the durable log, from memory: what a checkpoint states.
    fn log_head(&self) -> LogHead;

    /// Hashes and proofs of the Merkle tree over the log. The time is logarithmic in the number of entries.
    ///
    /// # Errors
    /// As [`KeyStore::key`]. [`StoreError::Corrupt`] if an entry or hash is missing.
    async fn tree(&self, query: TreeQuery) -> Result<Vec<Hash>, StoreError>;

    /// The inclusion proofs of `leaves` in the tree of `size` entries, in their order. Leaves that are neighbours cost little more than one.
    ///
    /// # Errors
    /// As [`KeyStore::tree`].
    async fn inclusion_proofs(&self, leaves: Vec<u64>, size: u64) -> Result<Vec<Vec<Hash>>, StoreError>;

    /// The stored bytes of `count` entries after the first `from`, at most 256.
    ///
    /// # Errors
    /// As [`KeyStore::tree`].
    async fn entry_bytes(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError>;

    /// As [`KeyStore::entry_bytes`], for sinks: not behind the queries of auditors.
    ///
    /// # Errors
    /// As [`KeyStore::tree`].
    async fn entries_for_sinks(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError>;

    /// How far a sink has the log. `None` before it confirmed anything. It is not authenticated.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn sink_cursor(&self, sink: &str) -> Result<Option<SinkCursor>, StoreError>;

    /// Stores how far a sink has the log.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn store_sink_cursor(&self, sink: &str, cursor: SinkCursor) -> Result<(), StoreError>;

    /// Stores a checkpoint, or replaces the one with the same origin and size.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn store_checkpoint(&self, checkpoint: StoredCheckpoint) -> Result<(), StoreError>;

    /// The checkpoint of a log with the most entries.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn newest_checkpoint(&self, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError>;

    /// Checkpoints over more than `after` and less than `before` entries, in this order: at most about 10,000, evenly distributed if there are more.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn checkpoints(&self, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError>;

    /// 32 random bytes, created with the store, for keyed hashes of request bodies. They have no other use.
    ///
    /// # Errors
    /// As [`KeyStore::key`].
    async fn idempotency_hash_key(&self) -> Result<[u8; 32], StoreError>;

    /// The newest revision of the store that this process has seen: a hint that costs one atomic load. It is at least the revision of every
    /// commit of this process. A store that several processes share may be ahead of it; the commit of a use compares with the store itself.
    fn known_revision(&self) -> u64;

    /// How long a commit may take before its caller should get an answer.
    fn commit_timeout(&self) -> Duration;

    /// The version of the schema.
    fn schema(&self) -> u32;

    /// The other processes over the same store. `None` if the store belongs to one process.
    fn replication(&self) -> Option<&dyn Replication> {
        None
    }

    /// Completes the accepted commits, refuses others as [`StoreError::Closed`], and releases the resources of this process.
    ///
    /// A process that ends without it loses no acknowledged commit.
    async fn close(&self);
}

/// The state of the store as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// The revision. Every state change increases it.
    pub revision: u64,
    /// Whether the vault is frozen.
    pub frozen: bool,
    /// The incarnation of the log, from 1.
    pub incarnation: u64,
    /// The key that signs checkpoints of the log.
    pub checkpoint_key: Option<KeyId>,
    /// The running job, without its progress.
    pub running_job: Option<Job>,
}

/// The end of the durable log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The number of entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// The number of the newest state change.
    pub state_revision: u64,
    /// Its leaf hash.
    pub state_head: Hash,
}

/// A question about the Merkle tree over the log. Leaf `i` is the entry with the sequence number `i + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeQuery {
    /// The root of the first `size` entries: one hash.
    Root {
        /// The number of entries.
        size: u64,
    },
    /// The inclusion proof of a leaf, from the leaf to the root.
    Inclusion {
        /// The leaf.
        leaf: u64,
        /// The number of entries.
        size: u64,
    },
    /// The consistency proof between two sizes.
    Consistency {
        /// The smaller number of entries.
        old: u64,
        /// The larger number of entries.
        size: u64,
    },
    /// The roots of the complete subtrees that the first `size` entries make, largest first.
    Subtrees {
        /// The number of entries.
        size: u64,
    },
    /// The hashes of a tile: leaves at level 0, roots of 256^level leaves at others.
    Hashes {
        /// The level.
        level: u32,
        /// The first position in the level.
        from: u64,
        /// The number of hashes, at most 256.
        count: u64,
    },
}

/// A checkpoint as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The log: `<vault>/<instance>/<incarnation>`.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The signed note. It alone is authenticated.
    pub note: String,
    /// The time of the checkpoint.
    pub at: Timestamp,
}

/// How far an audit sink has the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkCursor {
    /// The last entry that the sink confirmed, 0 before the first.
    pub sequence: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// When this was stored.
    pub at: Timestamp,
}

/// A stored key, and its newest state change in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The row and its wraps.
    pub record: KeyRecord,
    /// The newest state change of this key in the audit log, from the bytes of the entry. `None` if there is none.
    pub logged_state: Option<StateChange>,
    /// The revision of the store in the same snapshot.
    pub store_revision: u64,
}

/// What is known of a key whose row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableKey {
    /// The node, if it can be read.
    pub node: Option<NodeName>,
    /// The newest state change of this key in the audit log.
    pub logged_state: Option<StateChange>,
}

/// An item of a list and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positioned<T> {
    /// The position: the cursor of the next page.
    pub position: u64,
    /// The item.
    pub item: T,
}

/// A request for one page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The position after which the page starts. 0 is the first page.
    pub after: u64,
    /// Maximum number of items.
    pub limit: u32,
}

/// Filters of a list of keys. All given filters must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    /// The nodes that the caller may see.
    pub nodes: NodeScope,
    /// The node. `None`: all nodes, without the keys of the vault itself.
    pub node: Option<NodeName>,
    /// The purpose.
    pub purpose: Option<Purpose>,
    /// The state.
    pub state: Option<KeyState>,
    /// The class.
    pub class: Option<Class>,
    /// The whole name.
    pub name: Option<KeyName>,
    /// The whole name, or the beginning of the id.
    pub key: Option<String>,
    /// Created at this time or later.
    pub created_since: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
}

impl KeyFilter {
    /// All keys of all nodes.
    pub const fn all() -> Self {
        Self {
            nodes: NodeScope::All,
            node: None,
            purpose: None,
            state: None,
            class: None,
            name: None,
            key: None,
            created_since: None,
            created_before: None,
        }
    }
}

/// Why the store cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk of the store is full. Free some space")]
    DiskFull,
    /// The database refuses writes: it is a standby, or an administrator made it read-only.
    #[error("the database is read-only. Connect to the primary server, or let it accept writes")]
    ReadOnly,
    /// An error of the database.
    #[error("the database failed: {0}")]
    Failed(String),
    /// A row is not valid.
    #[error("the table {table} has a row that cannot be read: {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The queue of the writer is full, or it did not answer in time. The outcome of a commit is unknown then.
    #[error("the store did not answer within {0:?}")]
    TooSlow(Duration),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
