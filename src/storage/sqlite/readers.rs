//! Threads with read connections: a read of single rows never waits for a list, and no thread of the async runtime waits for the disk.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::StoreError;

/// The queue of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Reads of a few rows, on the path of a signature.
    LookUps,
    /// Reads that can take long.
    Lists,
}

/// The threads, and a queue for each lane.
pub(super) struct Readers {
    queues: Mutex<Option<Queues>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    timeout: Duration,
}

struct Queues {
    look_ups: mpsc::Sender<Task>,
    lists: mpsc::Sender<Task>,
}

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

impl Readers {
    /// Starts one thread for each connection: the first serves lists, the others serve reads of single rows.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(connections: Vec<Connection>, timeout: Duration) -> io::Result<Self> {
        let (look_ups, queued_look_ups) = mpsc::channel(QUEUE);
        let (lists, queued_lists) = mpsc::channel(QUEUE);
        let (queued_look_ups, queued_lists) = (Arc::new(Mutex::new(queued_look_ups)), Arc::new(Mutex::new(queued_lists)));
        let serve = |(number, db): (usize, Connection)| {
            let queue = Arc::clone(if number == 0 { &queued_lists } else { &queued_look_ups });
            thread::Builder::new().name(format!("store-reader-{number}")).spawn(move || serve(db, &queue))
        };
        let threads = connections.into_iter().enumerate().map(serve).collect::<io::Result<_>>()?;
        Ok(Self { queues: Mutex::new(Some(Queues { look_ups, lists })), threads: Mutex::new(threads), timeout })
    }

    /// Runs `read` in one snapshot of the database.
    ///
    /// # Errors
    /// What `read` answers, [`StoreError::TooSlow`], or [`StoreError::Closed`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |db| {
            // The caller timed out while the read was queued.
            if !answer.is_closed() {
                let _ = answer.send(snapshot(db, read));
            }
        });
        self.queue(lane)?.try_send(task).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::TooSlow(self.timeout),
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::TooSlow(self.timeout)),
        }
    }

    /// Completes the queued reads, then ends the threads.
    pub(super) async fn close(&self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }

    fn queue(&self, lane: Lane) -> Result<mpsc::Sender<Task>, StoreError> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.as_ref().ok_or(StoreError::Closed)?;
        Ok(match lane {
            Lane::LookUps => queues.look_ups.clone(),
            Lane::Lists => queues.lists.clone(),
        })
    }
}

fn serve(mut db: Connection, queue: &Mutex<mpsc::Receiver<Task>>) {
    // Taken in a separate statement, so that the lock is released before the task runs.
    while let Some(task) = next(queue) {
        task(&mut db);
    }
}

fn next(queue: &Mutex<mpsc::Receiver<Task>>) -> Option<Task> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

fn snapshot<T>(db: &mut Connection, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let transaction = db.transaction()?;
    let result = read(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Maximum number of queued reads in a lane. Further ones are refused.
const QUEUE: usize = 4096;
