//! Putting a vault together, and taking it down.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::{
    crypto::Random,
    domain::{AuditEvent, Clock, Operation, Policy, VaultId, WrapperKeyId, WrapperState},
    kms::{Connections, Providers},
    storage::{Commit, KeyStore},
};

use super::{
    CacheConfig, LimitsConfig, Vault, VaultError,
    audit_gate::{pending_audit::PendingAudit, refusal_throttle::RefusalThrottle},
    background::{JobRateLimit, JobsConfig, progress::Progress},
    health::Health,
    key_cache::{cache::Cache, refresh::RefreshState},
    limits::Limits,
};

/// What a vault is made of.
pub struct VaultConfig {
    /// Its id, bound to every ciphertext.
    pub id: VaultId,
    /// The program's version.
    pub version: String,
    /// Where keys and the log are.
    pub store: Arc<dyn KeyStore>,
    /// Where wrapper keys are.
    pub providers: Arc<Providers>,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Who may do what.
    pub policy: Arc<ArcSwap<Policy>>,
    /// How many keys stay open, and for how long.
    pub cache: CacheConfig,
    /// What one principal may ask for.
    pub limits: LimitsConfig,
    /// How fast work over all keys goes.
    pub jobs: JobsConfig,
}

impl Vault {
    /// Starts a vault: reads the incident switch, and writes the first entry. Needs the store, but no KMS.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(parts: VaultConfig) -> Result<Arc<Self>, VaultError> {
        let VaultConfig { id, version, store, providers, clock, random, policy, cache, limits, jobs } = parts;
        let (frozen, hash_key) = (store.frozen().await?, store.hash_key().await?);
        let vault = Arc::new(Self {
            id,
            version,
            connections: Connections::new(Arc::clone(&providers)),
            providers,
            clock,
            random,
            policy,
            wrapper_keys: ArcSwap::from_pointee((0, Arc::default())),
            cache: Cache::new(&cache),
            refusal_throttle: RefusalThrottle::new(limits.refusals_per_second),
            limits: Limits::new(limits),
            pending_audit: PendingAudit::default(),
            refresh_state: RefreshState::default(),
            health: Health::default(),
            frozen: AtomicBool::new(frozen),
            freeze_lock: Mutex::default(),
            hash_key,
            job_rate_limit: JobRateLimit::new(&jobs),
            job_wakeup: watch::Sender::new(()),
            progress: Progress::default(),
            store,
        });
        let event = AuditEvent { subject: frozen.then(|| "frozen".to_owned()), ..vault.system_event(Operation::Start) };
        vault.write(Commit::entry(event)).await?;
        Ok(vault)
    }

    /// Takes no more calls, wipes every open key, and writes the last entry.
    pub async fn stop(&self) {
        self.health.stop();
        self.cache.wipe_all().await;
        self.write_counted_refusals().await;
        let event = self.system_event(Operation::Stop);
        if let Err(error) = self.write(Commit::entry(event)).await {
            tracing::warn!(%error, "the last entry could not be written");
        }
    }

    /// From now on no use is taken; answers under way are finished.
    pub fn drain(&self) {
        self.health.stop();
    }

    /// Writes the entry of trust or grants that were read anew, and are in force already; `what` names them.
    pub async fn reloaded(&self, what: &str) {
        let event = AuditEvent { subject: Some(what.to_owned()), ..self.system_event(Operation::Reload) };
        if let Err(error) = self.write(Commit::entry(event)).await {
            tracing::error!(%error, "a reload could not be recorded");
        }
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Whether the incident switch is on.
    pub(super) fn frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// The active wrapper key, as far as this process has seen one.
    pub(super) fn known_active(&self) -> Option<WrapperKeyId> {
        self.wrapper_keys.load().1.iter().find(|key| key.state == WrapperState::Active).map(|key| key.id)
    }
}
