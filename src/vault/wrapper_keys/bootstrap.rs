//! The first wrapper key of an empty store, and the recovery of wrapper keys after a fault.

use futures_util::future::join_all;

use crate::{
    domain::{Operation, WrapperKey, WrapperState},
    kms::WrapperError,
    storage::Change,
};

use super::WrapperKeys;
use crate::vault::VaultError;

impl WrapperKeys {
    /// Registers the wrapper key of `[wrapper]` in the configuration, if the store has no active one. A store that has one ignores the
    /// configuration.
    ///
    /// # Errors
    /// The error of the KMS or of the commit. [`WrapperKeys::monitor`] retries, so that a vault that started without its KMS recovers.
    pub(in crate::vault) async fn bootstrap(&self) -> Result<(), VaultError> {
        if self.registered().await?.iter().any(|key| key.state == WrapperState::Active) {
            return Ok(());
        }
        let config = self.providers.config();
        let mut event = self.gate.system_event(Operation::BootstrapWrapperKey);
        let verified = async {
            let found = self.providers.resolve(config.provider, &config.reference, &[]).await?;
            self.verify_new(config.provider, found, &mut event.kms).await
        };
        let verified = verified.await;
        if let Err(VaultError::Wrapper(error)) = &verified {
            self.health.record_bootstrap_fault(error);
        }
        let key = verified?;
        let id = key.id;
        event.subject = Some(format!("{} {}", key.id, key.identity));
        self.gate.record_change(Change::InsertWrapperKey(Box::new(key)), event).await?;
        self.registered().await?;
        self.health.record_canary(id, &Ok(()));
        Ok(())
    }

    /// Registers the first wrapper key if there is none, opens the canaries of wrapper keys whose health is not known, and compares the
    /// active one with the configuration once.
    pub(in crate::vault) async fn monitor(&self) {
        let Ok(keys) = self.registered().await else { return };
        let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active) else {
            if let Err(error) = self.bootstrap().await {
                let reason = error.reason().map(tracing::field::display);
                tracing::warn!(reason, %error, "the first wrapper key could not be registered; the vault retries");
            }
            return;
        };
        let unknown = keys.iter().filter(|key| key.state != WrapperState::Retired && self.health.needs_canary(key.id));
        join_all(unknown.map(|key| self.check_canary(key))).await;
        if self.health.fault(active.id).is_none() && self.health.needs_comparison() {
            match self.differs_from_configured(active).await {
                Ok(None) => {}
                Ok(Some(warning)) => tracing::warn!("{warning}"),
                // The next run repeats the comparison.
                Err(VaultError::Wrapper(WrapperError::Unavailable { .. })) => return,
                Err(error) => tracing::warn!(
                    active = %active.reference,
                    "the wrapper key of the configuration cannot be resolved ({error}); the vault uses the active wrapper key of the store"
                ),
            }
            self.health.record_comparison();
        }
    }

    async fn check_canary(&self, key: &WrapperKey) {
        let result = self.connect_and_open_canary(key).await;
        self.health.record_canary(key.id, &result);
    }

    /// A warning that names both wrapper keys, if the configuration names another one than the active one.
    async fn differs_from_configured(&self, active: &WrapperKey) -> Result<Option<String>, VaultError> {
        let config = self.providers.config();
        let configured = self.providers.identity(config.provider, &config.reference).await?;
        Ok((configured != active.identity).then(|| {
            format!(
                "[wrapper] in the configuration names {} ({configured}), but the active wrapper key of the store is {}, {} ({}). The vault \
                 uses the one of the store. To change it, register the other one and start a rotation to it",
                config.reference, active.id, active.reference, active.identity
            )
        }))
    }
}
