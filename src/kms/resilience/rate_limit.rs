//! The rate limit: how many attempts run at the same time, and how many start in a second. Keeps the vault below the quota of the account.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

/// Concurrency and rate, shared by all keys of a provider.
pub(in crate::kms) struct CallRateLimit(Option<Bounds>);

struct Bounds {
    running: Arc<Semaphore>,
    /// The average time between two starts.
    interval: Duration,
    /// When the next start is due at an even rate. May lie up to [`BURST`] in the past.
    due: Mutex<Instant>,
}

/// Permission to run one attempt. Released on drop.
pub(super) struct Turn(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl CallRateLimit {
    /// At most `concurrency` at a time and `per_second` starts, with bursts of a tenth of a second.
    pub(in crate::kms) fn bounded(concurrency: usize, per_second: u32) -> Self {
        let running = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        Self(Some(Bounds { running, interval: Duration::from_secs(1) / per_second.max(1), due: Mutex::new(Instant::now()) }))
    }

    /// No limits, for providers that run in this process.
    pub(in crate::kms) const fn free() -> Self {
        Self(None)
    }

    /// Waits for a turn. `None` if there is none before `deadline`. Turns are given in the order of arrival.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<Turn> {
        let Some(bounds) = &self.0 else { return Some(Turn(None)) };
        let permit = timeout_at(deadline, Arc::clone(&bounds.running).acquire_owned()).await.ok()?.ok()?;
        let start = bounds.reserve(deadline)?;
        sleep_until(start).await;
        Some(Turn(Some(permit)))
    }
}

impl Bounds {
    /// Reserves the next start, unless it lies after `deadline`.
    fn reserve(&self, deadline: Instant) -> Option<Instant> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = Instant::now().checked_sub(BURST).unwrap_or_else(Instant::now);
        let start = (*due).max(earliest);
        if start >= deadline {
            return None;
        }
        *due = start + self.interval;
        Some(start)
    }
}

const BURST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_no_more_than_the_rate_allows() {
        let rate_limit = CallRateLimit::bounded(1000, 10);
        let begin = Instant::now();
        for _ in 0..31 {
            rate_limit.turn(begin + Duration::from_mins(1)).await.unwrap();
        }
        let took = begin.elapsed();
        assert!((Duration::from_millis(2_900)..Duration::from_millis(3_100)).contains(&took), "{took:?}");
        assert!(rate_limit.turn(Instant::now()).await.is_none(), "no start before the deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn runs_no_more_at_a_time_than_allowed() {
        let rate_limit = CallRateLimit::bounded(1, 1000);
        let deadline = || Instant::now() + Duration::from_secs(1);
        let first = rate_limit.turn(deadline()).await.unwrap();
        assert!(rate_limit.turn(deadline()).await.is_none());
        drop(first);
        assert!(rate_limit.turn(deadline()).await.is_some());
    }
}
