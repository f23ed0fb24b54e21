//! The status of the vault, from what this process knows. It calls neither the KMS nor the store.

use crate::{
    domain::{Operation, WrapperKeyId},
    storage::{Replica, Replication, StoreError},
};

use super::{AuditedResult, CallContext, Code, Reason, Vault, VaultError, audit_gate::Completed, sink_states::FailingSink};

/// The status of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether any use of a key can succeed.
    pub ready: bool,
    /// Whether there is a fault.
    pub degraded: bool,
    /// All faults.
    pub reasons: Vec<Fault>,
    /// The version of the program.
    pub version: String,
    /// The version of the database schema.
    pub schema: u32,
    /// The revision of the policy.
    pub policy_revision: String,
    /// The active wrapper key.
    pub active_wrapper: Option<WrapperKeyId>,
    /// The processes over a shared store. Empty if the store belongs to this process.
    pub replicas: Vec<Replica>,
}

/// A fault of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The code that calls get.
    pub code: Code,
    /// The reason of the KMS.
    pub reason: Option<Reason>,
    /// What has the fault, and what the vault waits for. Without the names of keys in a KMS and without paths, because `/readyz` shows it to
    /// everybody.
    pub detail: Option<String>,
}

impl Fault {
    /// Adds the detail of another fault with the same code and reason.
    pub(super) fn add(&mut self, detail: &str) {
        let before = self.detail.get_or_insert_default();
        if !before.is_empty() {
            before.push_str("; ");
        }
        before.push_str(detail);
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self { code, reason: None, detail: None }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        // Other texts are of the driver, and can name hosts.
        let detail = match error {
            StoreError::ReadOnly | StoreError::DiskFull | StoreError::TooSlow(_) => error.to_string(),
            _ => "the database cannot be reached or read; the vault retries".into(),
        };
        Self { code: Code::StorageUnavailable, reason: None, detail: Some(detail) }
    }
}

impl From<FailingSink<'_>> for Fault {
    fn from(FailingSink { name, required, fault }: FailingSink<'_>) -> Self {
        let (code, kind) = if required { (Code::AuditUnavailable, "required") } else { (Code::SinkFailing, "best-effort") };
        Self { code, reason: None, detail: Some(format!("the {kind} audit sink {name}: {fault}")) }
    }
}

impl Vault {
    /// Shows the status to any principal.
    ///
    /// # Errors
    /// `AuditUnavailable`.
    pub async fn show_status(&self, call: &CallContext) -> Result<AuditedResult<Status>, VaultError> {
        let event = self.gate.event(call, Operation::Status);
        let result = self.gate.permit_vault(&event).map(|permit| Completed::read(permit, self.status()));
        self.gate.conclude(event, result).await
    }

    /// The status, for the health endpoints.
    pub fn status(&self) -> Status {
        let (faults, wrapper_keys_down) = self.wrapper_keys.faults();
        let (stopping, audit_failing, frozen) = (self.gate.stopping(), self.gate.audit_failing(), self.gate.frozen());
        let replication = self.env.store.replication();
        let store_fault = replication.and_then(Replication::fault);
        let store_down = store_fault.is_some();
        let reasons: Vec<Fault> =
            [stopping.then_some(Code::ShuttingDown), audit_failing.then_some(Code::AuditUnavailable), frozen.then_some(Code::Frozen)]
                .into_iter()
                .flatten()
                .map(Fault::from)
                .chain(store_fault.map(Fault::from))
                .chain(self.gate.sinks().failing().map(Fault::from))
                .chain(faults)
                .collect();
        let sink_failing = self.gate.sinks().failing().any(|sink| sink.required);
        // While the KMS is down, cached keys still work.
        let no_use_can_succeed =
            stopping || audit_failing || store_down || sink_failing || frozen || (wrapper_keys_down && self.key_cache.is_empty());
        Status {
            ready: !no_use_can_succeed,
            degraded: !reasons.is_empty(),
            reasons,
            version: self.version.clone(),
            schema: self.env.store.schema(),
            policy_revision: self.gate.policy().revision().to_string(),
            active_wrapper: self.wrapper_keys.known_active(),
            replicas: replication.map(Replication::replicas).unwrap_or_default(),
        }
    }
}
