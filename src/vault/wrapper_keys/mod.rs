//! Wrapper keys: registration, rotation of wraps, replication, retirement, and wrapping and unwrapping of data keys.
//!
//! No file in this folder opens a private key.

mod bootstrap;
mod canary;
mod coverage;
mod fault_log;
mod health;
mod list;
mod posture;
mod register;
mod rename;
mod replicate;
mod retire;
mod rewrap;
mod show;
mod unwrap;
mod wrap;
mod wrap_order;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{
    domain::{WrapperKey, WrapperKeyId, WrapperState},
    kms::{Connections, Providers, Wrapper, WrapperError},
    storage::WrapperKeyUse,
};

use self::{
    coverage::{ActiveCoverage, CoverageTracker},
    fault_log::FaultLog,
    health::HealthTracker,
};
use super::{Code, Fault, VaultError, audit_gate::AuditGate, environment::Environment};

pub(super) use self::unwrap::DataKey;
pub use self::{
    bootstrap::compare_with_configuration,
    canary::canary_context,
    coverage::active_coverage_fault,
    health::WrapperHealth,
    list::WrapperKeyView,
    register::{NewWrapperKey, WrapperKeyOrigin},
    retire::{Retired, WrapperKeyInUse},
    show::KmsStatus,
};

/// The registered wrapper keys, their connections to the KMS and their health.
pub(super) struct WrapperKeys {
    env: Arc<Environment>,
    gate: Arc<AuditGate>,
    providers: Arc<Providers>,
    connections: Connections,
    /// The registered wrapper keys at a revision of the store.
    snapshot: ArcSwap<(u64, Arc<Vec<WrapperKey>>)>,
    health: HealthTracker,
    fault_log: FaultLog,
    coverage: CoverageTracker,
}

impl WrapperKeys {
    pub(super) fn new(env: Arc<Environment>, gate: Arc<AuditGate>, providers: Arc<Providers>) -> Self {
        let health = HealthTracker::new(providers.config().probe_interval, Arc::clone(&env.random));
        Self {
            env,
            gate,
            connections: Connections::new(Arc::clone(&providers)),
            providers,
            snapshot: ArcSwap::from_pointee((0, Arc::default())),
            health,
            fault_log: FaultLog::default(),
            coverage: CoverageTracker::default(),
        }
    }

    /// The registered wrapper keys. Reads the store only if its revision changed.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub(super) async fn registered(&self) -> Result<Arc<Vec<WrapperKey>>, VaultError> {
        let revision = self.env.store.known_revision();
        let known = self.snapshot.load_full();
        if known.0 == revision && !known.1.is_empty() {
            return Ok(Arc::clone(&known.1));
        }
        let keys: Arc<Vec<WrapperKey>> = Arc::new(self.env.store.wrapper_keys().await?);
        self.snapshot.store(Arc::new((revision, Arc::clone(&keys))));
        self.health.retain(&keys);
        Ok(keys)
    }

    /// The active wrapper key, under which new data keys are wrapped.
    ///
    /// # Errors
    /// `StorageUnavailable`, or why there is no active wrapper key.
    pub(super) async fn active(&self) -> Result<WrapperKey, VaultError> {
        let keys = self.registered().await?;
        keys.iter().find(|key| key.state == WrapperState::Active).cloned().ok_or_else(|| self.no_wrapper_key())
    }

    /// The active wrapper key of the last snapshot. Does not read the store.
    pub(super) fn known_active(&self) -> Option<WrapperKeyId> {
        self.snapshot.load().1.iter().find(|key| key.state == WrapperState::Active).map(|key| key.id)
    }

    /// Why there is no active wrapper key: the error of the bootstrap, which a retry may not cure, or else `NoWrapperKey`.
    fn no_wrapper_key(&self) -> VaultError {
        self.health.bootstrap_fault().map_or(VaultError::NoWrapperKey, VaultError::Wrapper)
    }

    /// Connects to a registered wrapper key, or reuses the connection.
    ///
    /// # Errors
    /// As [`Connections::get`]. The error is recorded in the health of the wrapper key.
    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrapper = self.connections.get(key).await;
        if wrapper.is_err() {
            self.health.record_call(key.id, &wrapper);
        }
        wrapper
    }

    /// A wrapper key with its use and its health.
    fn view(&self, found: WrapperKeyUse) -> WrapperKeyView {
        let WrapperKeyUse { key, keys, last_used_at } = found;
        let (health, fault) = (self.health.of(key.id), self.health.fault(key.id));
        let coverage = self.active_coverage().filter(|coverage| coverage.wrapper_key == key.id);
        let (left, incomplete) = (coverage.map(|coverage| coverage.keys.left()), coverage.and_then(ActiveCoverage::fault));
        WrapperKeyView { key, keys, last_used_at, health, fault, left, incomplete }
    }

    /// All known faults of wrapper keys in use, each code and reason once, and whether no wrapper key in use works.
    pub(super) fn faults(&self) -> (Vec<Fault>, bool) {
        let keys = Arc::clone(&self.snapshot.load().1);
        let in_use = || keys.iter().filter(|key| key.state != WrapperState::Retired);
        let all_failing = in_use().all(|key| self.health.fault(key.id).is_some());
        let mut faults: Vec<Fault> = Vec::new();
        for (key, fault) in in_use().filter_map(|key| Some((key, self.health.fault(key.id)?))) {
            let detail = format!("{} ({}): {}; {}", key.id, key.state, fault.cause(), fault.cure().awaited());
            let fault = VaultError::Wrapper(fault).fault(detail);
            match faults.iter_mut().find(|other| (other.code, other.reason) == (fault.code, fault.reason)) {
                Some(other) => other.add(fault.detail.as_deref().unwrap_or_default()),
                None => faults.push(fault),
            }
        }
        if faults.is_empty() && self.known_active().is_none() {
            let detail = self.health.bootstrap_fault().map_or_else(
                || "no wrapper key is registered yet".to_owned(),
                |fault| format!("no wrapper key is registered yet: {}; {}", fault.cause(), fault.cure().awaited()),
            );
            faults.push(self.no_wrapper_key().fault(detail));
        }
        if let Some(detail) = self.active_coverage().and_then(ActiveCoverage::fault) {
            faults.push(Fault { code: Code::RotationIncomplete, reason: None, detail: Some(detail) });
        }
        (faults, all_failing)
    }

    /// How often [`WrapperKeys::monitor`] is to be called.
    pub(super) fn monitor_interval(&self) -> Duration {
        self.health.look_interval()
    }

    /// Sets the gauge of wrapper keys by state and health.
    #[expect(clippy::cast_precision_loss, reason = "a gauge does not need the precision")]
    fn set_gauge(&self, keys: &[WrapperKey]) {
        for (state, health) in WrapperState::ALL.iter().flat_map(|state| WrapperHealth::ALL.iter().map(move |health| (*state, *health))) {
            let number = keys.iter().filter(|key| key.state == state && self.health.of(key.id) == health).count();
            metrics::gauge!("keyvault_wrapper_keys", "state" => state.as_str(), "health" => health.as_str()).set(number as f64);
        }
    }
}
