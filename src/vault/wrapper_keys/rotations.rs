//! Starting, looking at and aborting jobs over all keys: rotations of the wrapper key, and re-seals.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    crypto::envelope,
    domain::{AuditEvent, Job, JobId, JobKind, JobState, Operation, Work, WrapperKey, WrapperKeyId, WrapperState},
    kms::{ForeignWrap, Unwrapped, Wrapped},
    storage::{Change, JobEnd, KeyRequirement, Page},
};

use super::unwrap::{canary_context, wrap_and_prove};
use crate::vault::{
    AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    keys::queries::{page, part},
};

impl Vault {
    /// Starts a rotation: `to` proves itself and is active for new keys from then on; a job gives every key a wrap under it. To the wrapper
    /// key that is active already it does the keys that an earlier rotation left.
    ///
    /// # Errors
    /// `NotFound`, `InvalidWrapperKeyState`, `JobRunning`, or why `to` cannot be used: nothing is changed then.
    pub async fn start_rotation(self: &Arc<Self>, call: &CallContext, to: WrapperKeyId) -> Result<AuditedResult<Job>, VaultError> {
        let mut event = self.event(call, Operation::StartRotation);
        for _ in 0..ATTEMPTS {
            event = AuditEvent { subject: Some(format!("to {to}")), ..self.event(call, Operation::StartRotation) };
            let done = self.try_start_rotation(&mut event, to).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                self.job_wakeup.send_replace(());
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_start_rotation(&self, event: &mut AuditEvent, to: WrapperKeyId) -> Result<Completed<Job>, VaultError> {
        let permit = self.permit_vault(event)?;
        self.in_service()?;
        let keys = self.store.wrapper_keys().await?;
        let target = keys.iter().find(|key| key.id == to).ok_or(VaultError::NotFound("such wrapper key"))?;
        let active = keys.iter().find(|key| key.state == WrapperState::Active).ok_or(VaultError::NoWrapperKey)?;
        self.no_job().await?;
        if target.state == WrapperState::Retired {
            return Err(VaultError::InvalidWrapperKeyState(target.state));
        }
        let is_left = !self.store.left(KeyRequirement::WrapUnder(to), Page { after: 0, limit: 1 }).await?.is_empty();
        if target.id == active.id && !is_left {
            return Err(VaultError::InvalidWrapperKeyState(target.state));
        }
        let from = if target.id == active.id { self.left_from(to).await? } else { active.id };
        self.prove_for_rotation(event, target, active, is_left).await?;
        event.subject = Some(format!("{from} to {to}"));
        let job = self.new_job(Work::Rotation { from, to })?;
        Ok(Completed::changed(permit, job.clone(), Change::StartJob(Box::new(job))))
    }

    /// Where the keys came from that a rotation to what is active now has left.
    async fn left_from(&self, to: WrapperKeyId) -> Result<WrapperKeyId, VaultError> {
        let jobs = self.store.jobs(JobKind::Rotation, Page { after: 0, limit: u32::MAX }).await?;
        let came_from = jobs.iter().rev().find_map(|job| match job.item.work {
            Work::Rotation { from, to: there } if there == to => Some(from),
            _ => None,
        });
        Ok(came_from.unwrap_or(to))
    }

    /// The new wrapper key wraps and unwraps a random canary; and where a key is left to be done, it can take over what the active one
    /// wrapped. Where none is left, the active one may be out of reach: that may be why one rotates.
    async fn prove_for_rotation(
        &self,
        event: &mut AuditEvent,
        to: &WrapperKey,
        active: &WrapperKey,
        is_left: bool,
    ) -> Result<(), VaultError> {
        const BROKEN: VaultError = VaultError::Internal("a canary gave another data key");
        let context = canary_context(&self.id, to.id);
        let random = envelope::new_data_key(self.random.as_ref())?;
        let target = self.connections.get(to).await?;
        wrap_and_prove(&*target, &random, &context, &mut event.kms).await?.ok_or(BROKEN)?;
        if !is_left || !target.can_rewrap_from(active) {
            return Ok(());
        }
        let source = self.connections.get(active).await?;
        let Wrapped { bytes, receipt } = source.wrap(&random, &context).await?;
        event.kms.took(active.id, receipt.request_id);
        let Wrapped { bytes, receipt } = target.rewrap(ForeignWrap { key: active, wrapped: &bytes }, &context).await?;
        event.kms.took(to.id, receipt.request_id);
        let Unwrapped { data_key, receipt } = target.unwrap(&bytes, &context).await?;
        event.kms.took(to.id, receipt.request_id);
        if data_key.same(&random) { Ok(()) } else { Err(BROKEN) }
    }

    /// Starts sealing every key anew.
    ///
    /// # Errors
    /// `JobRunning`, the gate's, the store's or the log's.
    pub async fn start_reseal(self: &Arc<Self>, call: &CallContext) -> Result<AuditedResult<Job>, VaultError> {
        let event = self.event(call, Operation::StartReseal);
        let done = self.try_start_reseal(&event).await;
        let answer = self.conclude(event, done).await?;
        self.job_wakeup.send_replace(());
        Ok(answer)
    }

    async fn try_start_reseal(&self, event: &AuditEvent) -> Result<Completed<Job>, VaultError> {
        let permit = self.permit_vault(event)?;
        self.in_service()?;
        self.no_job().await?;
        let job = self.new_job(Work::Reseal)?;
        Ok(Completed::changed(permit, job.clone(), Change::StartJob(Box::new(job))))
    }

    async fn no_job(&self) -> Result<(), VaultError> {
        self.store.running_job().await?.map_or(Ok(()), |job| Err(VaultError::JobRunning(Some(job.id))))
    }

    fn new_job(&self, work: Work) -> Result<Job, VaultError> {
        Ok(Job {
            id: JobId::from_random(self.random_bytes()?),
            work,
            state: JobState::Running,
            total: 0,
            done: 0,
            failed: 0,
            errors: Vec::new(),
            started_at: (self.clock)(),
            finished_at: None,
        })
    }

    /// Lists jobs of a kind.
    ///
    /// # Errors
    /// The gate's, the store's or the log's.
    pub async fn list_jobs(
        self: &Arc<Self>,
        call: &CallContext,
        kind: JobKind,
        cursor: PageRequest,
    ) -> Result<AuditedResult<ItemPage<Job>>, VaultError> {
        let event = self.event(call, operations(kind).list);
        let done = async {
            let permit = self.permit_vault(&event)?;
            let mut found = self.store.jobs(kind, page(cursor)).await?;
            for found in &mut found {
                self.progress.fill_in(&mut found.item);
            }
            Ok(Completed::read(permit, part(found, cursor)))
        };
        let done = done.await;
        self.conclude(event, done).await
    }

    /// Shows a job of a kind.
    ///
    /// # Errors
    /// `NotFound`, else as [`Vault::list_jobs`].
    pub async fn show_job(self: &Arc<Self>, call: &CallContext, kind: JobKind, id: JobId) -> Result<AuditedResult<Job>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.event(call, operations(kind).show) };
        let done = async {
            let permit = self.permit_vault(&event)?;
            Ok(Completed::read(permit, self.job(kind, id).await?))
        };
        let done = done.await;
        self.conclude(event, done).await
    }

    /// Stops a job: what is done stays done, and every key opens as before. The way back is another rotation.
    ///
    /// # Errors
    /// `NotFound`; `JobEnded` if it does not run; else as [`Vault::list_jobs`].
    pub async fn abort_job(self: &Arc<Self>, call: &CallContext, kind: JobKind, id: JobId) -> Result<AuditedResult<Job>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.event(call, operations(kind).abort) };
        for _ in 0..ATTEMPTS {
            let done = self.try_abort(&event, kind, id).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                self.job_wakeup.send_replace(());
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_abort(&self, event: &AuditEvent, kind: JobKind, id: JobId) -> Result<Completed<Job>, VaultError> {
        let permit = self.permit_vault(event)?;
        let mut job = self.job(kind, id).await?;
        if job.state != JobState::Running {
            return Err(VaultError::JobEnded(job.state));
        }
        let at = (self.clock)();
        let end = JobEnd { id, state: JobState::Aborted, errors: self.progress.failures(id), at };
        (job.state, job.finished_at) = (JobState::Aborted, Some(at));
        Ok(Completed::changed(permit, job, Change::EndJob(end)))
    }

    /// One job, with what this process knows of it.
    async fn job(&self, kind: JobKind, id: JobId) -> Result<Job, VaultError> {
        let found = self.store.job(id).await?.filter(|job| job.work.kind() == kind);
        let mut job = found.ok_or(VaultError::NotFound("such job"))?;
        self.progress.fill_in(&mut job);
        Ok(job)
    }
}

/// The words of the log for the calls about jobs of a kind.
struct Operations {
    list: Operation,
    show: Operation,
    abort: Operation,
}

const fn operations(kind: JobKind) -> Operations {
    use Operation as O;
    match kind {
        JobKind::Rotation => Operations { list: O::ListRotations, show: O::ShowRotation, abort: O::AbortRotation },
        JobKind::Reseal => Operations { list: O::ListReseals, show: O::ShowReseal, abort: O::AbortReseal },
    }
}
