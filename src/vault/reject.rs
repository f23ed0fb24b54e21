//! Calls that end before a verb: malformed requests and unaccepted certificates are entries too.

use crate::domain::{AuditEvent, KeyId, Operation, Principal};

use super::{CallContext, Slot, Vault, VaultError};

impl Vault {
    /// A place among the requests of a principal, held for as long as its call is worked on.
    ///
    /// # Errors
    /// `TooMany`, to be [rejected](Self::reject).
    pub fn enter(&self, principal: &Principal) -> Result<Slot, VaultError> {
        self.limits.request(principal)
    }

    /// Records a request that could not be read, and gives the error back.
    pub async fn reject(&self, call: &CallContext, operation: Operation, key: Option<KeyId>, error: VaultError) -> VaultError {
        let event = AuditEvent { key, ..self.event(call, operation) };
        match self.refuse::<()>(event, error.clone()).await {
            Ok(()) => error,
            Err(refused) => refused,
        }
    }
}
