//! Start of a job that re-seals every key under a new data key.

use crate::{
    domain::{AuditEvent, Job, Operation, Work},
    storage::Change,
};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Starts a job that re-seals every key.
    ///
    /// # Errors
    /// `Forbidden`, `JobRunning`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn start_reseal(&self, call: &CallContext) -> Result<AuditedResult<Job>, VaultError> {
        let mut event = self.gate.event(call, Operation::StartReseal);
        let result = self.try_start_reseal(&mut event).await;
        let started = self.gate.conclude(event, result).await?;
        self.job_tracker.wake();
        Ok(started)
    }

    async fn try_start_reseal(&self, event: &mut AuditEvent) -> Result<Completed<Job>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.in_service()?;
        self.check_no_running_job().await?;
        let job = self.new_job(Work::Reseal)?;
        event.subject = Some(job.id.to_string());
        Ok(Completed::changed(permit, job.clone(), Change::StartJob(Box::new(job))))
    }
}
