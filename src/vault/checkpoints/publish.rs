//! Publishes a checkpoint outside the store. A file system that hangs delays a checkpoint for a bounded time, keeps at most one thread, and delays no
//! other call.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::timeout};

use super::CheckpointSink;

/// The longest wait for all sinks together.
const LIMIT: Duration = Duration::from_secs(5);

/// The sinks of a process.
pub(super) struct Publisher {
    sinks: Arc<[Arc<dyn CheckpointSink>]>,
    /// Held while the sinks get a checkpoint, also after the wait for it has ended.
    busy: Arc<Mutex<()>>,
    limit: Duration,
}

impl Publisher {
    pub(super) fn new(sinks: Vec<Arc<dyn CheckpointSink>>) -> Self {
        Self { sinks: sinks.into(), busy: Arc::default(), limit: LIMIT }
    }

    /// Gives a checkpoint to every sink. A failure is logged: the next checkpoint is published again.
    pub(super) async fn publish(&self, note: &str, size: u64) {
        for error in self.try_publish(note).await {
            tracing::error!(error, size, "a checkpoint of the audit log could not be published");
        }
    }

    /// The failures.
    async fn try_publish(&self, note: &str) -> Vec<String> {
        if self.sinks.is_empty() {
            return Vec::new();
        }
        let Ok(busy) = Arc::clone(&self.busy).try_lock_owned() else {
            return vec!["an earlier one is not written yet: check the disk of [audit] high_water_mark".to_owned()];
        };
        let (sinks, note) = (Arc::clone(&self.sinks), note.to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let _busy = busy;
            sinks.iter().filter_map(|sink| sink.publish(&note).err()).collect()
        });
        match timeout(self.limit, written).await {
            Ok(Ok(failures)) => failures,
            Ok(Err(stopped)) => vec![stopped.to_string()],
            Err(_) => vec![format!("it was not written within {:?}: check the disk of [audit] high_water_mark", self.limit)],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex as StdMutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    };

    use super::*;

    /// A disk that hangs until it gets a message, and keeps what was written.
    struct Slow {
        go_on: StdMutex<Receiver<()>>,
        written: StdMutex<Sender<String>>,
    }

    impl CheckpointSink for Slow {
        fn publish(&self, note: &str) -> Result<(), String> {
            let _ = self.go_on.lock().unwrap_or_else(PoisonError::into_inner).recv();
            self.written.lock().unwrap_or_else(PoisonError::into_inner).send(note.to_owned()).map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_delays_a_checkpoint_for_a_bounded_time_and_keeps_one_thread() {
        let ((go_on, waits), (tells, written)) = (channel(), channel());
        let disk = Slow { go_on: StdMutex::new(waits), written: StdMutex::new(tells) };
        let publisher = Publisher { limit: Duration::from_millis(50), ..Publisher::new(vec![Arc::new(disk)]) };
        assert!(publisher.try_publish("first").await.concat().contains("was not written within"));
        for _ in 0..3 {
            assert!(publisher.try_publish("second").await.concat().contains("an earlier one is not written yet"));
        }
        go_on.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "first");
        drop(publisher.busy.lock().await);
        go_on.send(()).unwrap();
        let publisher = Publisher { limit: LIMIT, ..publisher };
        assert_eq!(publisher.try_publish("third").await, [""; 0]);
        assert_eq!(written.recv().unwrap(), "third");
    }
}
