//! The queue of the writer task: a commit is begun by the task or given up by its caller, never both.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
};

use super::{Commit, CommitError, Receipt, StoreError, writer::WriterTask};

/// The queue of the writer task.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    task: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    timeout: Duration,
}

/// A message to the task.
pub(super) enum Message {
    /// Write it.
    Commit(Queued),
    /// Take no further commits.
    Close,
}

/// A commit in the queue. It is begun by the task or given up by its caller, never both.
pub(super) struct Queued {
    pub(super) commit: Box<Commit>,
    pub(super) taken: Arc<AtomicBool>,
    pub(super) answer: oneshot::Sender<CommitResult>,
}

/// Whether this side is the first one to begin or to give up the commit.
pub(super) fn take(taken: &AtomicBool) -> bool {
    !taken.swap(true, Ordering::AcqRel)
}

/// The answer to a commit.
pub(super) type CommitResult = Result<Receipt, CommitError>;

impl Writer {
    /// Starts the task.
    pub(super) fn start(mut task: WriterTask, queue: usize) -> Self {
        let (queue, queued) = mpsc::channel(queue.max(1));
        let (closing, timeout) = (Arc::clone(&task.closing), task.timeout);
        let running = tokio::spawn(async move { task.run(queued).await });
        Self { queue, task: Mutex::new(Some(running)), closing, timeout }
    }

    /// Queues a commit, and waits until it is durable or refused. A commit that is not begun in time is given up, and nothing of it happens. A
    /// change that is begun is waited for without a limit, because only its outcome says what is true afterwards.
    pub(super) async fn commit(&self, commit: Commit) -> CommitResult {
        let (answer, mut answered) = oneshot::channel();
        let (taken, is_change) = (Arc::new(AtomicBool::new(false)), commit.change.is_some());
        let queued = Queued { commit: Box::new(commit), taken: Arc::clone(&taken), answer };
        self.queue.try_send(Message::Commit(queued)).map_err(|refused| match refused {
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

    /// Lets the task complete the queued commits, and waits for its end.
    pub(super) async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let _ = self.queue.send(Message::Close).await;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}
