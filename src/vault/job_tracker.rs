//! What this process knows of the running job beyond the store: which keys failed and why, and a wake-up for the job runner.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::domain::{Job, JobError, JobId, JobState, KeyId};

/// The failures of the running job, and the wake-up of the background tasks that process all keys. A restart loses the failures; the first
/// sweep after it finds them again.
pub(super) struct JobTracker {
    failures: Mutex<JobFailures>,
    wakeup: watch::Sender<()>,
}

#[derive(Default)]
struct JobFailures {
    job: Option<JobId>,
    /// Each failed key, with the number of the sweep that failed last.
    by_key: BTreeMap<KeyId, (u64, JobError)>,
    /// Completed sweeps.
    sweeps: u64,
}

impl JobTracker {
    pub(super) fn new() -> Self {
        Self { failures: Mutex::default(), wakeup: watch::Sender::new(()) }
    }

    /// Wakes the tasks that process all keys, because there may be work.
    pub(super) fn wake(&self) {
        self.wakeup.send_replace(());
    }

    /// Receives the wake-ups.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.wakeup.subscribe()
    }

    /// Records the result of one key. `None` is a success.
    pub(super) fn record(&self, job: JobId, key: KeyId, failure: Option<JobError>) {
        let mut failures = self.of(job);
        let sweep = failures.sweeps;
        match failure {
            Some(failure) => failures.by_key.insert(key, (sweep, failure)),
            None => failures.by_key.remove(&key),
        };
    }

    /// Ends a complete sweep. A key that failed in an earlier sweep and was not swept again was completed by another operation.
    pub(super) fn end_sweep(&self, job: JobId) {
        let mut failures = self.of(job);
        let current = failures.sweeps;
        failures.by_key.retain(|_, (sweep, _)| *sweep == current);
        failures.sweeps += 1;
    }

    /// The failures of a job.
    pub(super) fn failures(&self, job: JobId) -> Vec<JobError> {
        self.of(job).by_key.values().map(|(_, failure)| failure.clone()).collect()
    }

    /// Adds to a running job what only this process knows.
    pub(super) fn complete(&self, job: &mut Job) {
        if job.state == JobState::Running {
            let failures = self.of(job.id);
            job.errors = failures.by_key.values().take(Job::TOLD).map(|(_, failure)| failure.clone()).collect();
            // Other operations may have completed failed keys meanwhile. Only the store knows.
            job.failed = (failures.by_key.len() as u64).min(job.total.saturating_sub(job.done));
        }
    }

    /// The failures of this job. Those of another job are discarded.
    fn of(&self, job: JobId) -> MutexGuard<'_, JobFailures> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.job != Some(job) {
            *failures = JobFailures { job: Some(job), ..JobFailures::default() };
        }
        failures
    }
}
