//! Runs the job over all keys, sweep by sweep, until the store says that no key is left. A restart resumes it.
//!
//! The next sweep retries failed keys: without a limit if a retry can cure the failure, a few times otherwise.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{AuditEvent, Job, JobError, JobKind, JobState, Operation, Work},
    storage::{Change, CommitError, JobEnd, KeyRequirement, Lease, PageRequest, StoreState},
};

use super::{
    Background, JOB_POLL_INTERVAL, next_wakeup,
    sweep::{SweepHistory, SweepResult, SweepTask},
};
use crate::vault::audit_gate::Completed;

/// A job fails after this number of consecutive complete sweeps in which every key failed permanently.
const MAX_HOPELESS_SWEEPS: u32 = 4;

impl Background {
    /// Processes the running job, whenever there is one.
    pub(super) async fn run_jobs(self, stop: CancellationToken) {
        let (mut wakeup, mut wait) = (self.job_tracker.subscribe(), Duration::ZERO);
        let (mut history, mut history_of) = (SweepHistory::default(), None);
        while next_wakeup(&stop, &mut wakeup, wait).await {
            let job = match self.env.store.state().await {
                Ok(StoreState { running_job: Some(job), .. }) if self.gate.in_service().is_ok() && self.holds(Lease::Sweep).await => job,
                _ => {
                    wait = JOB_POLL_INTERVAL;
                    continue;
                }
            };
            if history_of.replace(job.id) != Some(job.id) {
                history = SweepHistory::default();
            }
            let result = self.sweep_for_job(&job, &mut history, &stop).await;
            if stop.is_cancelled() {
                return;
            }
            history.add(&result);
            if result.complete {
                self.job_tracker.end_sweep(job.id);
            }
            wait = if history.failed_sweeps == 0 { Duration::ZERO } else { self.rate_limit.backoff(history.failed_sweeps) };
            match self.end_job(&job, history.hopeless_sweeps >= MAX_HOPELESS_SWEEPS).await {
                Ok(()) => wait = JOB_POLL_INTERVAL,
                Err(CommitError::KeysLeft(_) | CommitError::LostRace) => {}
                Err(error) => tracing::warn!(job = %job.id, %error, "the end of a job could not be recorded; the vault retries"),
            }
        }
    }

    async fn sweep_for_job(&self, job: &Job, history: &mut SweepHistory, stop: &CancellationToken) -> SweepResult {
        let Work::Rotation { to, .. } = job.work else { return self.sweep(SweepTask::Reseal(job), history, stop).await };
        let Ok(keys) = self.wrapper_keys.registered().await else { return SweepResult { retryable: 1, ..SweepResult::default() } };
        match keys.iter().find(|key| key.id == to) {
            Some(to) => self.sweep(SweepTask::Rotate(job, to), history, stop).await,
            None => SweepResult { permanent: 1, complete: true, ..SweepResult::default() },
        }
    }

    /// Ends a job: as succeeded if no key is left, as failed if it is hopeless. Reads before it commits, because the writer counts all keys at
    /// the commit, and all other commits wait for that.
    async fn end_job(&self, job: &Job, hopeless: bool) -> Result<(), CommitError> {
        let requirement = KeyRequirement::by(job.work, job.started_at);
        let keys_remain = !self.env.store.keys_missing(requirement, PageRequest { after: 0, limit: 1 }).await?.is_empty();
        let ended = if keys_remain { Err(CommitError::KeysLeft(1)) } else { self.commit_end(job, JobState::Succeeded, Vec::new()).await };
        match ended {
            Err(CommitError::KeysLeft(_)) if hopeless => self.commit_end(job, JobState::Failed, self.job_tracker.failures(job.id)).await,
            ended => ended,
        }
    }

    async fn commit_end(&self, job: &Job, state: JobState, errors: Vec<JobError>) -> Result<(), CommitError> {
        let operation = match job.work.kind() {
            JobKind::Rotation => Operation::EndRotation,
            JobKind::Reseal => Operation::EndReseal,
        };
        let permit = self.gate.policy().permit_system(operation, None);
        let event = AuditEvent { subject: Some(format!("{} {state}", job.id)), ..self.gate.system_event(operation) };
        let failed = errors.len();
        let end = JobEnd { id: job.id, state, errors, at: self.env.now() };
        self.gate.commit(event, Completed::changed(permit, (), Change::EndJob(end))).await?;
        if state == JobState::Succeeded {
            tracing::info!(operation = operation.as_str(), job = %job.id, %state, "a job over all keys ended");
        } else {
            tracing::warn!(operation = operation.as_str(), job = %job.id, %state, failed, "a job over all keys ended");
        }
        self.job_tracker.wake();
        Ok(())
    }
}
