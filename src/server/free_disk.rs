//! The gauge of free disk space, for a store that is a file. Only the server knows whether it is.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::storage::free_disk;

/// Interval of the measurement.
const INTERVAL: Duration = Duration::from_secs(15);

/// Sets the gauge at an interval, until `stop` is cancelled.
#[expect(clippy::cast_precision_loss, reason = "a gauge does not need the precision")]
pub(super) async fn measure_free_disk(database: PathBuf, stop: CancellationToken) {
    let measure = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(free) = free_disk(&database) {
                metrics::gauge!(super::metrics::FREE_DISK).set(free as f64);
            }
        }
    };
    stop.run_until_cancelled(measure).await;
}
