//! Keeps standby wrapper keys filled: every key gets a wrap under each of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{WrapperKeyId, WrapperState},
    storage::Lease,
};

use super::{
    Background, JOB_POLL_INTERVAL, next_wakeup,
    sweep::{SweepHistory, SweepTask},
};

impl Background {
    /// Adds missing wraps under standby wrapper keys.
    pub(super) async fn fill_standby_wrapper_keys(self, stop: CancellationToken) {
        // For each wrapper key: the sweeps so far, and the time of the next one.
        let mut histories: HashMap<WrapperKeyId, (SweepHistory, Instant)> = HashMap::new();
        // The revision of the store at which a wrapper key was filled.
        let mut filled_at = HashMap::new();
        let (mut wakeup, mut wait) = (self.job_tracker.subscribe(), Duration::ZERO);
        while next_wakeup(&stop, &mut wakeup, wait).await {
            wait = JOB_POLL_INTERVAL;
            let Ok(keys) = self.wrapper_keys.registered().await else { continue };
            for key in keys.iter().filter(|key| key.state == WrapperState::Standby) {
                let (revision, now) = (self.env.store.known_revision(), Instant::now());
                let (history, not_before) = histories.entry(key.id).or_insert_with(|| (SweepHistory::default(), now));
                if now < *not_before || filled_at.get(&key.id) == Some(&revision) || !self.holds(Lease::Sweep).await {
                    continue;
                }
                let result = self.sweep(SweepTask::FillStandby(key), history, &stop).await;
                history.add(&result);
                if result.retryable + result.permanent > 0 {
                    *not_before = now + self.rate_limit.backoff(history.failed_sweeps.saturating_add(2));
                } else if result.complete {
                    // A key created meanwhile increased the revision, and the next iteration finds it.
                    filled_at.insert(key.id, revision);
                }
            }
        }
    }
}
