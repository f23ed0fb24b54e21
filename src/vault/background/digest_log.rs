//! Digests the complete blocks of the audit log, so that queries skip blocks and totals are known. After an update it catches up with a long log
//! in small steps. A query is correct without a digest, only slower.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Background, next_tick, ticks};

/// Interval in which the log is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Pause between two steps of a few thousand entries, so that signatures and queries come between them.
const PAUSE: Duration = Duration::from_millis(20);

impl Background {
    pub(super) async fn digest_log(self, stop: CancellationToken) {
        let mut ticks = ticks(INTERVAL);
        while next_tick(&mut ticks, &stop).await {
            while !stop.is_cancelled() {
                match self.env.store.digest_log().await {
                    Ok(true) => tokio::time::sleep(PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the audit log could not be digested for queries; the vault retries");
                        break;
                    }
                }
            }
        }
    }
}
