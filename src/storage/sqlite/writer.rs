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
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    Commit, CommitError, Receipt, StoreError,
    apply::{self, Head},
};
use crate::{audit::Source, domain::Timestamp};

/// The queue of the writer thread.
pub(super) struct Writer {
    queue: mpsc::Sender<WriterMessage>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
}

enum WriterMessage {
    Commit(QueuedCommit),
    Close,
}

/// A commit in the queue. It is begun by the thread or given up by its caller, never both.
struct QueuedCommit {
    commit: Box<Commit>,
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<CommitResult>,
}

/// Whether this side is the first one to begin or to give up the commit.
fn take(taken: &AtomicBool) -> bool {
    !taken.swap(true, Ordering::AcqRel)
}

type CommitResult = Result<Receipt, CommitError>;

impl Writer {
    /// Starts the thread. It holds `lock` while it runs, and publishes each durable revision in `revision`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        db: Connection,
        source: Source,
        lock: Arc<File>,
        revision: Arc<AtomicU64>,
        queue: usize,
        timeout: Duration,
    ) -> io::Result<Self> {
        let (queue, queued) = mpsc::channel(queue.max(1));
        let desk = WriterThread { db, source, head: None, revision, purged: None };
        let run = move || {
            desk.run(queued);
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
        let (answer, mut answered) = oneshot::channel();
        let (taken, is_change) = (Arc::new(AtomicBool::new(false)), commit.change.is_some());
        let queued = QueuedCommit { commit: Box::new(commit), taken: Arc::clone(&taken), answer };
        self.queue.try_send(WriterMessage::Commit(queued)).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::TooSlow(self.timeout),
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        let answer = match tokio::time::timeout(self.timeout, &mut answered).await {
            Err(_) if is_change && !take(&taken) => answered.await,
            Err(_) => {
                take(&taken);
                return Err(StoreError::TooSlow(self.timeout).into());
            }
            Ok(answer) => answer,
        };
        answer.unwrap_or_else(|_| Err(StoreError::Closed.into()))
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
struct WriterThread {
    db: Connection,
    source: Source,
    /// The cached state of the database. `None` if it must be read again.
    head: Option<Head>,
    revision: Arc<AtomicU64>,
    /// When expired idempotency records were last deleted.
    purged: Option<Timestamp>,
}

impl WriterThread {
    fn run(mut self, mut queue: mpsc::Receiver<WriterMessage>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let mut batch = Vec::with_capacity(jobs.len());
            for job in jobs.drain(..) {
                match job {
                    // The caller gave up, or its future was dropped while the commit was queued: it must not be applied now.
                    WriterMessage::Commit(queued) if !queued.answer.is_closed() && take(&queued.taken) => batch.push(queued),
                    WriterMessage::Commit(_) => {}
                    WriterMessage::Close => queue.close(),
                }
            }
            self.answer(batch);
        }
        // Last, so that the database file is complete. A failure loses nothing: the WAL has all acknowledged commits.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn answer(&mut self, batch: Vec<QueuedCommit>) {
        if batch.is_empty() {
            return;
        }
        match self.write(batch.iter().map(|queued| &*queued.commit)) {
            Ok(answers) => batch.into_iter().zip(answers).for_each(|(queued, answer)| drop(queued.answer.send(answer))),
            Err(error) => batch.into_iter().for_each(|queued| drop(queued.answer.send(Err(error.clone().into())))),
        }
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
        let before = match self.head {
            Some(head) => head,
            None => Head::read(&self.db)?,
        };
        let mut head = before;
        let (mut answers, mut now, mut doubtful) = (Vec::new(), None, false);
        for commit in commits {
            now = now.max(Some(commit.event.at));
            let answer = apply::isolated(&self.db, &self.source, &mut head, commit);
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
        if let Some(now) = now {
            self.purge(now)?;
        }
        if head.store_revision != before.store_revision {
            apply::write_revision(&self.db, head.store_revision)?;
        }
        self.db.prepare_cached("COMMIT")?.execute([])?;
        self.head = (!doubtful).then_some(head);
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
        }
        Ok(())
    }
}

/// Maximum number of commits in one transaction. It bounds how long the first of them waits.
const BATCH: usize = 1024;
/// Interval between deletions of expired idempotency records.
const PURGE_EVERY: Duration = Duration::from_mins(1);
/// Maximum number of expired records that one batch deletes.
const PURGE_AT_ONCE: u32 = 256;
