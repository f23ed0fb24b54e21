//! Threads with read connections: a read of single rows never waits for a list, and no thread of the async runtime waits for the disk.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
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
    /// Lists, and reads of background tasks.
    Lists,
    /// Queries of the audit log.
    Log,
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
    log: mpsc::Sender<Task>,
}

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

impl Readers {
    /// How many connections it takes, if `look_ups` of them serve reads of single rows.
    pub(super) fn connections(look_ups: usize) -> usize {
        LISTS + LOG + look_ups.max(1)
    }

    /// Starts one thread for each connection: the first serves lists, the next two serve queries of the log, and the others serve reads of
    /// single rows.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(connections: Vec<Connection>, timeout: Duration) -> io::Result<Self> {
        let (look_ups, queued_look_ups) = mpsc::channel(QUEUE);
        let (lists, queued_lists) = mpsc::channel(QUEUE);
        let (log, queued_log) = mpsc::channel(QUEUE);
        let [queued_look_ups, queued_lists, queued_log] =
            [queued_look_ups, queued_lists, queued_log].map(|queued| Arc::new(Mutex::new(queued)));
        let serve = |(number, db): (usize, Connection)| {
            let queue = match number {
                0..LISTS => &queued_lists,
                LISTS..FIRST_LOOK_UP => &queued_log,
                _ => &queued_look_ups,
            };
            let queue = Arc::clone(queue);
            thread::Builder::new().name(format!("store-reader-{number}")).spawn(move || serve(db, &queue))
        };
        let threads = connections.into_iter().enumerate().map(serve).collect::<io::Result<_>>()?;
        Ok(Self { queues: Mutex::new(Some(Queues { look_ups, lists, log })), threads: Mutex::new(threads), timeout })
    }

    /// Runs `read` in one snapshot of the database. When the time is over, `read` is interrupted, so that nobody waits for a read whose caller is
    /// gone.
    ///
    /// # Errors
    /// What `read` answers, [`StoreError::TooSlow`], or [`StoreError::Closed`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let timeout = self.timeout;
        let deadline = Instant::now() + timeout;
        let task: Task = Box::new(move |db| {
            // The caller timed out while the read was queued.
            if !answer.is_closed() {
                let result = until(deadline, db, |db| snapshot(db, read));
                // An interrupted read says so too, and which of both the caller sees must not depend on who is faster.
                let _ = answer.send(result.map_err(|error| if Instant::now() < deadline { error } else { StoreError::TooSlow(timeout) }));
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
            Lane::Log => queues.log.clone(),
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

/// Runs `read`, and interrupts it at the deadline.
fn until<T>(deadline: Instant, db: &mut Connection, read: impl FnOnce(&mut Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    db.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
    let result = read(db);
    db.progress_handler(0, None::<fn() -> bool>)?;
    result
}

fn snapshot<T>(db: &mut Connection, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let transaction = db.transaction()?;
    let result = read(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Threads for lists.
const LISTS: usize = 1;
/// Threads for queries of the log.
const LOG: usize = 2;
/// The first thread for reads of single rows.
const FIRST_LOOK_UP: usize = LISTS + LOG;
/// Steps of a statement between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 1_000;
/// Maximum number of queued reads in a lane. Further ones are refused.
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(timeout: Duration) -> Readers {
        let connections = (0..Readers::connections(1)).map(|_| Connection::open_in_memory().unwrap()).collect();
        Readers::start(connections, timeout).unwrap()
    }

    fn one(db: &Connection) -> Result<i64, StoreError> {
        Ok(db.query_row("SELECT 1", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn queries_of_the_log_do_not_delay_lists() {
        let readers = Arc::new(readers(Duration::from_mins(1)));
        let mut held = Vec::new();
        for _ in 0..16 {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let readers = Arc::clone(&readers);
            let query = tokio::spawn(async move {
                readers
                    .run(Lane::Log, move |_| {
                        let _ = released.recv();
                        Ok(())
                    })
                    .await
            });
            held.push((release, query));
        }
        assert_eq!(readers.run(Lane::Lists, one).await, Ok(1));
        assert_eq!(readers.run(Lane::LookUps, one).await, Ok(1));
        for (release, query) in held {
            drop(release);
            assert_eq!(query.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_read_ends_at_its_deadline() {
        let readers = readers(Duration::from_millis(200));
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let read = |db: &Connection| Ok(db.query_row(endless, [], |row| row.get::<_, i64>(0))?);
        assert_eq!(readers.run(Lane::Lists, read).await, Err(StoreError::TooSlow(Duration::from_millis(200))));
        // The one thread of the lane is free again.
        let began = Instant::now();
        while readers.run(Lane::Lists, one).await != Ok(1) {
            assert!(began.elapsed() < Duration::from_secs(30), "the read still runs");
        }
        readers.close().await;
    }
}
