//! The writer task, which owns the write connection and the lock of its instance: all queued commits become one transaction, then all callers get
//! their answer.
//!
//! A batch of entries alone, such as uses, is one statement and one round trip: it writes nothing if the revision of the store is not the one that
//! the batch was checked against. A batch with changes locks the row `meta`. If the connection is lost while the outcome is open, the task
//! connects again, takes the lock, which the lost session cannot hold any more then, and looks whether the last entry is there.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{Object, Pool};
use tokio::sync::mpsc;

use super::{
    Commit, CommitError, StoreError,
    apply::{self, Head, NewEntry, Open},
    chain,
    connect::{Db, execute, execute_one, number, optional},
    error::{is_outcome_unknown, signed},
    insert::insert,
    queue::Message,
    shared::{Shared, TreeHead},
    tree,
};
use crate::{
    audit::{
        Source,
        merkle::{Frontier, TileHash},
    },
    domain::Timestamp,
    storage::queue::{CommitResult, QueuedCommit, answer},
};

/// The state of the task.
pub(super) struct WriterTask {
    pool: Pool,
    /// The connection with the lock of the instance. `None` if it was lost.
    db: Option<Object>,
    instance: i32,
    source: Source,
    /// The end of the log. `None` if it must be read again.
    head: Option<Head>,
    shared: Shared,
    purged: Option<Timestamp>,
    pub(super) closing: Arc<AtomicBool>,
    pub(super) timeout: Duration,
}

/// Why a transaction has no answer.
enum Failed {
    /// Nothing of it was written.
    Undone(StoreError),
    /// The connection was lost while it was completed.
    Unknown(StoreError),
}

impl<E: Into<StoreError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Undone(error.into())
    }
}

/// A batch that is ready to be completed.
struct Prepared {
    answers: Vec<CommitResult>,
    entries: Vec<NewEntry>,
    changes: crate::storage::pending::Pending,
    completed: Vec<TileHash>,
    end: TreeHead,
    before: Head,
    head: Head,
}

impl WriterTask {
    /// A writer with a connection that has the lock of its instance.
    pub(super) fn new(pool: Pool, db: Object, instance: i32, source: Source, shared: Shared, timeout: Duration) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        Self { pool, db: Some(db), instance, source, head: None, shared, purged: None, closing, timeout }
    }

    /// Writes what is queued until the queue is closed.
    pub(super) async fn run(&mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut messages, BATCH).await > 0 {
            let mut batch = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Commit(queued) if queued.begin() => batch.push(queued),
                    Message::Commit(_) => {}
                    Message::Close => queue.close(),
                }
            }
            if batch.is_empty() {
                continue;
            }
            let commits: Vec<&Commit> = batch.iter().map(QueuedCommit::commit).collect();
            let written = self.write(&commits).await;
            answer(batch, written);
        }
        self.disconnect();
    }

    /// Ends the session, and with it an open transaction and the lock.
    fn disconnect(&mut self) {
        self.head = None;
        self.db.take().map(Object::take);
    }

    async fn connect(&mut self) -> Result<(), StoreError> {
        if self.db.as_ref().is_some_and(|db| db.is_closed()) {
            self.disconnect();
        }
        if self.db.is_none() {
            let db = self.pool.get().await?;
            lock_instance(&db, self.instance).await?;
            self.db = Some(db);
        }
        Ok(())
    }

    /// Writes one transaction. After an error, nothing of it was written.
    async fn write(&mut self, commits: &[&Commit]) -> Result<Vec<CommitResult>, StoreError> {
        self.connect().await?;
        let prepared = match self.entries_alone(commits).await {
            Ok(Some(prepared)) => Ok(prepared),
            // A change, or the store has a newer revision than this process knows.
            Ok(None) => self.transaction(commits).await,
            Err(failed) => Err(failed),
        };
        match prepared {
            Ok(prepared) => self.publish(prepared).await,
            Err(Failed::Undone(error)) => {
                self.disconnect();
                Err(error)
            }
            Err(Failed::Unknown(error)) => Err(error),
        }
    }

    /// A batch of entries alone: one statement. `None` if the batch is another one, or nothing was written because the revision moved.
    async fn entries_alone(&mut self, commits: &[&Commit]) -> Result<Option<Prepared>, Failed> {
        let (Some(before), Some(db)) = (self.head, &self.db) else { return Ok(None) };
        let prepared = {
            let state = self.shared.state.read().await;
            // Other processes change the state, and nobody else writes this log.
            let before = before.with_state(&state);
            let mut open = Open::new(self.instance, &self.source, &state, before);
            if !commits.iter().all(|commit| open.is_plain(commit)) {
                return Ok(None);
            }
            let answers = commits.iter().map(|commit| open.plain(commit)).collect();
            let frontier = self.shared.tree_head.read().unwrap_or_else(PoisonError::into_inner).frontier.clone();
            prepare(open.entries, open.batch, open.head, before, frontier, answers)
        };
        if prepared.entries.is_empty() {
            return Ok(Some(prepared));
        }
        let began = Instant::now();
        match self.limited(write(db, self.instance, &prepared)).await {
            Ok(0) => {
                self.head = None;
                Ok(None)
            }
            Ok(written) if written == prepared.entries.len() as u64 => Ok(Some(self.after_a_slow_commit(began, commits, prepared).await)),
            Ok(written) => Err(StoreError::Failed(format!("a statement wrote {written} entries of {}", prepared.entries.len())).into()),
            Err(Failed::Unknown(error)) => {
                let prepared = self.resolve(prepared, error).await?;
                Ok(Some(self.after_a_slow_commit(began, commits, prepared).await))
            }
            Err(failed) => Err(failed),
        }
    }

    /// A batch with changes, or after the head was lost.
    async fn transaction(&mut self, commits: &[&Commit]) -> Result<Prepared, Failed> {
        let Some(db) = &self.db else { return Err(StoreError::Closed.into()) };
        db.batch_execute("BEGIN").await?;
        // A state change of any process waits for this lock.
        let stored = number(db, "SELECT store_revision FROM meta FOR UPDATE", &[]).await?;
        let cached = self.head.filter(|head| head.store_revision == stored);
        if cached.is_none() {
            let mut state = self.shared.state.write().await;
            chain::catch_up(db, &mut state).await?;
            self.shared.publish(&state);
        }
        let prepared = {
            let state = self.shared.state.read().await;
            let (before, frontier) = if let Some(head) = cached {
                (head, self.shared.tree_head.read().unwrap_or_else(PoisonError::into_inner).frontier.clone())
            } else {
                let head = chain::head(db, self.instance, &state).await?;
                (head, tree::frontier(db, self.instance, head.sequence).await?)
            };
            if before.store_revision != stored {
                let what = format!("store_revision is {stored}, and the chain in the log has {}", before.store_revision);
                return Err(super::error::corrupt("meta", what).into());
            }
            let mut open = Open::new(self.instance, &self.source, &state, before);
            let mut answers = Vec::with_capacity(commits.len());
            for commit in commits {
                let answer = open.isolated(db, commit).await;
                if let Err(CommitError::Unavailable(error)) = &answer
                    && (db.is_closed() || *error == StoreError::DiskFull)
                {
                    return Err(error.clone().into());
                }
                answers.push(answer);
            }
            prepare(open.entries, open.batch, open.head, before, frontier, answers)
        };
        if !prepared.entries.is_empty() && self.limited(write(db, self.instance, &prepared)).await.map_err(Failed::undone)? == 0 {
            return Err(StoreError::Failed("the entries of a batch were not written: check the structure of the database".into()).into());
        }
        if prepared.head.store_revision != prepared.before.store_revision {
            let revision = signed(prepared.head.store_revision)?;
            execute_one(db, "UPDATE meta SET store_revision = $1", &[&revision]).await?;
            // Other processes over the same database learn of the change.
            execute(db, "SELECT pg_notify('canton_keyvault', $1::text)", &[&revision.to_string()]).await?;
        }
        let now = commits.iter().map(|commit| commit.event.at).max();
        let purged = match now {
            Some(now) if self.purged.is_none_or(|last| now.since(last) >= PURGE_EVERY) => {
                (apply::purge(db, now, PURGE_AT_ONCE).await? < u64::from(PURGE_AT_ONCE)).then_some(now)
            }
            _ => None,
        };
        let began = Instant::now();
        let completed = self.limited(async { db.batch_execute("COMMIT").await }).await;
        if let Some(now) = purged {
            self.purged = Some(now);
            let kept = Timestamp::from_micros(now.micros().saturating_sub(IDEMPOTENCY_MICROS));
            self.shared.state.write().await.forget_idempotency(kept);
        }
        match completed {
            Ok(()) => Ok(self.after_a_slow_commit(began, commits, prepared).await),
            Err(Failed::Unknown(error)) => {
                let prepared = self.resolve(prepared, error).await?;
                Ok(self.after_a_slow_commit(began, commits, prepared).await)
            }
            Err(failed) => Err(failed),
        }
    }

    /// Withholds the results of uses whose commit took long, if the store changed meanwhile: their keys may be disabled by now. Their entries stay, and
    /// the callers try again.
    async fn after_a_slow_commit(&self, began: Instant, commits: &[&Commit], mut prepared: Prepared) -> Prepared {
        if began.elapsed() < SLOW || commits.iter().all(|commit| commit.precondition.is_none()) {
            return prepared;
        }
        let stored = match &self.db {
            Some(db) => number(db, "SELECT store_revision FROM meta", &[]).await.ok(),
            None => None,
        };
        if stored != Some(prepared.head.store_revision) {
            for (commit, answer) in commits.iter().zip(&mut prepared.answers) {
                if commit.precondition.is_some() && answer.is_ok() {
                    *answer = Err(CommitError::Stale);
                }
            }
        }
        prepared
    }

    /// Waits for a statement as long as the server may take for it. After that, its outcome is not known.
    async fn limited<T>(&self, statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failed> {
        match tokio::time::timeout(self.timeout.saturating_mul(2), statement).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) if is_outcome_unknown(&error) => Err(Failed::Unknown(error.into())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Failed::Unknown(StoreError::TooSlow(self.timeout))),
        }
    }

    /// Finds out whether a batch was written whose completion has no answer: whether its last entry is in the log. Tries until the database answers
    /// or the store is closed.
    async fn resolve(&mut self, prepared: Prepared, error: StoreError) -> Result<Prepared, Failed> {
        tracing::warn!(%error, "the connection to PostgreSQL was lost during a commit; its outcome is looked up");
        let Some((sequence, leaf)) = prepared.entries.last().map(|last| (last.entry.sequence, last.leaf)) else { return Ok(prepared) };
        let mut wait = FIRST_WAIT;
        loop {
            self.disconnect();
            match self.has_entry(sequence, leaf).await {
                Ok(true) => return Ok(prepared),
                Ok(false) => return Err(Failed::Undone(error)),
                Err(error) if self.closing.load(Ordering::Acquire) => return Err(Failed::Unknown(error)),
                Err(error) => tracing::warn!(%error, "the outcome of a commit cannot be looked up yet"),
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
    }

    async fn has_entry(&mut self, sequence: u64, leaf: [u8; 32]) -> Result<bool, StoreError> {
        self.connect().await?;
        let Some(db) = &self.db else { return Err(StoreError::Closed) };
        let sql = "SELECT leaf FROM audit_entries WHERE instance = $1 AND sequence = $2";
        let row = optional(db, sql, &[&self.instance, &signed(sequence)?]).await?;
        Ok(row.map(|row| row.try_get::<_, &[u8]>(0).map(|found| found == leaf)).transpose()?.unwrap_or(false))
    }

    /// Makes a durable batch known to readers.
    async fn publish(&mut self, prepared: Prepared) -> Result<Vec<CommitResult>, StoreError> {
        let Prepared { answers, changes, end, head, .. } = prepared;
        if !changes.is_empty() {
            let mut state = self.shared.state.write().await;
            // A reader may have read them from the database meanwhile.
            let known = state.revision;
            for (entry, leaf) in changes.into_iter().filter(|(entry, _)| entry.state_revision > Some(known)) {
                state.extend(&entry, leaf).map_err(|error| StoreError::Failed(error.to_string()))?;
            }
            // After the commit, so that the new revision can be read by every caller that sees it.
            self.shared.publish(&state);
        }
        self.head = Some(head);
        *self.shared.tree_head.write().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(answers)
    }
}

impl Failed {
    /// Before the commit, a lost connection undoes the transaction.
    fn undone(self) -> Self {
        match self {
            Self::Unknown(error) | Self::Undone(error) => Self::Undone(error),
        }
    }
}

/// Writes the entries of a batch.
async fn write(db: &Db, instance: i32, Prepared { before, entries, completed, .. }: &Prepared) -> Result<u64, tokio_postgres::Error> {
    insert(db, instance, before.store_revision, entries, completed).await
}

/// Takes the lock of an instance for the session: only one process writes a log.
pub(super) async fn lock_instance(db: &Db, instance: i32) -> Result<(), StoreError> {
    execute(db, "SELECT pg_advisory_lock($1::integer, $2::integer)", &[&LOCK_CLASS, &instance]).await.map(drop)
}

fn prepare(
    entries: Vec<NewEntry>,
    batch: crate::storage::pending::Batch,
    head: Head,
    before: Head,
    mut frontier: Frontier,
    answers: Vec<CommitResult>,
) -> Prepared {
    let mut completed = Vec::new();
    for leaf in batch.leaves {
        frontier.append(leaf, |hash| completed.push(hash));
    }
    let end = TreeHead { frontier, state_revision: head.store_revision, state_head: head.chain };
    Prepared { answers, entries, changes: batch.pending, completed, end, before, head }
}

/// Maximum number of commits in one transaction. It bounds how long the first of them waits.
const BATCH: usize = 1024;
/// Interval between deletions of expired idempotency records.
const PURGE_EVERY: Duration = Duration::from_mins(1);
/// How long the digests of idempotency records stay in memory: longer than the records, 48 h.
const IDEMPOTENCY_MICROS: i64 = 48 * 3600 * 1_000_000;
/// Maximum number of expired records that one batch deletes.
const PURGE_AT_ONCE: u32 = 256;
/// After this time, a commit may have been overtaken by a change of its key. Well within the second in which a change is in force everywhere.
const SLOW: Duration = Duration::from_millis(500);
/// Waits between attempts to connect again.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The first number of the locks of instances: "CKV".
pub(super) const LOCK_CLASS: i32 = 0x0043_4B56;
