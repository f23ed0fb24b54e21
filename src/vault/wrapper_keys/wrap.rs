//! Wrapping of new data keys under the active wrapper key.

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsUse, WrapperKeyId},
};

use super::{WrapperKeys, canary::wrap_and_verify};
use crate::vault::VaultError;

impl WrapperKeys {
    /// Wraps a data key under the active wrapper key, and verifies the wrap by unwrapping it. Returns the wrapper key and the wrap.
    ///
    /// # Errors
    /// The errors of [`WrapperKeys::active`] and of the KMS; `Internal` if the wrap opens to another data key.
    pub(in crate::vault) async fn wrap(
        &self,
        data_key: &SecretBytes,
        context: &EncryptionContext,
        kms: &mut KmsUse,
    ) -> Result<(WrapperKeyId, Vec<u8>), VaultError> {
        let active = self.active().await?;
        let wrapper = self.connect(&active).await?;
        let verified = wrap_and_verify(&*wrapper, data_key, context).await;
        self.health.record_call(active.id, &verified);
        let wrap = verified?.ok_or(VaultError::Internal("a new wrap opens to another data key"))?;
        kms.took_part(active.id);
        Ok((active.id, wrap))
    }
}
