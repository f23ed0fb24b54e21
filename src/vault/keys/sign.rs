//! `sign`: a signature over a message. A digest computed by the caller is never signed.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::{Algorithm, AuditEvent, KeyId, Operation, SignatureFormat};

use super::use_key::{FurtherUse, KeyOperationResult, KeyUse};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The bytes, in the format.
    pub bytes: Vec<u8>,
    /// The format.
    pub format: SignatureFormat,
}

/// One message of several.
#[derive(Debug, Clone)]
pub struct BatchMessage {
    /// At most 4096 bytes.
    pub bytes: Vec<u8>,
    /// The W3C trace id of what the message belongs to, if it is another one than that of the call.
    pub trace_id: Option<Arc<str>>,
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

    /// Signs several messages with one key: each as by [`Self::sign`] and with an entry of its own, all or none. The signatures are in their order.
    ///
    /// # Errors
    /// As [`Self::sign`], and `InvalidRequest` without a message.
    pub async fn sign_batch(
        &self,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        messages: Vec<BatchMessage>,
    ) -> Result<AuditedResult<Vec<Signature>>, VaultError> {
        let mut uses = messages.iter().map(|BatchMessage { bytes, trace_id }| {
            let trace_id = trace_id.clone();
            FurtherUse { digest: Sha256::digest(bytes).into(), trace_id }
        });
        let first = uses.next().ok_or_else(|| VaultError::InvalidRequest("messages: there is none".into()))?;
        let further: Vec<_> = uses.collect();
        let event = self.gate.event(call, Operation::Sign);
        let trace_id = first.trace_id.or(event.trace_id);
        let event = AuditEvent { key: Some(id), algorithm: Some(algorithm), digest: Some(first.digest), trace_id, ..event };
        self.use_key_repeatedly(event, &further, id, KeyUse::SignMessage, move |key, scheme, number| {
            let message = messages.get(number).ok_or(VaultError::Internal("a use without a message"))?;
            let bytes = key.private.sign(algorithm, &message.bytes)?;
            let format = scheme.signature_format().ok_or(VaultError::UnsupportedAlgorithm(algorithm))?;
            Ok(KeyOperationResult { value: Signature { bytes, format }, digest: None })
        })
        .await
    }
}
