//! Deletes the wraps under retired wrapper keys that the retirement left, in small steps, so that signatures come between them. After a crash it goes on
//! where it was. No key is opened by such a wrap.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Background, next_tick, ticks};

/// Interval in which the task looks for such wraps.
const INTERVAL: Duration = Duration::from_secs(2);

/// Pause between two steps.
const PAUSE: Duration = Duration::from_millis(50);

impl Background {
    pub(super) async fn delete_retired_wraps(self, stop: CancellationToken) {
        let mut ticks = ticks(INTERVAL);
        while next_tick(&mut ticks, &stop).await {
            while !stop.is_cancelled() {
                match self.env.store.delete_retired_wraps().await {
                    Ok(true) => tokio::time::sleep(PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "wraps under retired wrapper keys could not be deleted; the vault retries");
                        break;
                    }
                }
            }
        }
    }
}
