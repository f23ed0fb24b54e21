//! Abort of a job. Processed keys stay as they are, and every key opens as before.

use crate::{
    domain::{AuditEvent, Job, JobId, JobKind, JobState},
    storage::{Change, JobEnd},
};

use super::operations;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Aborts a job. The rollback of a rotation is another rotation.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`; `JobEnded` if it does not run; `StorageUnavailable` or `AuditUnavailable`.
    pub async fn abort_job(&self, call: &CallContext, kind: JobKind, id: JobId) -> Result<AuditedResult<Job>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.gate.event(call, operations(kind).abort) };
        let aborted = self
            .gate
            .run(event, |event, _| async move {
                let result = self.try_abort(&event, kind, id).await;
                (event, result)
            })
            .await?;
        self.job_tracker.wake();
        Ok(aborted)
    }

    async fn try_abort(&self, event: &AuditEvent, kind: JobKind, id: JobId) -> Result<Completed<Job>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        let mut job = self.job(kind, id).await?;
        if job.state != JobState::Running {
            return Err(VaultError::JobEnded(job.state));
        }
        let at = self.env.now();
        let end = JobEnd { id, state: JobState::Aborted, errors: self.job_tracker.failures(id), at };
        (job.state, job.finished_at) = (JobState::Aborted, Some(at));
        Ok(Completed::changed(permit, job, Change::EndJob(end)))
    }
}
