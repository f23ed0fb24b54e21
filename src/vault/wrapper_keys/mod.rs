//! Wrapper keys: registration, rotation of wraps, replication, retirement, and wrapping and unwrapping of data keys.
//!
//! No file in this folder opens a private key.

mod bootstrap;
mod canary;
mod health;
mod list;
mod register;
mod replicate;
mod retire;
mod rewrap;
mod show;
mod unwrap;
mod wrap;
mod wrap_order;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    domain::{WrapperKey, WrapperKeyId, WrapperState},
    kms::{Connections, Providers, Wrapper, WrapperError},
    storage::WrapperKeyUse,
};

use self::health::HealthTracker;
use super::{Fault, VaultError, audit_gate::AuditGate, environment::Environment};

pub(super) use self::unwrap::DataKey;
pub use self::{
    canary::canary_context,
    health::WrapperHealth,
    list::WrapperKeyView,
    register::NewWrapperKey,
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
}

impl WrapperKeys {
    pub(super) fn new(env: Arc<Environment>, gate: Arc<AuditGate>, providers: Arc<Providers>) -> Self {
        Self {
            env,
            gate,
            connections: Connections::new(Arc::clone(&providers)),
            providers,
            snapshot: ArcSwap::from_pointee((0, Arc::default())),
            health: HealthTracker::default(),
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
        WrapperKeyView { key, keys, last_used_at, health, fault }
    }

    /// All known faults of wrapper keys in use, each once, and whether no wrapper key in use works.
    pub(super) fn faults(&self) -> (Vec<Fault>, bool) {
        let keys = Arc::clone(&self.snapshot.load().1);
        let in_use = || keys.iter().filter(|key| key.state != WrapperState::Retired);
        let all_failing = in_use().all(|key| self.health.fault(key.id).is_some());
        let mut faults = Vec::new();
        for fault in in_use().filter_map(|key| self.health.fault(key.id)) {
            let fault = VaultError::Wrapper(fault).fault();
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        if faults.is_empty() && self.known_active().is_none() {
            faults.push(self.no_wrapper_key().fault());
        }
        (faults, all_failing)
    }
}
