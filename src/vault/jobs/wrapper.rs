//! Recovery by itself: a vault that started without its KMS registers its first wrapper key late, and one that lost it looks again.

use crate::{
    domain::WrapperState,
    vault::{Vault, VaultError},
    wrapper::WrapperError,
};

impl Vault {
    /// Registers the first wrapper key, asks the active one whether a fault is over, and holds it once against the configuration.
    pub(in crate::vault) async fn watch_wrapper(&self) {
        let Ok(keys) = self.wrapper_keys().await else { return };
        let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active) else {
            match self.bootstrap().await {
                Ok(()) => tracing::info!("the first wrapper key is registered"),
                Err(error) => tracing::warn!(%error, "there is no wrapper key yet; this is tried again"),
            }
            return;
        };
        if self.health.wants_canary() {
            self.probe(active).await;
        }
        if self.health.wrapper_fault().is_none() && self.health.wants_comparison() {
            match self.differs_from_configured(active).await {
                Ok(None) => {}
                Ok(Some(warning)) => tracing::warn!("{warning}"),
                // Asked again once the KMS answers.
                Err(VaultError::Wrapper(WrapperError::Unavailable { .. })) => return,
                Err(error) => tracing::warn!(
                    active = %active.reference,
                    "the wrapper key of the configuration cannot be looked at ({error}); the store decides, and its wrapper key is used"
                ),
            }
            self.health.compared();
        }
    }
}
