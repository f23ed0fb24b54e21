//! Requests that end before an operation starts: they exceed a limit, or cannot be parsed. They are audited too.

use crate::domain::{AuditEvent, KeyId, Operation, Principal};

use super::{CallContext, RequestSlot, Vault, VaultError};

impl Vault {
    /// The place of a request, within the limits of its kind of work. It is released on drop.
    ///
    /// # Errors
    /// `TooMany`. The caller passes it to [`Vault::reject`].
    pub async fn enter(&self, principal: &Principal, operation: Operation) -> Result<RequestSlot, VaultError> {
        self.limits.enter(principal, operation).await
    }

    /// Records a request that could not be processed, and returns the error for the caller.
    pub async fn reject(&self, call: &CallContext, operation: Operation, key: Option<KeyId>, error: VaultError) -> VaultError {
        let event = AuditEvent { key, ..self.gate.event(call, operation) };
        match self.gate.refuse::<()>(event, error.clone()).await {
            Ok(()) => error,
            Err(refused) => refused,
        }
    }
}
