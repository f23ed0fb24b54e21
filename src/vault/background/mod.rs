//! What the vault does by itself, a file each; [`run`] starts all of them and they end with the vault.

mod destroy_keys;
mod flush_pending_audit;
mod gauges;
mod job_runner;
pub(in crate::vault) mod progress;
mod rate_limit;
mod sweep;
mod wrapper_key_monitor;

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Vault;

pub(in crate::vault) use self::rate_limit::JobRateLimit;
pub use self::rate_limit::JobsConfig;

/// How often the cache is swept, the refusals are summed up and what was deferred is tried again.
const SECOND: Duration = Duration::from_secs(1);

/// While the wrapper key is missing, down or under suspicion it is asked so often; a healthy one is not bothered.
const WRAPPER: Duration = Duration::from_secs(2);

/// How often gauges are read from the store and due keys are destroyed.
const SLOW: Duration = Duration::from_secs(15);

/// Starts the jobs; they run until `stop`.
pub fn run(vault: &Arc<Vault>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(every_second(Arc::clone(vault), stop.clone()));
    tasks.spawn(now_and_then(Arc::clone(vault), stop.clone()));
    tasks.spawn(watch_wrapper(Arc::clone(vault), stop.clone()));
    tasks.spawn(Arc::clone(vault).work_on_jobs(stop.clone()));
    tasks.spawn(Arc::clone(vault).fill_standbys(stop.clone()));
}

async fn every_second(vault: Arc<Vault>, stop: CancellationToken) {
    let mut ticks = ticks(SECOND);
    while next(&mut ticks, &stop).await {
        vault.cache.maintain().await;
        vault.write_deferred().await;
        vault.write_counted_refusals().await;
    }
}

/// A KMS that hangs takes its time: by itself, so that expired keys are wiped and refusals written meanwhile.
async fn watch_wrapper(vault: Arc<Vault>, stop: CancellationToken) {
    let mut ticks = ticks(WRAPPER);
    while next(&mut ticks, &stop).await {
        tokio::select! {
            () = stop.cancelled() => {}
            () = vault.watch_wrapper() => {}
        }
    }
}

async fn now_and_then(vault: Arc<Vault>, stop: CancellationToken) {
    let mut ticks = ticks(SLOW);
    while next(&mut ticks, &stop).await {
        vault.destroy_due().await;
        vault.read_gauges().await;
        vault.limits.forget_idle();
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick; `false` once the jobs are to end.
async fn next(ticks: &mut Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
