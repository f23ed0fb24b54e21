//! Upkeep of the store in small steps, so that signatures and queries come between them. After a crash or a failure it continues where it was.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Background, next_tick, ticks};
use crate::storage::{KeyStore, StoreError};

/// One kind of upkeep.
pub(super) struct Upkeep {
    /// Interval in which the task looks for work.
    interval: Duration,
    /// The shortest pause between two steps.
    pause: Duration,
    /// One step. Returns whether more may be left.
    step: for<'store> fn(&'store dyn KeyStore) -> BoxFuture<'store, Result<bool, StoreError>>,
    /// What failed, for the log line.
    failure: &'static str,
}

/// All kinds. Each has a task of its own.
pub(super) static UPKEEP: &[Upkeep] = &[
    // The complete blocks of the audit log, so that queries skip blocks and totals are known. A query is correct without, only slower. After an update this
    // catches up with a long log.
    Upkeep {
        interval: Duration::from_secs(5),
        pause: Duration::from_millis(20),
        step: |store| store.digest_log(),
        failure: "the audit log could not be digested for queries",
    },
    // The space of entries whose removal is in the log.
    Upkeep {
        interval: Duration::from_secs(2),
        pause: Duration::from_millis(10),
        step: |store| store.remove_some_entries(),
        failure: "archived entries of the audit log could not be removed",
    },
    // The wraps that a retirement left. They open no key.
    Upkeep {
        interval: Duration::from_secs(2),
        pause: Duration::from_millis(50),
        step: |store| store.delete_retired_wraps(),
        failure: "wraps under retired wrapper keys could not be deleted",
    },
];

impl Background {
    pub(super) async fn maintain_store(self, upkeep: &'static Upkeep, stop: CancellationToken) {
        let mut ticks = ticks(upkeep.interval);
        while next_tick(&mut ticks, &stop).await {
            while !stop.is_cancelled() {
                let began = Instant::now();
                match (upkeep.step)(self.env.store.as_ref()).await {
                    // At least as long as the step took: at most half of the time of the store is for upkeep.
                    Ok(true) => tokio::time::sleep(upkeep.pause.max(began.elapsed())).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "{}; the vault retries", upkeep.failure);
                        break;
                    }
                }
            }
        }
    }
}
