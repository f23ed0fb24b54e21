//! `decrypt`: a plaintext for whoever may use the key; every way to fail is one error.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{
    crypto::SecretBytes,
    domain::{Algorithm, AuditEvent, KeyId, Operation},
};

use super::use_key::{KeyOperationResult, RequiredState};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

impl Vault {
    /// Decrypts `ciphertext` (at most 6144 bytes). A superseded key still decrypts.
    ///
    /// # Errors
    /// `DecryptionFailed` for every fault of the ciphertext, else as [`Vault::sign`].
    pub async fn decrypt(
        self: &Arc<Self>,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        ciphertext: Vec<u8>,
    ) -> Result<AuditedResult<SecretBytes>, VaultError> {
        let digest = Sha256::digest(&ciphertext).into();
        let event = AuditEvent { key: Some(id), algorithm: Some(algorithm), digest: Some(digest), ..self.event(call, Operation::Decrypt) };
        let aad = id.to_string();
        self.use_key(event, id, RequiredState::ActiveOrSuperseded, move |ready, _| {
            Ok(KeyOperationResult { value: ready.private.decrypt(algorithm, &ciphertext, aad.as_bytes())?, digest: None })
        })
        .await
    }
}
