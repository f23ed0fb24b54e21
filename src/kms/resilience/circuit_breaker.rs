//! A circuit breaker: blocks the calls to a region after consecutive outages, and lets one call probe the region after a pause.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The breaker of one region.
pub(in crate::kms) struct CircuitBreaker {
    /// The number of consecutive outages that opens it.
    threshold: u32,
    state: Mutex<State>,
}

enum State {
    /// Closed: admits all calls. The number of consecutive outages so far.
    Closed { outages: u32 },
    /// Open: admits no call until then.
    Open { until: Instant },
    /// Half open: one call probes the region.
    Probing,
}

impl CircuitBreaker {
    /// A closed breaker that opens after `threshold` consecutive outages.
    pub(in crate::kms) fn new(threshold: u32) -> Self {
        Self { threshold, state: Mutex::new(State::Closed { outages: 0 }) }
    }

    /// Permission for one call, or `None` while the breaker is open.
    pub(super) fn admit(&self) -> Option<Pass<'_>> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } if Instant::now() >= until => *state = State::Probing,
            State::Open { .. } | State::Probing => return None,
        }
        let is_probe = matches!(*state, State::Probing);
        Some(Pass { circuit_breaker: self, is_probe, told: false })
    }

    /// Whether it admits no call now. Once its pause has passed, the next call is admitted, so that it is no longer open.
    pub(super) fn is_open(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { until } => Instant::now() < until,
            State::Probing => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted call. If it is dropped without a result (the caller disconnected), the next call may probe.
pub(super) struct Pass<'a> {
    circuit_breaker: &'a CircuitBreaker,
    is_probe: bool,
    told: bool,
}

impl Pass<'_> {
    /// The region answered. A denial is an answer.
    pub(super) fn succeeded(mut self) {
        self.told = true;
        let mut state = self.circuit_breaker.state();
        // A slow success of a call from before the breaker opened does not close it. The probe does.
        if self.is_probe || matches!(*state, State::Closed { .. }) {
            *state = State::Closed { outages: 0 };
        }
    }

    /// The region failed. If that opens the breaker, it stays open for `pause`.
    pub(super) fn failed(mut self, pause: Duration) {
        self.told = true;
        let mut state = self.circuit_breaker.state();
        match *state {
            State::Closed { outages } if outages + 1 < self.circuit_breaker.threshold => *state = State::Closed { outages: outages + 1 },
            State::Closed { .. } => *state = State::Open { until: Instant::now() + pause },
            State::Probing if self.is_probe => *state = State::Open { until: Instant::now() + pause },
            State::Open { .. } | State::Probing => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.told {
            *self.circuit_breaker.state() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn opened() -> CircuitBreaker {
        let circuit_breaker = CircuitBreaker::new(2);
        circuit_breaker.admit().unwrap().failed(PAUSE);
        circuit_breaker.admit().unwrap().failed(PAUSE);
        circuit_breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_outages_in_a_row_and_lets_one_probe_through() {
        let circuit_breaker = opened();
        assert!(circuit_breaker.admit().is_none() && circuit_breaker.is_open());
        tokio::time::advance(PAUSE).await;
        assert!(!circuit_breaker.is_open(), "the pause has passed, although no call came since");
        let probe = circuit_breaker.admit().unwrap();
        assert!(circuit_breaker.is_open());
        assert!(circuit_breaker.admit().is_none(), "one probe at a time");
        probe.failed(PAUSE);
        assert!(circuit_breaker.admit().is_none());
        tokio::time::advance(PAUSE).await;
        circuit_breaker.admit().unwrap().succeeded();
        assert!(!circuit_breaker.is_open());
        assert!(circuit_breaker.admit().is_some() && circuit_breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_outages_keeps_it_closed() {
        let circuit_breaker = CircuitBreaker::new(2);
        for _ in 0..5 {
            circuit_breaker.admit().unwrap().failed(PAUSE);
            circuit_breaker.admit().unwrap().succeeded();
        }
        assert!(circuit_breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_does_not_block_the_next_and_a_late_success_does_not_close_it() {
        let circuit_breaker = CircuitBreaker::new(2);
        let slow = circuit_breaker.admit().unwrap();
        circuit_breaker.admit().unwrap().failed(PAUSE);
        circuit_breaker.admit().unwrap().failed(PAUSE);
        slow.succeeded();
        assert!(circuit_breaker.admit().is_none());
        tokio::time::advance(PAUSE).await;
        drop(circuit_breaker.admit().unwrap());
        assert!(circuit_breaker.admit().is_some());
    }
}
