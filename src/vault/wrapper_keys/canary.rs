//! The canary of a wrapper key: a random value that it wrapped at registration. A wrapper key that no longer opens its canary is another
//! key, disabled, or out of reach.

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, VaultId, WrapperKey, WrapperKeyId},
    kms::{Cure, Unwrapped, Wrapped, Wrapper, WrapperError},
};

use super::WrapperKeys;

/// The encryption context of a canary: `version`, `vault`, `canary`.
pub fn canary_context(vault: &VaultId, id: WrapperKeyId) -> EncryptionContext {
    EncryptionContext::new(vec![("version", "1".into()), ("vault", vault.to_string()), ("canary", id.to_string())])
}

impl WrapperKeys {
    /// Opens the canary of a wrapper key.
    ///
    /// # Errors
    /// The error of the KMS.
    pub(super) async fn open_canary(&self, key: &WrapperKey, wrapper: &dyn Wrapper) -> Result<(), WrapperError> {
        wrapper.unwrap(&key.canary, &canary_context(&self.env.vault_id, key.id)).await.map(drop)
    }

    /// Probes a wrapper key: opens its canary over its connection. In the log of the KMS, the call has the context of a canary. After a
    /// denial, the next use connects again, so that a key file that was removed or replaced is no longer used.
    ///
    /// # Errors
    /// The error of the KMS.
    pub(super) async fn probe(&self, key: &WrapperKey) -> Result<(), WrapperError> {
        let wrapper = self.connections.get(key).await?;
        let opened = match wrapper.still_there().await {
            Ok(()) => self.open_canary(key, &*wrapper).await,
            Err(error) => Err(error),
        };
        if opened.as_ref().is_err_and(|error| error.cure() != Cure::Time) {
            self.connections.forget(key.id);
        }
        opened
    }
}

/// Wraps a data key, unwraps it and compares: a wrap that does not open would lose the key. `None` if another data key came back.
pub(super) async fn wrap_and_verify(
    wrapper: &dyn Wrapper,
    data_key: &SecretBytes,
    context: &EncryptionContext,
) -> Result<Option<Vec<u8>>, WrapperError> {
    let Wrapped { bytes, receipt: _ } = wrapper.wrap(data_key, context).await?;
    let Unwrapped { data_key: unwrapped, receipt: _ } = wrapper.unwrap(&bytes, context).await?;
    Ok(unwrapped.same(data_key).then_some(bytes))
}
