//! The queue of the writer task.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{Commit, writer::WriterTask};
use crate::storage::queue::{CommitResult, QueuedCommit, not_queued, queued};

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
    Commit(QueuedCommit),
    /// Take no further commits.
    Close,
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(mut task: WriterTask, queue: usize) -> Self {
        let (queue, queued) = mpsc::channel(queue.max(1));
        let (closing, timeout) = (Arc::clone(&task.closing), task.timeout);
        let running = tokio::spawn(async move { task.run(queued).await });
        Self { queue, task: Mutex::new(Some(running)), closing, timeout }
    }

    /// Queues a commit, and waits until it is durable or refused, as [`crate::storage::queue::Waiting::answer`] says.
    pub(super) async fn commit(&self, commit: Commit) -> CommitResult {
        let (queued, waiting) = queued(commit);
        self.queue.try_send(Message::Commit(queued)).map_err(|refused| not_queued(&refused, self.timeout))?;
        waiting.answer(self.timeout).await
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
