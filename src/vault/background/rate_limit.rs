//! How fast work over all keys goes: one beat for all of it.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval},
};

/// `[jobs]`: how fast work over all keys goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// At most so many keys a second; each costs two or three calls of the KMS. Default 50.
    pub keys_per_second: u32,
    /// At most so many keys at the same time. Default 4.
    pub concurrency: usize,
    /// After a pass in which no key could be done the next waits so long, and longer each time, up to 30 times as long. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self { keys_per_second: 50, concurrency: 4, retry_backoff: Duration::from_secs(1) }
    }
}

/// The beat that all work over all keys keeps together.
pub(in crate::vault) struct JobRateLimit {
    ticks: Mutex<Interval>,
    concurrency: usize,
    pause: Duration,
}

impl JobRateLimit {
    pub(in crate::vault) fn new(config: &JobsConfig) -> Self {
        let mut ticks = interval(Duration::from_secs(1) / config.keys_per_second.clamp(1, 1_000_000));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks: Mutex::new(ticks), concurrency: config.concurrency.max(1), pause: config.retry_backoff }
    }

    /// Waits for the turn of one key.
    pub(super) async fn next(&self) {
        self.ticks.lock().await.tick().await;
    }

    /// How many keys at the same time.
    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How long to rest after so many passes in vain.
    pub(super) fn pause(&self, fruitless: u32) -> Duration {
        self.pause.saturating_mul(1 << fruitless.min(5)).min(self.pause.saturating_mul(30))
    }
}
