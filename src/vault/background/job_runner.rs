//! Work over all keys: the job that runs, resumed after a restart, and the filling of standby wrapper keys.
//!
//! Pass by pass: the store says when no key is left. What fails is tried again by the next pass, for as long as time may cure it, and a
//! few times where it may not.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{AuditEvent, Job, JobError, JobKind, JobState, Operation, Work, WrapperKeyId, WrapperState},
    storage::{Change, CommitError, JobEnd, KeyRequirement, Page},
    vault::{Vault, audit_gate::commit::Completed},
};

use super::sweep::{SweepHistory, SweepResult, SweepTask};

/// How often somebody looks for a job or for keys without a standby wrap, if no bell rings.
const LOOK: Duration = Duration::from_secs(5);
/// A job fails after so many passes in a row that tried every key that is left, each in vain, for reasons that time does not cure.
const PATIENCE: u32 = 4;

impl Vault {
    /// Works on the job that runs, whenever one does.
    pub(in crate::vault) async fn work_on_jobs(self: Arc<Self>, stop: CancellationToken) {
        let (mut bell, mut wait) = (self.job_wakeup.subscribe(), Duration::ZERO);
        let (mut history, mut of) = (SweepHistory::default(), None);
        while next_look(&stop, &mut bell, wait).await {
            let job = match self.store.running_job().await {
                Ok(Some(job)) if self.in_service().is_ok() => job,
                _ => {
                    wait = LOOK;
                    continue;
                }
            };
            if of.replace(job.id) != Some(job.id) {
                history = SweepHistory::default();
            }
            let result_counts = self.pass_of(&job, &mut history, &stop).await;
            if stop.is_cancelled() {
                return;
            }
            history.note(&result_counts);
            if result_counts.whole {
                self.progress.end_pass(job.id);
            }
            wait = if history.fruitless == 0 { Duration::ZERO } else { self.job_rate_limit.pause(history.fruitless) };
            match self.end_job(&job, history.hopeless >= PATIENCE).await {
                Ok(()) => wait = LOOK,
                Err(CommitError::KeysLeft(_) | CommitError::LostRace) => {}
                Err(error) => tracing::warn!(job = %job.id, %error, "the end of a job could not be recorded; this is tried again"),
            }
        }
    }

    async fn pass_of(self: &Arc<Self>, job: &Job, history: &mut SweepHistory, stop: &CancellationToken) -> SweepResult {
        let Work::Rotation { to, .. } = job.work else { return self.pass(SweepTask::Reseal(job), history, stop).await };
        let Ok(keys) = self.wrapper_keys().await else { return SweepResult { passing: 1, ..SweepResult::default() } };
        match keys.iter().find(|key| key.id == to) {
            Some(to) => self.pass(SweepTask::Rotate(job, to), history, stop).await,
            None => SweepResult { lasting: 1, whole: true, ..SweepResult::default() },
        }
    }

    /// Ends a job: as succeeded if no key is left, as failed if that is hopeless. Looks before it asks the writer to count, whom all wait for.
    async fn end_job(&self, job: &Job, hopeless: bool) -> Result<(), CommitError> {
        let is_left = !self.store.left(KeyRequirement::by(job.work, job.started_at), Page { after: 0, limit: 1 }).await?.is_empty();
        let ended = if is_left { Err(CommitError::KeysLeft(1)) } else { self.write_end(job, JobState::Succeeded, Vec::new()).await };
        match ended {
            Err(CommitError::KeysLeft(_)) if hopeless => self.write_end(job, JobState::Failed, self.progress.failures(job.id)).await,
            ended => ended,
        }
    }

    async fn write_end(&self, job: &Job, state: JobState, errors: Vec<JobError>) -> Result<(), CommitError> {
        let operation = match job.work.kind() {
            JobKind::Rotation => Operation::EndRotation,
            JobKind::Reseal => Operation::EndReseal,
        };
        let permit = self.policy().permit_system(operation, None);
        let event = AuditEvent { subject: Some(format!("{} {state}", job.id)), ..self.system_event(operation) };
        let end = JobEnd { id: job.id, state, errors, at: (self.clock)() };
        self.commit(event, Completed::changed(permit, (), Change::EndJob(end))).await?;
        tracing::info!(job = %job.id, %state, "a job over all keys ended");
        Ok(())
    }

    /// Keeps standby wrapper keys filled: every key gets a wrap under each.
    pub(in crate::vault) async fn fill_standbys(self: Arc<Self>, stop: CancellationToken) {
        let mut courses: HashMap<WrapperKeyId, (SweepHistory, Instant)> = HashMap::new();
        let mut filled_at = HashMap::new();
        let (mut bell, mut wait) = (self.job_wakeup.subscribe(), Duration::ZERO);
        while next_look(&stop, &mut bell, wait).await {
            wait = LOOK;
            let Ok(keys) = self.wrapper_keys().await else { continue };
            for key in keys.iter().filter(|key| key.state == WrapperState::Standby) {
                let (revision, now) = (self.store.revision(), Instant::now());
                let (history, rests_until) = courses.entry(key.id).or_insert_with(|| (SweepHistory::default(), now));
                if now < *rests_until || filled_at.get(&key.id) == Some(&revision) {
                    continue;
                }
                let result_counts = self.pass(SweepTask::Fill(key), history, &stop).await;
                history.note(&result_counts);
                if result_counts.passing + result_counts.lasting > 0 {
                    *rests_until = now + self.job_rate_limit.pause(history.fruitless.saturating_add(2));
                } else if result_counts.whole {
                    // What came meanwhile moved the revision on, and is found at the next look.
                    filled_at.insert(key.id, revision);
                }
            }
        }
    }
}

/// Waits for the bell, which may have rung meanwhile, or the time; `false` once the work is to end.
async fn next_look(stop: &CancellationToken, bell: &mut watch::Receiver<()>, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        rung = bell.changed() => rung.is_ok(),
        () = tokio::time::sleep(wait) => true,
    }
}
