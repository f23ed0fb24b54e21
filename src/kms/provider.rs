//! The `Provider` trait: what one kind of KMS implements. Each provider is one folder and one line in the table in `kms`.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    crypto::Random,
    domain::{ProviderKind, WrapperKey},
};

use super::{
    CreateOptions, Description, KmsCalls, Wrapper, WrapperConfig, WrapperError,
    allowlist::Allowlist,
    resilience::{CallRateLimit, Circuits, DenialCache, RegionalWrapper, ResilientWrapper},
};
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
use super::{Denial, call_error::CallError};

/// One kind of KMS.
#[async_trait]
pub(super) trait Provider: Send + Sync {
    /// Resolves a reference by asking the KMS.
    ///
    /// # Errors
    /// [`WrapperError`]; `Unfit` if the reference is not valid, `NotAllowed` if the configuration does not allow the key.
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError>;

    /// The identity of a reference that contains it. `None` if the KMS must be asked.
    fn identity_in(&self, reference: &str) -> Option<String> {
        let _ = reference;
        None
    }

    /// Connects to a registered wrapper key, if the configuration allows it. Does not call the KMS.
    ///
    /// # Errors
    /// `NotAllowed`, or `Misconfigured` if the registered attributes contradict each other or the configuration.
    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError>;

    /// Creates a wrapper key.
    ///
    /// # Errors
    /// [`WrapperError`]; `NotAllowed` or `Unfit` before anything is created.
    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError>;

    /// Whether a replica of a registered key can be created in `region`. Does not call the KMS.
    ///
    /// # Errors
    /// `Unfit` or `NotAllowed`.
    fn may_replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        Err(unfit(&key.reference, &format!("only a multi-Region key of AWS KMS can have a replica in {region}")))
    }

    /// Creates a replica of a registered key in `region`, unless there is one.
    ///
    /// # Errors
    /// [`WrapperError`]; `Unfit` or `NotAllowed` before anything is created.
    async fn replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        self.may_replicate(key, region)
    }

    /// Whether patterns of the configuration match a registered key.
    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool;

    /// The state of each configured server: `Ok` with what was found, or `Err` with the fault and its fix.
    async fn check_servers(&self) -> Vec<Result<String, String>> {
        Vec::new()
    }
}

/// The entry of a provider in the table of providers.
pub(super) struct ProviderEntry {
    /// The kind, as stored and as in the API.
    pub(super) kind: ProviderKind,
    /// The pattern that allows the configured reference and nothing else, for an empty `[wrapper] allowed`.
    ///
    /// # Errors
    /// Why there is no such pattern, and what to configure.
    pub(super) own_pattern: fn(reference: &str) -> Result<String, String>,
    /// The warning at every start, if there is one.
    pub(super) warning: fn(reference: &str) -> Option<String>,
    /// Makes the provider. Calls no KMS.
    pub(super) new: fn(Arc<Settings>) -> Box<dyn Provider>,
}

/// What all providers share: the configuration, the allowlist, the source of randomness, the calls that no audit entry has yet, and the circuit
/// breakers.
pub(super) struct Settings {
    pub(super) config: WrapperConfig,
    pub(super) allowed: Allowlist,
    pub(super) random: Arc<dyn Random>,
    pub(super) calls: Arc<KmsCalls>,
    pub(super) circuits: Circuits,
}

impl Settings {
    /// Adds timeouts, retries, rate limit, circuit breakers and failover to a wrapper key.
    pub(super) fn resilient(
        &self,
        reference: &str,
        regional_wrappers: Vec<RegionalWrapper>,
        rate_limit: Arc<CallRateLimit>,
    ) -> ResilientWrapper {
        self.circuits.add(&regional_wrappers);
        ResilientWrapper {
            reference: reference.to_owned(),
            regional_wrappers,
            rate_limit,
            limits: self.config.limits.clone(),
            failover_on_denied: self.config.failover_on_denied,
            random: Arc::clone(&self.random),
            denial_cache: DenialCache::default(),
        }
    }
}

/// The error of a request that cannot be fulfilled.
pub(super) fn unfit(reference: &str, what: &str) -> WrapperError {
    WrapperError::Unfit { reference: reference.to_owned(), what: what.to_owned() }
}

/// Refuses a key that cannot be registered: it is of another kind, or the KMS does not permit its use now.
///
/// # Errors
/// `Unfit` or `Denied`.
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
pub(super) fn check_registrable(reference: &str, unfit: Option<String>, refusal: Option<Denial>) -> Result<(), WrapperError> {
    if let Some(what) = unfit {
        return Err(WrapperError::Unfit { reference: reference.to_owned(), what });
    }
    refusal.map_or(Ok(()), |denial| Err(CallError::Denied(denial).about(reference)))
}

/// The error of a configuration, a file or a registered key that cannot be used.
pub(super) fn misconfigured(reference: &str, what: &str) -> WrapperError {
    WrapperError::Misconfigured { reference: reference.to_owned(), what: what.to_owned() }
}
