//! The store in a PostgreSQL database: durable at every response, group commit, any number of processes with a log each.
//!
//! | file | holds |
//! |---|---|
//! | `config` | options |
//! | `connect` | pools, TLS, limits of waits |
//! | `connector` | each connection, with the password of now |
//! | `open` | identity of the database, migration, lock of the instance |
//! | `structure` | the tables are those that the migrations make |
//! | `accept` | a new chain from the rows, if an operator accepts a broken one |
//! | `writer` | the task that owns the write connection: batches, one statement for uses, unknown outcomes |
//! | `queue` | the queue of the task |
//! | `shared` | what the task shares with readers |
//! | `insert` | the statement that writes the entries of a batch |
//! | `chain` | the chain of state changes over all instances |
//! | `apply` | what one commit does inside the batch's transaction |
//! | `tree` | the Merkle tree over the log: hashes, proofs |
//! | `log` | queries of the log, digests, totals, removal |
//! | `read` | look-ups by key; pages of keys |
//! | `jobs` | jobs over all keys |
//! | `rows` | rows to domain types and back |
//! | `follow` | the task that follows other processes; leases |
//! | `inspect` | what `check` reads; settings that can lose data |
//! | `copy_source`, `copy_target` | a database as an end of a copy between the databases |
//! | `error` | reasons from SQLSTATE |

mod accept;
mod apply;
mod chain;
mod config;
mod connect;
mod connector;
mod copy_source;
mod copy_target;
mod error;
mod follow;
mod insert;
mod inspect;
mod jobs;
mod log;
mod open;
mod queue;
mod read;
mod rows;
mod shared;
mod structure;
mod tree;
mod writer;

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};

use self::{
    connect::{Db, execute, execute_one},
    error::signed,
    follow::{Follower, Known},
    queue::Writer,
    shared::{Shared, TreeHead},
};
use super::{
    Commit, CommitError, Coverage, Dependents, EntryFilter, EntryPage, IdempotencyRecord, IdempotencyScope, KeyFilter, KeyRequirement,
    KeyRows, KeyStore, LogHead, LoggedUse, Mode, OpenStoreError, PageRequest, Positioned, Receipt, Replication, SinkCursor, StoreError,
    StoreState, StoredCheckpoint, StoredEntry, StoredKey, Totals, TotalsQuery, TreeQuery, UnreadableKey, VerifiedState, WrapperKeyUse,
};
use crate::audit::merkle::Hash;
use crate::domain::{
    Job, JobId, JobKind, KeyId, KeyRecord, KeyState, Lifecycle, NodeScope, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState,
};

pub use self::{
    config::PostgresConfig,
    inspect::{PostgresInspection, inspect_postgres},
};
pub(crate) use self::{
    connect::{is_local, tls},
    error::with_causes,
};
pub(super) use self::{copy_source::PostgresSource, copy_target::PostgresTarget};

/// How often a read is repeated that meets a commit. Each commit lets it move at most once.
const SNAPSHOT_ATTEMPTS: u64 = 60;

/// A store in a PostgreSQL database. Opened by [`PostgresStore::open`], closed by [`KeyStore::close`].
pub struct PostgresStore {
    schema: u32,
    hash_key: [u8; 32],
    instance: i32,
    /// The beginning of the origins of this log: `<vault>/<instance>/`.
    log: String,
    shared: Shared,
    known: Arc<Known>,
    follower: Mutex<Option<Follower>>,
    commits: Writer,
    writer: Pool,
    readers: Pool,
    query_time: Duration,
}

/// A connection with an open transaction. Its session ends unless the transaction was completed.
struct Transaction(Option<Object>);

impl Transaction {
    fn db(&self) -> Result<&Db, StoreError> {
        self.0.as_deref().ok_or(StoreError::Closed)
    }

    async fn end(mut self) -> Result<(), StoreError> {
        self.db()?.batch_execute("COMMIT").await?;
        drop(self.0.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

/// Reads in one snapshot.
macro_rules! read {
    ($store:ident, |$db:ident| $read:expr) => {{
        let transaction = $store.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let $db = transaction.db()?;
        let found = $read.await?;
        transaction.end().await?;
        Ok(found)
    }};
}

/// A read that is compared with the verified state. It is repeated until both are of the same moment, which takes no longer than a commit.
macro_rules! verified {
    ($store:ident, |$db:ident, $state:ident| $read:expr) => {{
        for attempt in 0..SNAPSHOT_ATTEMPTS {
            let $state = &$store.shared.state;
            let found: Result<_, StoreError> = read!($store, |$db| $read);
            match found? {
                Some(found) => return Ok(found),
                // Another process changed the store.
                None if attempt == 0 => follow::catch_up(&$store.shared, &$store.readers).await?,
                None => tokio::time::sleep(Duration::from_millis(attempt.min(20))).await,
            }
        }
        Err(error::corrupt("meta", "store_revision is not the number of the newest state change in the log"))
    }};
}

/// Writes derived data in one transaction.
macro_rules! write {
    ($store:ident, |$db:ident| $write:expr) => {{
        let transaction = $store.begin("BEGIN").await?;
        let $db = transaction.db()?;
        let done = $write.await?;
        transaction.end().await?;
        Ok(done)
    }};
}

impl PostgresStore {
    async fn begin(&self, sql: &str) -> Result<Transaction, StoreError> {
        let transaction = Transaction(Some(self.readers.get().await?));
        transaction.db()?.batch_execute(sql).await?;
        Ok(transaction)
    }

    /// The id of every key that the table or the log has, whether its row can be read or not. For a check of the whole store.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub async fn key_rows(&self) -> Result<KeyRows, StoreError> {
        verified!(self, |db, state| read::key_rows(db, state))
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn commit(&self, commit: Commit) -> Result<Receipt, CommitError> {
        self.commits.commit(commit).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<StoredKey>, StoreError> {
        verified!(self, |db, state| read::key(db, state, id))
    }

    async fn unreadable_key(&self, id: KeyId) -> Result<Option<UnreadableKey>, StoreError> {
        verified!(self, |db, state| read::unreadable_key(db, state, id))
    }

    async fn keys(&self, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError> {
        read!(self, |db| read::keys(db, filter, page))
    }

    async fn count_keys(&self, filter: &KeyFilter) -> Result<u64, StoreError> {
        read!(self, |db| read::count_keys(db, filter))
    }

    async fn due_for_destruction(&self, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        read!(self, |db| read::due_for_destruction(db, now, limit))
    }

    async fn keys_by_state(&self) -> Result<Vec<(KeyState, u64)>, StoreError> {
        read!(self, |db| read::keys_by_state(db))
    }

    async fn wrapper_keys(&self) -> Result<Vec<WrapperKey>, StoreError> {
        let found: Result<Vec<WrapperKeyUse>, StoreError> =
            async { verified!(self, |db, state| read::wrapper_keys(db, state, false)) }.await;
        Ok(found?.into_iter().map(|found| found.key).collect())
    }

    async fn keys_by_wrapper_key(&self) -> Result<Vec<WrapperKeyUse>, StoreError> {
        verified!(self, |db, state| read::wrapper_keys(db, state, true))
    }

    async fn wraps_by_state(&self) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError> {
        read!(self, |db| read::wraps_by_state(db))
    }

    async fn keys_missing(&self, requirement: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError> {
        read!(self, |db| jobs::keys_missing(db, requirement, page))
    }

    async fn coverage(&self, requirement: KeyRequirement) -> Result<Coverage, StoreError> {
        read!(self, |db| jobs::coverage(db, requirement))
    }

    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError> {
        read!(self, |db| jobs::dependents(db, wrapper_key, holders))
    }

    async fn jobs(&self, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError> {
        read!(self, |db| jobs::jobs(db, kind, page))
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        read!(self, |db| jobs::job(db, id))
    }

    async fn state(&self) -> Result<StoreState, StoreError> {
        verified!(self, |db, state| read::state(db, state))
    }

    async fn idempotency_record(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError> {
        verified!(self, |db, state| read::idempotency_record(db, state, scope, now))
    }

    async fn entries(&self, filter: &EntryFilter, page: PageRequest) -> Result<EntryPage, StoreError> {
        read!(self, |db| log::entries(db, self.instance, filter, page, self.query_time))
    }

    async fn digest_log(&self) -> Result<bool, StoreError> {
        write!(self, |db| log::digest(db, self.instance))
    }

    fn removed_through(&self) -> u64 {
        self.shared.removed_through.load(Ordering::Acquire)
    }

    async fn remove_some_entries(&self) -> Result<bool, StoreError> {
        let through = self.removed_through();
        write!(self, |db| log::remove_some(db, self.instance, through))
    }

    async fn delete_retired_wraps(&self) -> Result<bool, StoreError> {
        let retired = self.shared.state.read().await.retired_wrapper_keys();
        // A transaction without work every few seconds would be one too many.
        if retired.is_empty() {
            return Ok(false);
        }
        write!(self, |db| jobs::delete_retired_wraps(db, &retired))
    }

    async fn totals(&self, query: TotalsQuery) -> Result<Totals, StoreError> {
        read!(self, |db| log::totals(db, self.instance, &query, self.query_time))
    }

    async fn key_state_at(&self, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError> {
        read!(self, |db| read::key_state_at(db, id, at))
    }

    async fn store_policy(&self, digest: &str, text: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO policies (digest, text) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        write!(self, |db| execute(db, sql, &[&digest, &text])).map(|_: u64| ())
    }

    async fn policy_text(&self, digest: &str) -> Result<Option<String>, StoreError> {
        read!(self, |db| read::policy_text(db, digest))
    }

    async fn find_keys(&self, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        read!(self, |db| read::find_keys(db, text, nodes, limit))
    }

    async fn use_since_import(&self, id: KeyId) -> Result<Option<LoggedUse>, StoreError> {
        verified!(self, |db, state| read::use_since_import(db, state, id))
    }

    fn log_head(&self) -> LogHead {
        let TreeHead { frontier, state_revision, state_head } =
            self.shared.tree_head.read().unwrap_or_else(PoisonError::into_inner).clone();
        LogHead { size: frontier.size(), root: frontier.root(), state_revision, state_head }
    }

    async fn tree(&self, query: TreeQuery) -> Result<Vec<Hash>, StoreError> {
        read!(self, |db| tree::ask(db, self.instance, |tiles| super::tree::query(tiles, query)))
    }

    async fn inclusion_proofs(&self, leaves: Vec<u64>, size: u64) -> Result<Vec<Vec<Hash>>, StoreError> {
        read!(self, |db| tree::ask(db, self.instance, |tiles| super::tree::inclusion_proofs(tiles, &leaves, size)))
    }

    async fn entry_bytes(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        read!(self, |db| tree::entry_bytes(db, self.instance, from, count))
    }

    async fn entries_for_sinks(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        read!(self, |db| tree::entry_bytes(db, self.instance, from, count))
    }

    async fn sink_cursor(&self, sink: &str) -> Result<Option<SinkCursor>, StoreError> {
        read!(self, |db| read::sink_cursor(db, self.instance, sink))
    }

    async fn store_sink_cursor(&self, sink: &str, cursor: SinkCursor) -> Result<(), StoreError> {
        let SinkCursor { sequence, leaf, at } = cursor;
        let (sequence, leaf, at) = (signed(sequence)?, leaf.as_slice(), at.micros());
        let sql = "INSERT INTO audit_sinks (instance, name, sequence, leaf, at) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (instance, name) DO UPDATE SET sequence = excluded.sequence, leaf = excluded.leaf, at = excluded.at";
        write!(self, |db| execute_one(db, sql, &[&self.instance, &sink, &sequence, &leaf, &at]))
    }

    async fn store_checkpoint(&self, checkpoint: StoredCheckpoint) -> Result<(), StoreError> {
        let StoredCheckpoint { origin, size, note, at } = checkpoint;
        let (size, note, at) = (signed(size)?, note.as_bytes(), at.micros());
        let sql = "INSERT INTO audit_checkpoints (origin, size, note, at) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (origin, size) DO UPDATE SET note = excluded.note, at = excluded.at";
        // One a day is kept of those that are older than a day, so that the table stays small.
        let old = "DELETE FROM audit_checkpoints WHERE origin = $1 AND at < $2 AND size NOT IN
                   (SELECT max(size) FROM audit_checkpoints WHERE origin = $1 AND at < $2 GROUP BY at / $3)";
        let before = at.saturating_sub(MICROS_PER_DAY);
        let stored: Result<u64, StoreError> = write!(self, |db| async {
            execute_one(db, sql, &[&origin, &size, &note, &at]).await?;
            execute(db, old, &[&origin, &before, &MICROS_PER_DAY]).await
        });
        stored.map(drop)
    }

    async fn newest_checkpoint(&self, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
        read!(self, |db| read::newest_checkpoint(db, origin))
    }

    async fn checkpoints(&self, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
        read!(self, |db| read::checkpoints(db, &self.log, after, before))
    }

    async fn idempotency_hash_key(&self) -> Result<[u8; 32], StoreError> {
        Ok(self.hash_key)
    }

    fn known_revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn commit_timeout(&self) -> Duration {
        self.commits.timeout()
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    fn replication(&self) -> Option<&dyn Replication> {
        Some(self)
    }

    /// Also gives the leases back, and ends the connections, and with them the lock of the instance.
    async fn close(&self) {
        self.commits.close().await;
        drop(self.follower.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Err(error) = self.known.leave().await {
            tracing::debug!(%error, "the leases of this replica end by themselves");
        }
        self.readers.close();
        self.writer.close();
    }
}

const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;
