//! The writer thread, which owns the write connection: all queued commits become one transaction and one sync, then all callers get their
//! answer.
//!
//! No artificial batching delay: a batch consists of the commits that arrived during the previous sync. A refused commit is rolled back
//! alone. If the whole transaction fails, all its callers get the error, and the thread reads its cached state from the database again, so
//! that it recovers from a full disk without a restart.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Commit, CommitError, StoreError,
    apply::{self, Head, Verified},
    chain,
    error::signed,
    tree,
    wal::WriteAheadLog,
};
use crate::{
    audit::{Source, merkle::Frontier},
    domain::Timestamp,
    storage::{
        SinkCursor, StoredCheckpoint, VerifiedState,
        pending::Batch,
        queue::{self, CommitResult, QueuedCommit, not_queued},
    },
};

/// The queue of the writer thread.
pub(super) struct Writer {
    queue: mpsc::Sender<WriterMessage>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
}

enum WriterMessage {
    Commit(QueuedCommit),
    Checkpoint(Box<StoredCheckpoint>, oneshot::Sender<Result<(), StoreError>>),
    Aside(AsideTask, oneshot::Sender<Result<(), StoreError>>),
    SinkCursor(String, SinkCursor, oneshot::Sender<Result<(), StoreError>>),
    Close,
}

/// A write of derived data in a transaction of its own.
type AsideTask = Box<dyn FnOnce(&Connection) -> Result<(), StoreError> + Send>;

impl Writer {
    /// Starts the thread, which holds `lock` while it runs.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(writer: WriterThread, lock: Arc<File>, queue: usize, timeout: Duration) -> io::Result<Self> {
        let (queue, queued) = mpsc::channel(queue.max(1));
        let run = move || {
            writer.run(queued);
            drop(lock);
        };
        let thread = thread::Builder::new().name("store-writer".into()).spawn(run)?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), timeout })
    }

    /// Queues a commit, and waits until it is durable or refused. A commit that is not begun in time is given up, and nothing of it happens. A
    /// change that is begun is waited for without a limit, because only its outcome says what is true afterwards.
    ///
    /// # Errors
    /// As [`crate::storage::sqlite::KeyStore::commit`].
    pub(super) async fn commit(&self, commit: Commit) -> CommitResult {
        let (queued, waiting) = queue::queued(commit);
        self.queue.try_send(WriterMessage::Commit(queued)).map_err(|refused| not_queued(&refused, self.timeout))?;
        waiting.answer(self.timeout).await
    }

    /// Stores a checkpoint.
    ///
    /// # Errors
    /// As [`crate::storage::KeyStore::store_checkpoint`].
    pub(super) async fn store_checkpoint(&self, checkpoint: StoredCheckpoint) -> Result<(), StoreError> {
        self.store(|answer| WriterMessage::Checkpoint(Box::new(checkpoint), answer)).await
    }

    /// Stores how far a sink has the log.
    ///
    /// # Errors
    /// As [`crate::storage::KeyStore::store_sink_cursor`].
    pub(super) async fn store_sink_cursor(&self, sink: String, cursor: SinkCursor) -> Result<(), StoreError> {
        self.store(|answer| WriterMessage::SinkCursor(sink, cursor, answer)).await
    }

    async fn store(&self, message: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> WriterMessage) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(message(answer)).map_err(|refused| not_queued(&refused, self.timeout))?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Runs a write of derived data between two batches of commits.
    ///
    /// # Errors
    /// What `task` answers, [`StoreError::TooSlow`] if the queue is full, or [`StoreError::Closed`].
    pub(super) async fn aside(&self, task: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(WriterMessage::Aside(Box::new(task), answer)).map_err(|refused| not_queued(&refused, self.timeout))?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// How long a commit may take before its caller should get an answer.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Lets the thread complete the queued commits, and waits for its end.
    pub(super) async fn close(&self) {
        let _ = self.queue.send(WriterMessage::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// The state of the thread.
pub(super) struct WriterThread {
    db: Connection,
    source: Source,
    /// The cached state of the database. `None` if it must be read again.
    head: Option<Head>,
    /// The verified state. This thread is the only one that changes it.
    state: Arc<RwLock<VerifiedState>>,
    /// The right edge of the tree over the durable entries, and the chain at that moment. This thread is the only one that changes it.
    tree_head: Arc<RwLock<TreeHead>>,
    revision: Arc<AtomicU64>,
    /// When expired idempotency records were last deleted.
    purged: Option<Timestamp>,
    wal: WriteAheadLog,
}

/// The end of the durable log.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeHead {
    /// The right edge of the tree.
    pub(super) frontier: Frontier,
    /// The number of the newest state change.
    pub(super) state_revision: u64,
    /// Its leaf hash.
    pub(super) state_head: [u8; 32],
}

/// What the writer shares with readers.
pub(super) struct Shared {
    /// The verified state, extended by each durable state change.
    pub(super) state: Arc<RwLock<VerifiedState>>,
    /// The end of the durable log.
    pub(super) tree_head: Arc<RwLock<TreeHead>>,
    /// The number of the newest state change.
    pub(super) revision: Arc<AtomicU64>,
}

impl WriterThread {
    /// A writer that publishes what is durable in `shared`.
    pub(super) fn new(db: Connection, source: Source, shared: Shared, wal: WriteAheadLog) -> Self {
        let Shared { state, tree_head, revision } = shared;
        Self { db, source, head: None, state, tree_head, revision, purged: None, wal }
    }

    fn run(mut self, mut queue: mpsc::Receiver<WriterMessage>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let (mut batch, mut checkpoints, mut asides, mut cursors) =
                (Vec::with_capacity(jobs.len()), Vec::new(), Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    WriterMessage::Commit(queued) if queued.begin() => batch.push(queued),
                    WriterMessage::Commit(_) => {}
                    WriterMessage::Checkpoint(checkpoint, answer) => checkpoints.push((checkpoint, answer)),
                    WriterMessage::Aside(task, answer) => asides.push((task, answer)),
                    WriterMessage::SinkCursor(sink, cursor, answer) => cursors.push((sink, cursor, answer)),
                    WriterMessage::Close => queue.close(),
                }
            }
            self.answer(batch);
            for (checkpoint, answer) in checkpoints {
                drop(answer.send(self.store_checkpoint(&checkpoint)));
            }
            for (task, answer) in asides {
                drop(answer.send(task(&self.db)));
            }
            for (sink, cursor, answer) in cursors {
                drop(answer.send(self.store_sink_cursor(&sink, &cursor)));
            }
            self.wal.after_commit(&self.db);
        }
        self.wal.close(&self.db);
    }

    /// In a transaction of its own: a checkpoint belongs to entries that are durable.
    fn store_checkpoint(&self, checkpoint: &StoredCheckpoint) -> Result<(), StoreError> {
        let StoredCheckpoint { origin, size, note, at } = checkpoint;
        let sql = "INSERT INTO audit_checkpoints (origin, size, note, at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (origin, size) DO UPDATE SET note = excluded.note, at = excluded.at";
        apply::execute_one(&self.db, sql, rusqlite::params![origin, signed(*size)?, note.as_bytes(), at.micros()])?;
        // One a day is kept of those that are older than a day, so that the table stays small.
        let sql = "DELETE FROM audit_checkpoints WHERE origin = ?1 AND at < ?2 AND size NOT IN
                   (SELECT max(size) FROM audit_checkpoints WHERE origin = ?1 AND at < ?2 GROUP BY at / ?3)";
        apply::execute(&self.db, sql, rusqlite::params![origin, at.micros().saturating_sub(MICROS_PER_DAY), MICROS_PER_DAY])?;
        Ok(())
    }

    /// In a transaction of its own, at most one each second and sink.
    fn store_sink_cursor(&self, sink: &str, cursor: &SinkCursor) -> Result<(), StoreError> {
        let SinkCursor { sequence, leaf, at } = cursor;
        let sql = "INSERT INTO audit_sinks (name, sequence, leaf, at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence, leaf = excluded.leaf, at = excluded.at";
        apply::execute_one(&self.db, sql, rusqlite::params![sink, signed(*sequence)?, leaf, at.micros()])
    }

    fn answer(&mut self, batch: Vec<QueuedCommit>) {
        if batch.is_empty() {
            return;
        }
        let written = self.write(batch.iter().map(QueuedCommit::commit));
        queue::answer(batch, written);
    }

    /// Writes one transaction. After an error, nothing of it was written.
    fn write<'a>(&mut self, commits: impl Iterator<Item = &'a Commit>) -> Result<Vec<CommitResult>, StoreError> {
        let written = self.transaction(commits);
        if written.is_err() {
            self.head = None;
            if !self.db.is_autocommit() {
                let _ = self.db.execute_batch("ROLLBACK");
            }
        }
        written
    }

    fn transaction<'a>(&mut self, commits: impl Iterator<Item = &'a Commit>) -> Result<Vec<CommitResult>, StoreError> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let state = Arc::clone(&self.state);
        if self.head.is_none() {
            // An earlier transaction failed. It may be durable all the same.
            chain::catch_up(&self.db, &mut state.write().unwrap_or_else(PoisonError::into_inner))?;
        }
        let verified = state.read().unwrap_or_else(PoisonError::into_inner);
        let (before, mut frontier) = if let Some(head) = self.head {
            (head, self.tree_head.read().unwrap_or_else(PoisonError::into_inner).frontier.clone())
        } else {
            let head = Head::read(&self.db, &verified)?;
            (head, tree::frontier(&self.db, head.sequence)?)
        };
        let mut head = before;
        let (mut answers, mut now, mut doubtful, mut batch) = (Vec::new(), None, false, Batch::default());
        for commit in commits {
            now = now.max(Some(commit.event.at));
            let mut context = Verified { state: &verified, batch: &mut batch };
            let answer = apply::isolated(&self.db, &self.source, &mut head, &mut context, commit);
            if let Err(CommitError::Unavailable(error)) = &answer {
                // A full disk or a failed write also rolls back the earlier commits of the transaction.
                if self.db.is_autocommit() || *error == StoreError::DiskFull {
                    return Err(error.clone());
                }
                // Another program may have written to the file.
                doubtful = true;
            }
            answers.push(answer);
        }
        drop(verified);
        let mut completed = Vec::new();
        for leaf in batch.leaves {
            frontier.append(leaf, |hash| completed.push(hash));
        }
        completed.iter().try_for_each(|hash| tree::insert(&self.db, hash))?;
        if let Some(now) = now {
            self.purge(now)?;
        }
        if head.store_revision != before.store_revision {
            apply::write_revision(&self.db, head.store_revision)?;
        }
        self.db.prepare_cached("COMMIT")?.execute([])?;
        if !batch.pending.is_empty() {
            let mut verified = state.write().unwrap_or_else(PoisonError::into_inner);
            for (entry, leaf) in batch.pending {
                verified.extend(&entry, leaf).map_err(|error| StoreError::Failed(error.to_string()))?;
            }
        }
        self.head = (!doubtful).then_some(head);
        *self.tree_head.write().unwrap_or_else(PoisonError::into_inner) =
            TreeHead { frontier, state_revision: head.store_revision, state_head: head.chain };
        // After the commit, so that the new revision can be read by every caller that sees it.
        self.revision.store(head.store_revision, Ordering::Release);
        Ok(answers)
    }

    /// Deletes some expired idempotency records at an interval.
    fn purge(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.purged.is_some_and(|last| now.since(last) < PURGE_EVERY) {
            return Ok(());
        }
        // The next batch deletes further ones.
        if apply::purge(&self.db, now, PURGE_AT_ONCE)? < PURGE_AT_ONCE as usize {
            self.purged = Some(now);
            let kept = Timestamp::from_micros(now.micros().saturating_sub(IDEMPOTENCY_MICROS));
            self.state.write().unwrap_or_else(PoisonError::into_inner).forget_idempotency(kept);
        }
        Ok(())
    }
}

/// Maximum number of commits in one transaction. It bounds how long the first of them waits.
const BATCH: usize = 1024;
/// Interval between deletions of expired idempotency records.
const PURGE_EVERY: Duration = Duration::from_mins(1);
/// How long a connection waits for another one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the digests of idempotency records stay in memory: longer than the records, 48 h.
const IDEMPOTENCY_MICROS: i64 = 48 * 3600 * 1_000_000;
const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;
/// Maximum number of expired records that one batch deletes.
const PURGE_AT_ONCE: u32 = 256;
