//! The store in one SQLite file: durable at every response (WAL, `synchronous=FULL`), one process, one writer thread, group commit.
//!
//! | file | holds |
//! |---|---|
//! | `config` | how to open a store, and why it may be refused |
//! | `open` | lock, identity of the file, migration |
//! | `writer` | the thread that owns the write connection: batches, sequence, one sync |
//! | `chain` | the chain of state changes: verified at the opening, begun for an earlier schema |
//! | `schema` | the file has the tables and indexes of this program, and nothing else |
//! | `apply` | what one commit does inside the batch's transaction |
//! | `tree` | the Merkle tree over the log: hashes, proofs |
//! | `blocks` | the summary of the log by blocks of entries, which the writer keeps |
//! | `digests` | filters and totals of complete blocks, which a background task makes |
//! | `readers` | threads with read connections |
//! | `read`, `list` | look-ups by key; pages of keys |
//! | `totals` | how many calls there were, from the digests and the entries after them |
//! | `entries` | queries of the log, block by block, within a time |
//! | `uses` | whether an imported key was used since its import |
//! | `jobs` | jobs over all keys: which keys are left, starting, ending, retiring |
//! | `policies` | the texts of policies; the state of a key at a time |
//! | `rows` | rows to domain types and back |
//! | `backup` | a complete copy in one file |
//! | `copy_source`, `copy_target` | a file as an end of a copy between the databases |
//! | `verify_log` | the log of a file against its checkpoints, offline |
//! | `inspect` | looking at a file, and copying it, from outside |
//!
//! **Size.** The entry of a signature has about 630 bytes of JSON and takes about 940 bytes of the file, including its indexes (`cargo
//! bench --bench commit`). 10 signatures each second are 0.8 GB each day.

mod apply;
mod backup;
mod blocks;
mod chain;
mod config;
#[cfg(feature = "postgresql")]
mod copy_source;
#[cfg(feature = "postgresql")]
mod copy_target;
mod digests;
mod entries;
mod error;
mod inspect;
mod jobs;
mod list;
mod open;
mod policies;
mod read;
mod readers;
mod removal;
mod rows;
mod schema;
mod spans;
mod totals;
mod tree;
mod uses;
mod verify_log;
mod wal;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::Connection;

use self::{
    read::Snapshot,
    readers::{Lane, Readers},
    uses::{Entries, Position},
    writer::{TreeHead, Writer},
};
use super::{
    Commit, CommitError, Coverage, Dependents, EntryFilter, EntryPage, IdempotencyRecord, IdempotencyScope, KeyFilter, KeyRequirement,
    KeyStore, LogHead, LoggedUse, PageRequest, Positioned, Receipt, SinkCursor, StoreError, StoreState, StoredCheckpoint, StoredEntry,
    StoredKey, Totals, TotalsQuery, TreeQuery, UnreadableKey, VerifiedState, WrapperKeyUse,
};
use crate::audit::merkle::Hash;
use crate::domain::{
    Job, JobId, JobKind, KeyId, KeyRecord, KeyState, Lifecycle, NodeScope, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState,
};

#[cfg(feature = "postgresql")]
pub(super) use self::{copy_source::SqliteSource, copy_target::SqliteTarget};

pub use self::config::{Mode, OpenStoreError, SqliteConfig};
pub use self::inspect::{BackupHead, Inspection, StoreFacts, backup_head, copy, facts, inspect};
pub use self::list::KeyRows;
pub use self::open::is_in_use;
pub use self::verify_log::{VerifyLogError, verify_log};

/// How often a read is repeated that meets a commit. Each commit lets it move at most once.
const SNAPSHOT_ATTEMPTS: u64 = 60;

/// A store in one SQLite file. Opened by [`SqliteStore::open`], closed by [`KeyStore::close`]. If it is dropped, its threads end.
pub struct SqliteStore {
    path: PathBuf,
    vfs: Option<String>,
    schema: u32,
    hash_key: [u8; 32],
    state: Arc<RwLock<VerifiedState>>,
    tree_head: Arc<RwLock<TreeHead>>,
    revision: Arc<AtomicU64>,
    writer: Writer,
    readers: Readers,
    query_time: Duration,
}

impl SqliteStore {
    /// Copies the store to a new file while it is in use. The copy is consistent and complete.
    ///
    /// # Errors
    /// [`StoreError`] if the file exists or cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (from, to, vfs) = (self.path.clone(), to.to_owned(), self.vfs.clone());
        // The duration is that of the copy. Therefore it runs on its own thread and without a timeout.
        tokio::task::spawn_blocking(move || backup::copy(&from, vfs.as_deref(), &to))
            .await
            .map_err(|stopped| StoreError::Failed(stopped.to_string()))?
    }

    /// The id of every key that the table or the log has, whether its row can be read or not. For a check of the whole store.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub async fn key_rows(&self) -> Result<KeyRows, StoreError> {
        self.verified(Lane::Lists, list::key_rows).await
    }

    /// Free bytes on the disk of the store. `None` if the operating system does not say.
    pub fn free_disk(&self) -> Option<u64> {
        free_disk(&self.path)
    }

    /// A read that is compared with the verified state. It is repeated until both are of the same moment, which takes no longer than a commit.
    async fn verified<T: Send + 'static>(
        &self,
        lane: Lane,
        read: impl Fn(&Connection, &RwLock<VerifiedState>) -> Result<Snapshot<T>, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let read = Arc::new(read);
        for attempt in 0..SNAPSHOT_ATTEMPTS {
            let (state, read) = (Arc::clone(&self.state), Arc::clone(&read));
            match self.readers.run(lane, move |db| read(db, &state)).await? {
                Snapshot::Read(found) => return Ok(found),
                Snapshot::Moved => tokio::time::sleep(Duration::from_millis(attempt.min(20))).await,
            }
        }
        Err(error::corrupt("meta", "store_revision is not the number of the newest state change in the log"))
    }

    async fn list<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(Lane::Lists, read).await
    }
}

/// Free bytes on the disk of a store. `None` if the operating system does not say.
pub fn free_disk(path: &Path) -> Option<u64> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn commit(&self, commit: Commit) -> Result<Receipt, CommitError> {
        self.writer.commit(commit).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<StoredKey>, StoreError> {
        self.verified(Lane::LookUps, move |db, state| read::key(db, state, id)).await
    }

    async fn unreadable_key(&self, id: KeyId) -> Result<Option<UnreadableKey>, StoreError> {
        self.verified(Lane::LookUps, move |db, state| read::unreadable_key(db, state, id)).await
    }

    async fn keys(&self, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError> {
        let filter = filter.clone();
        self.list(move |db| list::keys(db, &filter, page)).await
    }

    async fn count_keys(&self, filter: &KeyFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.list(move |db| list::count_keys(db, &filter)).await
    }

    async fn due_for_destruction(&self, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        self.list(move |db| read::due_for_destruction(db, now, limit)).await
    }

    async fn keys_by_state(&self) -> Result<Vec<(KeyState, u64)>, StoreError> {
        self.list(read::keys_by_state).await
    }

    async fn wrapper_keys(&self) -> Result<Vec<WrapperKey>, StoreError> {
        self.verified(Lane::LookUps, read::verified_wrapper_keys).await
    }

    async fn keys_by_wrapper_key(&self) -> Result<Vec<WrapperKeyUse>, StoreError> {
        self.verified(Lane::Lists, read::verified_keys_by_wrapper_key).await
    }

    async fn wraps_by_state(&self) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError> {
        self.list(read::wraps_by_state).await
    }

    async fn keys_missing(&self, requirement: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError> {
        self.list(move |db| jobs::keys_missing(db, requirement, page)).await
    }

    async fn coverage(&self, requirement: KeyRequirement) -> Result<Coverage, StoreError> {
        self.list(move |db| jobs::coverage(db, requirement)).await
    }

    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError> {
        let holders = holders.to_vec();
        self.list(move |db| jobs::dependents(db, wrapper_key, &holders)).await
    }

    async fn jobs(&self, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError> {
        self.list(move |db| jobs::jobs(db, kind, page)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.list(move |db| jobs::job(db, id)).await
    }

    async fn state(&self) -> Result<StoreState, StoreError> {
        self.verified(Lane::LookUps, read::state).await
    }

    async fn idempotency_record(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError> {
        let scope = scope.clone();
        self.verified(Lane::LookUps, move |db, state| read::idempotency_record(db, state, &scope, now)).await
    }

    async fn entries(&self, filter: &EntryFilter, page: PageRequest) -> Result<EntryPage, StoreError> {
        let (filter, time) = (filter.clone(), self.query_time);
        self.readers.run(Lane::Log, move |db| entries::entries(db, &filter, page, time)).await
    }

    async fn digest_log(&self) -> Result<bool, StoreError> {
        let digests = self.readers.run(Lane::Log, digests::make).await?;
        if digests.is_empty() {
            return Ok(false);
        }
        // Each in a transaction of its own: the digest of a block whose entries have as many keys takes some 100 ms in a store with a million keys.
        for digest in digests {
            self.writer.aside(move |db| digests::write(db, &digest)).await?;
        }
        Ok(true)
    }

    fn removed_through(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).removed_through
    }

    async fn remove_some_entries(&self) -> Result<bool, StoreError> {
        let through = self.removed_through();
        if !self.readers.run(Lane::Log, move |db| removal::is_left(db, through)).await? {
            return Ok(false);
        }
        self.writer.aside(move |db| removal::remove_some(db, through)).await.map(|()| true)
    }

    async fn delete_retired_wraps(&self) -> Result<bool, StoreError> {
        let retired = self.state.read().unwrap_or_else(PoisonError::into_inner).retired_wrapper_keys();
        let Some(id) = self.list(move |db| jobs::first_with_wraps(db, &retired)).await? else { return Ok(false) };
        self.writer.aside(move |db| jobs::delete_retired_wraps(db, id)).await.map(|()| true)
    }

    async fn totals(&self, query: TotalsQuery) -> Result<Totals, StoreError> {
        let time = self.query_time;
        self.readers.run(Lane::Log, move |db| totals::totals(db, &query, time)).await
    }

    async fn key_state_at(&self, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError> {
        self.readers.run(Lane::Log, move |db| policies::key_state_at(db, id, at)).await
    }

    async fn store_policy(&self, digest: &str, text: &str) -> Result<(), StoreError> {
        let (digest, text) = (digest.to_owned(), text.to_owned());
        self.writer.aside(move |db| policies::store(db, &digest, &text)).await
    }

    async fn policy_text(&self, digest: &str) -> Result<Option<String>, StoreError> {
        let digest = digest.to_owned();
        self.list(move |db| policies::text(db, &digest)).await
    }

    async fn find_keys(&self, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        let (text, nodes) = (text.to_owned(), nodes.clone());
        self.list(move |db| list::find_keys(db, &text, &nodes, limit)).await
    }

    async fn use_since_import(&self, id: KeyId) -> Result<Option<LoggedUse>, StoreError> {
        let in_chain = self.verified(Lane::Log, move |db, state| uses::in_chain(db, state, id)).await?;
        if in_chain.first_use.is_some() {
            return Ok(in_chain.first_use);
        }
        let (newest, mut position) = (in_chain.newest, Position::newest(&in_chain));
        let import = loop {
            match self.readers.run(Lane::Log, move |db| uses::before(db, id, position)).await? {
                Entries::Use(found) => return Ok(Some(found)),
                Entries::Import(sequence) => break sequence,
                Entries::More(older) => position = older,
            }
        };
        let mut after = import;
        while after < newest {
            let last = after.saturating_add(uses::COUNTED_AT_ONCE).min(newest);
            self.readers.run(Lane::Log, move |db| uses::without_gap(db, after, last)).await?;
            after = last;
        }
        Ok(None)
    }

    fn log_head(&self) -> LogHead {
        let TreeHead { frontier, state_revision, state_head } = self.tree_head.read().unwrap_or_else(PoisonError::into_inner).clone();
        LogHead { size: frontier.size(), root: frontier.root(), state_revision, state_head }
    }

    async fn tree(&self, query: TreeQuery) -> Result<Vec<Hash>, StoreError> {
        self.readers.run(Lane::Log, move |db| crate::storage::tree::query(&tree::Tree(db), query)).await
    }

    async fn inclusion_proofs(&self, leaves: Vec<u64>, size: u64) -> Result<Vec<Vec<Hash>>, StoreError> {
        self.readers.run(Lane::Log, move |db| crate::storage::tree::inclusion_proofs(&tree::Tree(db), &leaves, size)).await
    }

    async fn entry_bytes(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        self.readers.run(Lane::Log, move |db| tree::entry_bytes(db, from, count)).await
    }

    async fn entries_for_sinks(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        self.readers.run(Lane::LookUps, move |db| tree::entry_bytes(db, from, count)).await
    }

    async fn sink_cursor(&self, sink: &str) -> Result<Option<SinkCursor>, StoreError> {
        let sink = sink.to_owned();
        self.readers.run(Lane::LookUps, move |db| read::sink_cursor(db, &sink)).await
    }

    async fn store_sink_cursor(&self, sink: &str, cursor: SinkCursor) -> Result<(), StoreError> {
        self.writer.store_sink_cursor(sink.to_owned(), cursor).await
    }

    async fn store_checkpoint(&self, checkpoint: StoredCheckpoint) -> Result<(), StoreError> {
        self.writer.store_checkpoint(checkpoint).await
    }

    async fn newest_checkpoint(&self, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
        let origin = origin.to_owned();
        self.list(move |db| read::newest_checkpoint(db, &origin)).await
    }

    async fn checkpoints(&self, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
        self.readers.run(Lane::Log, move |db| read::checkpoints(db, after, before)).await
    }

    async fn idempotency_hash_key(&self) -> Result<[u8; 32], StoreError> {
        Ok(self.hash_key)
    }

    fn known_revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn commit_timeout(&self) -> Duration {
        self.writer.timeout()
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    /// Also writes the WAL into the database file, and releases the lock of the file. Without it, the next opening replays the WAL.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
