//! `decrypt`: the plaintext of a ciphertext. All failures of a decryption are the same error.

use sha2::{Digest, Sha256};

use crate::{
    crypto::SecretBytes,
    domain::{Algorithm, AuditEvent, KeyId, Operation},
};

use super::use_key::{KeyOperationResult, KeyUse};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

impl Vault {
    /// Decrypts `ciphertext` (at most 6144 bytes). A superseded key still decrypts.
    ///
    /// # Errors
    /// `DecryptionFailed` for every fault of the ciphertext, otherwise as [`Vault::sign`].
    pub async fn decrypt(
        &self,
        call: &CallContext,
        id: KeyId,
        algorithm: Algorithm,
        ciphertext: Vec<u8>,
    ) -> Result<AuditedResult<SecretBytes>, VaultError> {
        let digest = Sha256::digest(&ciphertext).into();
        let event =
            AuditEvent { key: Some(id), algorithm: Some(algorithm), digest: Some(digest), ..self.gate.event(call, Operation::Decrypt) };
        let aad = id.to_string();
        self.use_key(event, id, KeyUse::Decrypt, move |key, _| {
            Ok(KeyOperationResult { value: key.private.decrypt(algorithm, &ciphertext, aad.as_bytes())?, digest: None })
        })
        .await
    }
}
