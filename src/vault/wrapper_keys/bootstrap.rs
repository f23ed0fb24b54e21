//! The first wrapper key of an empty store, and the recovery of wrapper keys after a fault.

use std::time::Instant;

use futures_util::future::join_all;

use crate::{
    domain::{Operation, WrapperKey, WrapperState},
    kms::{Providers, WrapperError},
    storage::Change,
    traces::in_trace,
};

use super::WrapperKeys;
use crate::vault::{Code, VaultError};

impl WrapperKeys {
    /// Registers the wrapper key of `[wrapper]` in the configuration, if the store has no active one. A store that has one ignores the
    /// configuration.
    ///
    /// # Errors
    /// The error of the KMS or of the commit. [`WrapperKeys::monitor`] retries, so that a vault that started without its KMS recovers.
    pub(in crate::vault) async fn bootstrap(&self) -> Result<(), VaultError> {
        let result = self.env.kms_calls.operation(Box::pin(self.try_bootstrap())).await;
        match &result {
            Ok(()) => {
                self.fault_log.ended(None);
            }
            Err(error) => {
                if self.fault_log.is_due(None, error.reason(), Instant::now()) {
                    tracing::warn!(reason = error.reason().map(tracing::field::display), "{}", error.without_wrapper_key());
                }
            }
        }
        result
    }

    async fn try_bootstrap(&self) -> Result<(), VaultError> {
        if self.registered().await?.iter().any(|key| key.state == WrapperState::Active) {
            return Ok(());
        }
        let config = self.providers.config();
        let mut event = self.gate.system_event(Operation::BootstrapWrapperKey);
        let verified = Box::pin(async {
            let found = self.providers.resolve(config.provider, &config.reference, &[]).await?;
            self.verify_new(config.provider, found).await
        });
        let verified = self.env.traced("register first wrapper key", verified, |_| {}).await;
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

    /// Registers the first wrapper key if there is none, probes the wrapper keys in use when it is due, logs their faults, and compares the
    /// active one with the configuration once.
    pub(in crate::vault) async fn monitor(&self) {
        let Ok(keys) = self.registered().await else { return };
        let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active) else {
            // It logs its fault itself.
            let _ = self.bootstrap().await;
            return;
        };
        let in_use = || keys.iter().filter(|key| key.state != WrapperState::Retired);
        let probes = in_use().filter(|key| self.health.needs_probe(key.id)).map(async |key| {
            let probe = in_trace(self.env.tracer.as_ref(), "probe wrapper key", Box::pin(self.probe(key)), |span, opened| {
                span.text("keyvault.wrapper_key", key.id.to_string());
                if let Err(error) = opened {
                    span.failed(Code::of_wrapper(error.reason()).as_str());
                }
            });
            let result = probe.await;
            self.health.record_canary(key.id, &result);
        });
        join_all(probes).await;
        in_use().for_each(|key| self.log_fault(key));
        self.set_gauge(&keys);
        if self.health.fault(active.id).is_none() && self.health.needs_comparison() {
            match compare_with_configuration(&self.providers, active).await {
                Ok(None) => {}
                Ok(Some(sentence)) => tracing::warn!("{sentence}"),
                // The next run repeats the comparison.
                Err(_) => return,
            }
            self.health.record_comparison();
        }
    }

    fn log_fault(&self, key: &WrapperKey) {
        match self.health.fault(key.id) {
            Some(fault) => {
                let (sentence, reason) = (fault.of_registered(), fault.reason());
                let code = VaultError::Wrapper(fault).code();
                if self.fault_log.is_due(Some(key.id), Some(reason), Instant::now()) {
                    tracing::warn!(wrapper_key = %key.id, state = %key.state, %code, %reason, remedy = reason.remedy(), "{sentence}");
                }
            }
            None => {
                if self.fault_log.ended(Some(key.id)) {
                    tracing::info!(wrapper_key = %key.id, "the wrapper key works again");
                }
            }
        }
    }
}

/// The sentence about a configuration that does not name the active wrapper key of the store. `None` if it does.
///
/// # Errors
/// `Unavailable`, if the reference must be resolved and the KMS does not answer.
pub async fn compare_with_configuration(providers: &Providers, active: &WrapperKey) -> Result<Option<String>, WrapperError> {
    let config = providers.config();
    match providers.identity(config.provider, &config.reference).await {
        Ok(configured) if configured == active.identity => Ok(None),
        Ok(configured) => Ok(Some(format!(
            "[wrapper] in the configuration names {} ({configured}), but the active wrapper key of the store is {}, {} ({}). The vault uses \
             the one of the store. To change it, register the other one and start a rotation to it; after a rotation, set reference to the \
             new one",
            config.reference, active.id, active.reference, active.identity
        ))),
        Err(error @ WrapperError::Unavailable { .. }) => Err(error),
        Err(error) => Ok(Some(format!(
            "the wrapper key of the configuration cannot be resolved ({error}); the vault uses the active wrapper key of the store, {}",
            active.reference
        ))),
    }
}
