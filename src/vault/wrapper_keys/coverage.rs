//! How many keys have a verified wrap under the active wrapper key. The number is kept, and counted again only after a state change, so that
//! the status and `/readyz` read it without a query.
//!
//! Once every key has a wrap, only another active wrapper key or a quarantined wrap changes that: new keys and re-seals are wrapped under the
//! active one. Then state changes lead to a count every ten minutes, because a count reads every key.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::{JobId, JobKind, WrapperKeyId, WrapperState},
    storage::{Coverage, KeyRequirement, StoreFacts},
};

use super::WrapperKeys;

/// The last count.
#[derive(Default)]
pub(super) struct CoverageTracker(Mutex<Option<Count>>);

#[derive(Clone, Copy)]
struct Count {
    /// The store at the count. With the same ones, the count is the same.
    revision: u64,
    running_job: Option<JobId>,
    active: ActiveCoverage,
    at: Instant,
}

impl Count {
    /// Whether a count now would give the same number, or is not worth its time yet.
    fn stands(&self, revision: u64, running_job: Option<JobId>, active: WrapperKeyId, now: Instant) -> bool {
        let complete = self.active.keys.left() == 0 && now.duration_since(self.at) < COMPLETE_INTERVAL;
        (self.running_job, self.active.wrapper_key) == (running_job, active) && (self.revision == revision || complete)
    }
}

/// The keys with a verified wrap under the active wrapper key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ActiveCoverage {
    /// The active wrapper key.
    pub wrapper_key: WrapperKeyId,
    /// The keys.
    pub keys: Coverage,
    /// Whether a rotation runs, which processes the keys that are left.
    pub rotating: bool,
}

impl ActiveCoverage {
    /// What is wrong and how to go on, if keys are left and no rotation runs: it was aborted, it failed for some keys, or a wrap was
    /// quarantined.
    pub(super) fn fault(self) -> Option<String> {
        let Self { wrapper_key, keys: Coverage { total, done }, rotating } = self;
        (!rotating && done < total).then(|| {
            format!(
                "{done} of {total} keys have a verified wrap under the active wrapper key {wrapper_key}, and no rotation runs. Start one to the \
                 same wrapper key, which processes the keys that are left: canton-keyvault wrapper rotation start --to {wrapper_key} --wait"
            )
        })
    }
}

/// The fault of the active wrapper key of a store, as [`ActiveCoverage::fault`] says it.
pub fn active_coverage_fault(facts: &StoreFacts) -> Option<String> {
    let active = facts.wrapper_keys.iter().find(|key| key.state == WrapperState::Active)?;
    ActiveCoverage { wrapper_key: active.id, keys: facts.active_coverage?, rotating: facts.rotating }.fault()
}

impl WrapperKeys {
    /// Counts, if the store changed since the last count, and logs when the coverage becomes incomplete or complete.
    #[expect(clippy::cast_precision_loss, reason = "a gauge does not need the precision")]
    pub(in crate::vault) async fn measure_coverage(&self) {
        let (Ok(state), Ok(keys)) = (self.env.store.state().await, self.registered().await) else { return };
        let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active) else { return };
        let before = self.coverage.last();
        let running_job = state.running_job.as_ref().map(|job| job.id);
        if before.is_some_and(|count| count.stands(state.revision, running_job, active.id, Instant::now())) {
            return;
        }
        // A change after the state was read has another revision, and is counted next time.
        let Ok(keys) = self.env.store.coverage(KeyRequirement::WrapUnder(active.id)).await else { return };
        let rotating = state.running_job.is_some_and(|job| job.work.kind() == JobKind::Rotation);
        let active = ActiveCoverage { wrapper_key: active.id, keys, rotating };
        metrics::gauge!("keyvault_keys_without_active_wrap").set(keys.left() as f64);
        let had_fault = before.is_some_and(|count| count.active.fault().is_some());
        match active.fault() {
            // At start, the check of the store has reported it.
            Some(fault) if before.is_some() && !had_fault => tracing::warn!("{fault}"),
            None if had_fault && keys.left() == 0 => {
                tracing::info!(wrapper_key = %active.wrapper_key, "every key has a verified wrap under the active wrapper key again");
            }
            _ => {}
        }
        self.coverage.store(Count { revision: state.revision, running_job, active, at: Instant::now() });
    }

    /// The last count, if it is of the wrapper key that is active now.
    pub(super) fn active_coverage(&self) -> Option<ActiveCoverage> {
        let active = self.known_active()?;
        self.coverage.last().map(|count| count.active).filter(|found| found.wrapper_key == active)
    }
}

impl CoverageTracker {
    fn last(&self) -> Option<Count> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, count: Count) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(count);
    }
}

/// The least time between two counts while every key has a wrap and no other wrapper key becomes active.
const COMPLETE_INTERVAL: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn count(done: u64, rotating: bool) -> Count {
        let active = ActiveCoverage { wrapper_key: WrapperKeyId::from_random([1; 6]), keys: Coverage { total: 200, done }, rotating };
        Count { revision: 7, running_job: None, active, at: Instant::now() }
    }

    #[test]
    fn a_complete_count_stands_through_state_changes_and_an_incomplete_one_does_not() {
        let (one, two) = (WrapperKeyId::from_random([1; 6]), WrapperKeyId::from_random([2; 6]));
        for (done, revision, active, stands) in
            [(200, 7, one, true), (200, 8, one, true), (59, 7, one, true), (59, 8, one, false), (200, 7, two, false)]
        {
            assert_eq!(count(done, false).stands(revision, None, active, Instant::now()), stands, "{done} {revision} {active}");
        }
        let job = Some(JobId::from_random([1; 6]));
        assert!(!count(200, false).stands(7, job, one, Instant::now()), "a job began");
        let complete = count(200, false);
        assert!(!complete.stands(8, None, one, complete.at + COMPLETE_INTERVAL), "a wrap may have been quarantined");
    }

    #[test]
    fn an_incomplete_wrapper_key_is_a_fault_unless_a_rotation_runs() {
        let fault = count(59, false).active.fault().unwrap();
        assert!(fault.starts_with("59 of 200 keys ") && fault.contains("wrapper rotation start --to wk-"), "{fault}");
        assert_eq!((count(59, true).active.fault(), count(200, false).active.fault()), (None, None));
    }
}
