//! Summaries of the audit log: how many calls there were.

use crate::{
    domain::Operation,
    storage::{MAX_GROUPS, Totals, TotalsQuery},
};

use super::{AuditedResult, CallContext, KeySelector, Vault, VaultError, audit_gate::Completed};

impl Vault {
    /// Counts calls about the nodes that the caller may see. `query.nodes` is replaced by these, and `query.key` by the key that `key` names.
    ///
    /// # Errors
    /// `InvalidRequest` if the key is not clear, nothing or something twice is counted by, or there are too many groups; `Forbidden`,
    /// `StorageUnavailable` or `AuditUnavailable`.
    pub async fn summarize_audit(
        &self,
        call: &CallContext,
        key: Option<KeySelector>,
        query: TotalsQuery,
    ) -> Result<AuditedResult<Totals>, VaultError> {
        let event = self.gate.event(call, Operation::SummarizeAudit);
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let repeated = |(number, dimension)| query.by.iter().skip(number + 1).any(|other| other == dimension);
            if query.by.is_empty() || query.by.iter().enumerate().any(repeated) {
                return Err(VaultError::InvalidRequest("by: supply one or more values, each once".into()));
            }
            let key = match key {
                Some(selector) => Some(self.select_key(&selector, permit.nodes()).await?),
                None => None,
            };
            let totals = self.env.store.totals(TotalsQuery { nodes: permit.nodes().clone(), key, ..query }).await?;
            if totals.groups.len() > MAX_GROUPS {
                return Err(VaultError::InvalidRequest(format!(
                    "by: there are more than {MAX_GROUPS} groups. Use filters, or fewer values of by"
                )));
            }
            Ok(Completed::read(permit, totals))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }
}
