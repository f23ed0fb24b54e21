//! A commit in the queue of a writer, over any database: it is begun by the writer or given up by its caller, never both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc::error::TrySendError, oneshot};

use super::{Commit, CommitError, Receipt, StoreError};

/// The answer to a commit.
pub(super) type CommitResult = Result<Receipt, CommitError>;

/// A commit in the queue.
pub(super) struct QueuedCommit {
    commit: Box<Commit>,
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<CommitResult>,
}

/// The caller of a queued commit.
pub(super) struct Waiting {
    is_change: bool,
    taken: Arc<AtomicBool>,
    answer: oneshot::Receiver<CommitResult>,
}

/// A commit for the queue, and its caller.
pub(super) fn queued(commit: Commit) -> (QueuedCommit, Waiting) {
    let (answer, answered) = oneshot::channel();
    let (taken, is_change) = (Arc::new(AtomicBool::new(false)), commit.change.is_some());
    let waiting = Waiting { is_change, taken: Arc::clone(&taken), answer: answered };
    (QueuedCommit { commit: Box::new(commit), taken, answer }, waiting)
}

/// Why a message is not in the queue.
pub(super) fn not_queued<T>(refused: &TrySendError<T>, timeout: Duration) -> StoreError {
    match refused {
        TrySendError::Full(_) => StoreError::TooSlow(timeout),
        TrySendError::Closed(_) => StoreError::Closed,
    }
}

/// Whether this side is the first one to begin or to give up the commit.
fn take(taken: &AtomicBool) -> bool {
    !taken.swap(true, Ordering::AcqRel)
}

impl QueuedCommit {
    /// Whether the writer may apply it. Not if the caller gave up, or its future was dropped while the commit was queued.
    pub(super) fn begin(&self) -> bool {
        !self.answer.is_closed() && take(&self.taken)
    }

    /// What to write.
    pub(super) fn commit(&self) -> &Commit {
        &self.commit
    }
}

/// Answers all callers of a batch: each of them, or all with the error of the batch.
pub(super) fn answer(batch: Vec<QueuedCommit>, result: Result<Vec<CommitResult>, StoreError>) {
    match result {
        Ok(answers) => batch.into_iter().zip(answers).for_each(|(queued, answer)| drop(queued.answer.send(answer))),
        Err(error) => batch.into_iter().for_each(|queued| drop(queued.answer.send(Err(error.clone().into())))),
    }
}

impl Waiting {
    /// Waits until the commit is durable or refused. A commit that is not begun in time is given up, and nothing of it happens. A change that is begun is
    /// waited for without a limit, because only its outcome says what is true afterwards.
    pub(super) async fn answer(mut self, timeout: Duration) -> CommitResult {
        let answer = match tokio::time::timeout(timeout, &mut self.answer).await {
            Err(_) if self.is_change && !take(&self.taken) => self.answer.await,
            Err(_) => {
                take(&self.taken);
                return Err(StoreError::TooSlow(timeout).into());
            }
            Ok(answer) => answer,
        };
        answer.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }
}
