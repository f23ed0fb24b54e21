//! The thread that owns the write connection: what is queued becomes one transaction and one sync, then all are answered.
//!
//! Nobody lingers for company: a batch is what came while the one before was synced. A commit that is refused undoes itself alone; if
//! the transaction fails as a whole, everyone in it hears so, and what the thread knows by heart is read from the database again, so
//! that a full disk heals without a restart.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
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

/// The queue to the thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
}

enum Job {
    Commit(Box<Commit>, oneshot::Sender<Answer>),
    Close,
}

type Answer = Result<Receipt, CommitError>;

impl Writer {
    /// Starts the thread. It holds `lock` as long as it runs, and publishes each durable revision in `revision`.
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

    /// Hands a commit over and waits until it is durable, or refused.
    ///
    /// # Errors
    /// As [`crate::storage::sqlite::KeyStore::commit`].
    pub(super) async fn commit(&self, commit: Commit) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job::Commit(Box::new(commit), answer)).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::TooSlow(self.timeout),
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Closed.into()),
            Err(_) => Err(StoreError::TooSlow(self.timeout).into()),
        }
    }

    /// Lets the thread finish what is queued, and waits for its end.
    pub(super) async fn close(&self) {
        let _ = self.queue.send(Job::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// What the thread owns.
struct WriterThread {
    db: Connection,
    source: Source,
    /// What the database said last; `None` if that must be read again.
    head: Option<Head>,
    revision: Arc<AtomicU64>,
    /// When expired idempotency records were last looked for.
    purged: Option<Timestamp>,
}

impl WriterThread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let mut batch = Vec::with_capacity(jobs.len());
            for job in jobs.drain(..) {
                match job {
                    // Whoever gave up while it was queued was told so: it must not happen now.
                    Job::Commit(commit, answer) if !answer.is_closed() => batch.push((commit, answer)),
                    Job::Commit(..) => {}
                    Job::Close => queue.close(),
                }
            }
            self.answer(batch);
        }
        // Last, so that the file is complete by itself. A failure costs nothing: the WAL holds all that was acknowledged.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn answer(&mut self, batch: Vec<(Box<Commit>, oneshot::Sender<Answer>)>) {
        if batch.is_empty() {
            return;
        }
        match self.write(batch.iter().map(|(commit, _)| &**commit)) {
            Ok(answers) => batch.into_iter().zip(answers).for_each(|((_, waiting), answer)| drop(waiting.send(answer))),
            Err(error) => batch.into_iter().for_each(|(_, waiting)| drop(waiting.send(Err(error.clone().into())))),
        }
    }

    /// One transaction. An error means that nothing of it was written.
    fn write<'a>(&mut self, commits: impl Iterator<Item = &'a Commit>) -> Result<Vec<Answer>, StoreError> {
        let written = self.transaction(commits);
        if written.is_err() {
            self.head = None;
            if !self.db.is_autocommit() {
                let _ = self.db.execute_batch("ROLLBACK");
            }
        }
        written
    }

    fn transaction<'a>(&mut self, commits: impl Iterator<Item = &'a Commit>) -> Result<Vec<Answer>, StoreError> {
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
                // A full disk or a failed write ends the whole transaction, also for those before.
                if self.db.is_autocommit() || *error == StoreError::DiskFull {
                    return Err(error.clone());
                }
                // Perhaps somebody wrote into the file with another program.
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
        // After the commit: whoever sees the new revision can read what it stands for.
        self.revision.store(head.store_revision, Ordering::Release);
        Ok(answers)
    }

    /// Now and then forgets some expired idempotency records.
    fn purge(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.purged.is_some_and(|last| now.since(last) < PURGE_EVERY) {
            return Ok(());
        }
        // If there are more, the next batch goes on.
        if apply::purge(&self.db, now, PURGE_AT_ONCE)? < PURGE_AT_ONCE as usize {
            self.purged = Some(now);
        }
        Ok(())
    }
}

/// Commits in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 1024;
/// How often expired records are looked for.
const PURGE_EVERY: Duration = Duration::from_mins(1);
/// How many expired records one batch forgets.
const PURGE_AT_ONCE: u32 = 256;
