//! `sign`: a signature over a message. A digest computed by the caller is never signed.

use sha2::{Digest, Sha256};

use crate::domain::{Algorithm, AuditEvent, KeyId, Operation, SignatureFormat};

use super::use_key::{KeyOperationResult, KeyUse};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The bytes, in the format.
    pub bytes: Vec<u8>,
    /// The format.
    pub format: SignatureFormat,
}

impl Vault {
    /// Signs `message` (at most 4096 bytes). Ed25519 gives 64 bytes, ECDSA a DER sequence.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `State`, `UnsupportedAlgorithm`, `Frozen`, `TooMany`; the errors of the wrapper keys, the store and the audit log.
    pub async fn sign(
        &self,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        message: Vec<u8>,
    ) -> Result<AuditedResult<Signature>, VaultError> {
        let digest = Sha256::digest(&message).into();
        let event =
            AuditEvent { key: Some(id), algorithm: Some(algorithm), digest: Some(digest), ..self.gate.event(call, Operation::Sign) };
        self.use_key(event, id, KeyUse::SignMessage, move |key, scheme| {
            let bytes = key.private.sign(algorithm, &message)?;
            let format = scheme.signature_format().ok_or(VaultError::UnsupportedAlgorithm(algorithm))?;
            Ok(KeyOperationResult { value: Signature { bytes, format }, digest: None })
        })
        .await
    }
}
