//! `sign`: a signature over a message, never over a digest that a caller made.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::{Algorithm, AuditEvent, KeyId, Operation};

use super::use_key::{KeyOperationResult, RequiredState};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

impl Vault {
    /// Signs `message` (at most 4096 bytes). Ed25519 gives 64 bytes, ECDSA a DER sequence.
    ///
    /// # Errors
    /// `VaultError`, by its code: what the key's state, the gate, the wrapper key or the log forbids.
    pub async fn sign(
        self: &Arc<Self>,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        message: Vec<u8>,
    ) -> Result<AuditedResult<Vec<u8>>, VaultError> {
        let digest = Sha256::digest(&message).into();
        let event = AuditEvent { key: Some(id), algorithm: Some(algorithm), digest: Some(digest), ..self.event(call, Operation::Sign) };
        self.use_key(event, id, RequiredState::Active, move |ready, _| {
            Ok(KeyOperationResult { value: ready.private.sign(algorithm, &message)?, digest: None })
        })
        .await
    }
}
