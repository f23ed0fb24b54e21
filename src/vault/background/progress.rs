//! What this process knows of a running job beyond the store's counts: which keys were tried in vain, and why.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{Job, JobError, JobId, JobState, KeyId};

/// The failures of the job that runs. A restart forgets them, and its first pass finds them again.
#[derive(Default)]
pub(in crate::vault) struct Progress(Mutex<KnownFailures>);

#[derive(Default)]
struct KnownFailures {
    job: Option<JobId>,
    /// Each with the pass that noted it.
    failures: BTreeMap<KeyId, (u64, JobError)>,
    /// Passes that ended.
    passes: u64,
}

impl Progress {
    /// Notes how a key fared.
    pub(in crate::vault) fn note(&self, job: JobId, key: KeyId, failure: Option<JobError>) {
        let mut known = self.known(job);
        let pass = known.passes;
        match failure {
            Some(failure) => known.failures.insert(key, (pass, failure)),
            None => known.failures.remove(&key),
        };
    }

    /// A pass over all keys that are left ended: what failed in an earlier one, and was not left any more, was done by another hand.
    pub(in crate::vault) fn end_pass(&self, job: JobId) {
        let mut known = self.known(job);
        let this = known.passes;
        known.failures.retain(|_, (pass, _)| *pass == this);
        known.passes += 1;
    }

    /// The failures of a job.
    pub(in crate::vault) fn failures(&self, job: JobId) -> Vec<JobError> {
        self.known(job).failures.values().map(|(_, failure)| failure.clone()).collect()
    }

    /// Adds to a running job what only this process knows.
    pub(in crate::vault) fn fill_in(&self, job: &mut Job) {
        if job.state == JobState::Running {
            let known = self.known(job.id);
            job.errors = known.failures.values().take(Job::TOLD).map(|(_, failure)| failure.clone()).collect();
            // What another hand did meanwhile is known to the store alone.
            job.failed = (known.failures.len() as u64).min(job.total.saturating_sub(job.done));
        }
    }

    /// What is known of this job; of another one everything is forgotten.
    fn known(&self, job: JobId) -> MutexGuard<'_, KnownFailures> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.job != Some(job) {
            *known = KnownFailures { job: Some(job), ..KnownFailures::default() };
        }
        known
    }
}
