//! Recovery by itself: a vault that started without its KMS registers its first wrapper key late, and one that lost it looks again.

use futures_util::future::join_all;

use crate::{
    domain::WrapperState,
    kms::WrapperError,
    vault::{Vault, VaultError},
};

impl Vault {
    /// Registers the first wrapper key, asks those in use whether a fault is over, and holds the active one once against the configuration.
    pub(in crate::vault) async fn watch_wrapper(&self) {
        let Ok(keys) = self.wrapper_keys().await else { return };
        let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active) else {
            match self.bootstrap().await {
                Ok(()) => tracing::info!("the first wrapper key is registered"),
                Err(error) => tracing::warn!(%error, "there is no wrapper key yet; this is tried again"),
            }
            return;
        };
        let in_doubt = keys.iter().filter(|key| key.state != WrapperState::Retired && self.health.wants_canary(key.id));
        join_all(in_doubt.map(|key| self.probe(key))).await;
        if self.health.wrapper_fault(active.id).is_none() && self.health.wants_comparison() {
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
