//! Lists and shows jobs, with their progress.

use crate::domain::{AuditEvent, Job, JobId, JobKind};

use super::operations;
use crate::vault::{
    AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError,
    audit_gate::Completed,
    pagination::{item_page, one_more},
};

impl Vault {
    /// Lists the jobs of a kind.
    ///
    /// # Errors
    /// `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn list_jobs(
        &self,
        call: &CallContext,
        kind: JobKind,
        page: PageRequest,
    ) -> Result<AuditedResult<ItemPage<Job>>, VaultError> {
        let event = self.gate.event(call, operations(kind).list);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let mut found = self.env.store.jobs(kind, one_more(page)).await?;
            for found in &mut found {
                self.job_tracker.complete(&mut found.item);
            }
            Ok(Completed::read(permit, item_page(found, page)))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// Shows a job of a kind.
    ///
    /// # Errors
    /// `NotFound`, otherwise as [`Vault::list_jobs`].
    pub async fn show_job(&self, call: &CallContext, kind: JobKind, id: JobId) -> Result<AuditedResult<Job>, VaultError> {
        let event = AuditEvent { subject: Some(id.to_string()), ..self.gate.event(call, operations(kind).show) };
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            Ok(Completed::read(permit, self.job(kind, id).await?))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }
}
