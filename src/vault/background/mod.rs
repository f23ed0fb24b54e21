//! Background tasks, one file for each. [`run`] starts them; they end with the vault. They have no access to the limits of callers.

mod destroy_keys;
mod flush_pending_audit;
mod follow_replicas;
mod gauges;
mod job_runner;
mod rate_limit;
mod send_entries;
mod standby_filler;
mod store_upkeep;
mod sweep;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::storage::Lease;

use super::{
    Vault, audit_gate::AuditGate, environment::Environment, job_tracker::JobTracker, key_cache::KeyCache, keys::KeyLifecycle,
    wrapper_keys::WrapperKeys,
};

pub use self::rate_limit::JobsConfig;
pub(super) use self::send_entries::{Deliveries, Delivery, is_required};
use self::{rate_limit::JobRateLimit, store_upkeep::UPKEEP};

/// Interval of cache maintenance and of the retries of failed audit writes.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Interval in which gauges are read from the store and due keys are destroyed.
const SLOW_INTERVAL: Duration = Duration::from_secs(15);

/// Interval in which the store is asked for a running job and for keys without a standby wrap, if there is no wake-up.
const JOB_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The parts of the vault that background tasks use.
#[derive(Clone)]
pub(super) struct Background {
    env: Arc<Environment>,
    gate: Arc<AuditGate>,
    wrapper_keys: Arc<WrapperKeys>,
    key_cache: Arc<KeyCache>,
    key_lifecycle: Arc<KeyLifecycle>,
    job_tracker: Arc<JobTracker>,
    rate_limit: Arc<JobRateLimit>,
    deliveries: Deliveries,
}

impl Background {
    #[expect(clippy::too_many_arguments, reason = "one for each part")]
    pub(super) fn new(
        env: Arc<Environment>,
        gate: Arc<AuditGate>,
        wrapper_keys: Arc<WrapperKeys>,
        key_cache: Arc<KeyCache>,
        key_lifecycle: Arc<KeyLifecycle>,
        job_tracker: Arc<JobTracker>,
        deliveries: Deliveries,
        config: &JobsConfig,
    ) -> Self {
        let rate_limit = Arc::new(JobRateLimit::new(config));
        Self { env, gate, wrapper_keys, key_cache, key_lifecycle, job_tracker, rate_limit, deliveries }
    }
}

/// Starts the background tasks. They run until `stop` is cancelled.
pub fn run(vault: &Arc<Vault>, checkpoint_interval: Duration, tasks: &TaskTracker, stop: &CancellationToken) {
    let background = &vault.background;
    tasks.spawn(background.clone().run_maintenance(stop.clone()));
    tasks.spawn(background.clone().run_slow_tasks(stop.clone()));
    tasks.spawn(background.clone().run_wrapper_key_monitor(stop.clone()));
    tasks.spawn(background.clone().watch_coverage(stop.clone()));
    tasks.spawn(background.clone().run_jobs(stop.clone()));
    tasks.spawn(background.clone().fill_standby_wrapper_keys(stop.clone()));
    tasks.spawn(background.clone().follow_replicas(stop.clone()));
    for upkeep in UPKEEP {
        tasks.spawn(background.clone().maintain_store(upkeep, stop.clone()));
    }
    for place in 0..background.deliveries.len() {
        tasks.spawn(background.clone().send_entries(place, stop.clone()));
    }
    // The limits belong to callers, and a checkpoint needs a key of the vault: only these two tasks get the whole vault.
    tasks.spawn(maintain_limits(Arc::clone(vault), stop.clone()));
    tasks.spawn(make_checkpoints(Arc::clone(vault), checkpoint_interval, stop.clone()));
}

impl Background {
    async fn run_maintenance(self, stop: CancellationToken) {
        let mut ticks = ticks(MAINTENANCE_INTERVAL);
        while next_tick(&mut ticks, &stop).await {
            self.key_cache.maintain().await;
            self.flush_pending_audit().await;
            self.gate.write_counted_refusals(false).await;
            self.gate.write_loose_kms_calls(false).await;
        }
    }

    /// A separate task, because a KMS that does not answer would delay the maintenance of the cache.
    async fn run_wrapper_key_monitor(self, stop: CancellationToken) {
        let mut ticks = ticks(self.wrapper_keys.monitor_interval());
        while next_tick(&mut ticks, &stop).await {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wrapper_keys.monitor() => {}
            }
        }
    }

    /// Counts the keys without a wrap under the active wrapper key at start, after a job starts or ends, and after other state changes.
    async fn watch_coverage(self, stop: CancellationToken) {
        let (mut wakeup, mut wait) = (self.job_tracker.subscribe(), Duration::ZERO);
        while next_wakeup(&stop, &mut wakeup, wait).await {
            self.wrapper_keys.measure_coverage().await;
            wait = SLOW_INTERVAL;
        }
    }

    async fn run_slow_tasks(self, stop: CancellationToken) {
        let mut ticks = ticks(SLOW_INTERVAL);
        while next_tick(&mut ticks, &stop).await {
            if self.holds(Lease::Destruction).await {
                self.destroy_due_keys().await;
            }
            self.read_gauges().await;
        }
    }
}

async fn maintain_limits(vault: Arc<Vault>, stop: CancellationToken) {
    let mut ticks = ticks(SLOW_INTERVAL);
    while next_tick(&mut ticks, &stop).await {
        vault.limits.forget_idle();
        let live = vault.env.store.replication().map_or(1, |all| all.replicas().iter().filter(|replica| replica.live).count());
        vault.limits.share_between(live);
    }
}

/// Makes a checkpoint at each interval in which the log grew. The first one is made after one interval.
async fn make_checkpoints(vault: Arc<Vault>, interval: Duration, stop: CancellationToken) {
    let mut ticks = ticks(interval);
    ticks.reset();
    while next_tick(&mut ticks, &stop).await {
        tokio::select! {
            () = stop.cancelled() => {}
            made = vault.env.traced("make checkpoint", Box::pin(vault.make_checkpoint(true)), |_| {}) => match made {
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a checkpoint of the audit log could not be made; the vault retries"),
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick. `false` once the tasks must end.
async fn next_tick(ticks: &mut Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}

/// Waits for a wake-up, at most `wait`. `false` once the tasks must end.
async fn next_wakeup(stop: &CancellationToken, wakeup: &mut watch::Receiver<()>, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        changed = wakeup.changed() => changed.is_ok(),
        () = tokio::time::sleep(wait) => true,
    }
}
