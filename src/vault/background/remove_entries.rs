//! Frees the space of entries whose removal is in the log, in small steps. After a crash it goes on where it was.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Background, next_tick, ticks};

/// Interval in which the task looks for a removal.
const INTERVAL: Duration = Duration::from_secs(2);

/// Pause between two steps, so that signatures come between them.
const PAUSE: Duration = Duration::from_millis(10);

impl Background {
    pub(super) async fn remove_entries(self, stop: CancellationToken) {
        let mut ticks = ticks(INTERVAL);
        while next_tick(&mut ticks, &stop).await {
            while !stop.is_cancelled() {
                match self.env.store.remove_some_entries().await {
                    Ok(true) => tokio::time::sleep(PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "archived entries of the audit log could not be removed; the vault retries");
                        break;
                    }
                }
            }
        }
    }
}
