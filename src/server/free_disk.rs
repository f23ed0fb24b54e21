//! The gauge of free disk space. Only the server knows that the store is a file.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::storage::SqliteStore;

/// Interval of the measurement.
const INTERVAL: Duration = Duration::from_secs(15);

/// Sets the gauge at an interval, until `stop` is cancelled.
#[expect(clippy::cast_precision_loss, reason = "a gauge does not need the precision")]
pub(super) async fn measure_free_disk(store: Arc<SqliteStore>, stop: CancellationToken) {
    let measure = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(free) = store.free_disk() {
                metrics::gauge!("keyvault_free_disk_bytes").set(free as f64);
            }
        }
    };
    stop.run_until_cancelled(measure).await;
}
