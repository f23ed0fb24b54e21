//! `encrypt`: encryption under a symmetric key. Callers encrypt with public keys themselves.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{
    crypto::SecretBytes,
    domain::{Algorithm, AuditEvent, KeyId, Operation},
};

use super::use_key::{KeyOperationResult, KeyUse};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

impl Vault {
    /// Encrypts `plaintext` (at most 4096 bytes): `0x01 ‖ nonce(12) ‖ ciphertext ‖ tag(16)`, bound to the key id.
    ///
    /// # Errors
    /// As [`Vault::sign`].
    pub async fn encrypt(
        &self,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        plaintext: SecretBytes,
    ) -> Result<AuditedResult<Vec<u8>>, VaultError> {
        let event = AuditEvent { key: Some(id), algorithm: Some(algorithm), ..self.gate.event(call, Operation::Encrypt) };
        let (aad, random) = (id.to_string(), Arc::clone(&self.env.random));
        self.use_key(event, id, KeyUse::Encrypt, move |key, _| {
            let value = key.private.encrypt(algorithm, plaintext.expose(), aad.as_bytes(), random.as_ref())?;
            let digest = Some(Sha256::digest(&value).into());
            Ok(KeyOperationResult { value, digest })
        })
        .await
    }
}
