//! What this process knows of a running job beyond the store's counts: which keys were tried in vain, and why.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{Job, JobError, JobId, JobState, KeyId};

/// So many errors are told; the rest is counted.
const TOLD: usize = 20;

/// The failures of the job that runs. A restart forgets them, and its first pass finds them again.
#[derive(Default)]
pub(super) struct Progress(Mutex<Known>);

#[derive(Default)]
struct Known {
    job: Option<JobId>,
    failures: BTreeMap<KeyId, JobError>,
}

impl Progress {
    /// Notes how a key fared.
    pub(super) fn note(&self, job: JobId, key: KeyId, failure: Option<JobError>) {
        let mut known = self.known(job);
        match failure {
            Some(failure) => known.failures.insert(key, failure),
            None => known.failures.remove(&key),
        };
    }

    /// The first failures of a job, and how many there are.
    pub(super) fn failures(&self, job: JobId) -> (Vec<JobError>, usize) {
        let known = self.known(job);
        (known.failures.values().take(TOLD).cloned().collect(), known.failures.len())
    }

    /// Adds to a running job what only this process knows.
    pub(super) fn fill_in(&self, job: &mut Job) {
        if job.state == JobState::Running {
            let (errors, failed) = self.failures(job.id);
            (job.errors, job.failed) = (errors, failed as u64);
        }
    }

    /// What is known of this job; of another one everything is forgotten.
    fn known(&self, job: JobId) -> MutexGuard<'_, Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.job != Some(job) {
            *known = Known { job: Some(job), failures: BTreeMap::new() };
        }
        known
    }
}
