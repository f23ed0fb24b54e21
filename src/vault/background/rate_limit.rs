//! The rate limit that all background work on keys shares.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval},
};

/// `[jobs]`: the rate of background work on keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Maximum number of keys each second. Each key costs two or three KMS calls. Default 50.
    pub keys_per_second: u32,
    /// Maximum number of keys processed concurrently. Default 4.
    pub concurrency: usize,
    /// The pause after a sweep in which no key succeeded. It doubles with each such sweep, up to 30 times this value. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self { keys_per_second: 50, concurrency: 4, retry_backoff: Duration::from_secs(1) }
    }
}

/// The rate, concurrency and backoff of background work on keys.
pub(super) struct JobRateLimit {
    ticks: Mutex<Interval>,
    concurrency: usize,
    retry_backoff: Duration,
}

impl JobRateLimit {
    pub(super) fn new(config: &JobsConfig) -> Self {
        let mut ticks = interval(Duration::from_secs(1) / config.keys_per_second.clamp(1, 1_000_000));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks: Mutex::new(ticks), concurrency: config.concurrency.max(1), retry_backoff: config.retry_backoff }
    }

    /// Waits until one more key may be processed.
    pub(super) async fn acquire(&self) {
        self.ticks.lock().await.tick().await;
    }

    /// Maximum number of keys processed concurrently.
    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// The pause after this number of consecutive sweeps without a success.
    pub(super) fn backoff(&self, failed_sweeps: u32) -> Duration {
        self.retry_backoff.saturating_mul(1 << failed_sweeps.min(5)).min(self.retry_backoff.saturating_mul(30))
    }
}
