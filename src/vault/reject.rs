//! Calls that end before a verb: malformed requests and unaccepted certificates are entries too.

use crate::domain::{AuditEvent, KeyId, Operation};

use super::{Call, Vault, VaultError};

impl Vault {
    /// Records a request that could not be read, and gives the error back.
    pub async fn reject(&self, call: &Call, operation: Operation, key: Option<KeyId>, error: VaultError) -> VaultError {
        let event = AuditEvent { key, ..self.event(call, operation) };
        match self.refuse::<()>(event, error.clone()).await {
            Ok(()) => error,
            Err(refused) => refused,
        }
    }
}
