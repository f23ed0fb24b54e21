//! Start of a rotation: the new wrapper key becomes active, and a job adds a wrap under it to every key.

use crate::{
    domain::{AuditEvent, Job, JobKind, Operation, Work, WrapperKeyId, WrapperState},
    storage::{Change, KeyRequirement, PageRequest},
};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Starts a rotation to the wrapper key `to`. It is verified first and is active from then on. A rotation to the active wrapper key
    /// processes the keys that an earlier rotation left.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `InvalidWrapperKeyState`, `JobRunning`, or why `to` cannot be used. Nothing is changed then.
    pub async fn start_rotation(&self, call: &CallContext, to: WrapperKeyId) -> Result<AuditedResult<Job>, VaultError> {
        let event = AuditEvent { subject: Some(format!("to {to}")), ..self.gate.event(call, Operation::StartRotation) };
        let started = self
            .gate
            .run(event, |mut event, _| async move {
                let result = self.try_start_rotation(&mut event, to).await;
                (event, result)
            })
            .await?;
        self.job_tracker.wake();
        Ok(started)
    }

    async fn try_start_rotation(&self, event: &mut AuditEvent, to: WrapperKeyId) -> Result<Completed<Job>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.in_service()?;
        let keys = self.env.store.wrapper_keys().await?;
        let target = keys.iter().find(|key| key.id == to).ok_or(VaultError::NotFound("such wrapper key"))?;
        let active = keys.iter().find(|key| key.state == WrapperState::Active).ok_or(VaultError::NoWrapperKey)?;
        self.check_no_running_job().await?;
        if target.state == WrapperState::Retired {
            return Err(VaultError::InvalidWrapperKeyState(target.state));
        }
        let first = PageRequest { after: 0, limit: 1 };
        let keys_remain = !self.env.store.keys_missing(KeyRequirement::WrapUnder(to), first).await?.is_empty();
        if target.id == active.id && !keys_remain {
            return Err(VaultError::InvalidWrapperKeyState(target.state));
        }
        let from = if target.id == active.id { self.source_of_last_rotation(to).await? } else { active.id };
        self.wrapper_keys.verify_for_rotation(&mut event.kms, target, active, keys_remain).await?;
        let job = self.new_job(Work::Rotation { from, to })?;
        event.subject = Some(format!("{from} to {to}, {}", job.id));
        Ok(Completed::changed(permit, job.clone(), Change::StartJob(Box::new(job))))
    }

    /// The wrapper key from which the last rotation to `to` started.
    async fn source_of_last_rotation(&self, to: WrapperKeyId) -> Result<WrapperKeyId, VaultError> {
        let jobs = self.env.store.jobs(JobKind::Rotation, PageRequest { after: 0, limit: u32::MAX }).await?;
        let source = jobs.iter().rev().find_map(|job| match job.item.work {
            Work::Rotation { from, to: target } if target == to => Some(from),
            _ => None,
        });
        Ok(source.unwrap_or(to))
    }
}
