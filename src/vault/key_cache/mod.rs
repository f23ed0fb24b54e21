//! The key cache: the private keys that are open in memory, and every check between a stored row and an open key.

mod cached_key;
mod entries;
mod quarantine;
mod refresh;
mod unseal;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::{AuditEvent, KeyId, KmsUse, Permit};

pub use self::entries::CacheConfig;
pub(super) use self::{
    cached_key::{CachedKey, OpenKey},
    unseal::{RowTagRule, UnsealedKey},
};
use self::{entries::CacheEntries, refresh::RefreshState};
use super::{
    VaultError,
    audit_gate::{AuditGate, PermittedKey},
    environment::Environment,
    wrapper_keys::WrapperKeys,
};
use crate::{
    storage::StoredKey,
    traces::{SpanKind, in_span},
};

/// Opens keys and keeps them open within the limits of `[cache]`.
pub(super) struct KeyCache {
    env: Arc<Environment>,
    gate: Arc<AuditGate>,
    wrapper_keys: Arc<WrapperKeys>,
    entries: CacheEntries,
    refresh: RefreshState,
    /// Parsing and testing of RSA keys that are opened, for callers and background tasks. `cache_misses_per_second` limits how many each
    /// principal opens.
    parsing: Arc<Semaphore>,
}

/// RSA keys that are parsed at the same time. Each takes a few milliseconds.
const PARSING: usize = 2;

impl KeyCache {
    pub(super) fn new(env: Arc<Environment>, gate: Arc<AuditGate>, wrapper_keys: Arc<WrapperKeys>, config: &CacheConfig) -> Self {
        Self {
            env,
            gate,
            wrapper_keys,
            entries: CacheEntries::new(config),
            refresh: RefreshState::default(),
            parsing: Arc::new(Semaphore::new(PARSING)),
        }
    }

    /// Authorizes an operation on a stored key. A row that cannot be read is quarantined.
    ///
    /// # Errors
    /// `KeyNotFound`, `Forbidden`, `StorageUnavailable`, or `State(Quarantined)` for a row that cannot be read.
    pub(super) async fn permit_stored_key(&self, event: &mut AuditEvent, id: KeyId) -> Result<(Permit, Box<StoredKey>), VaultError> {
        match self.gate.permit_stored_key(event, id).await? {
            PermittedKey::Readable(permit, stored) => Ok((permit, stored)),
            PermittedKey::Unreadable(what) => Err(Box::pin(self.quarantine_unreadable(event, id, &what)).await),
        }
    }

    /// The open key, if it is in the cache.
    pub(super) async fn cached(&self, id: KeyId) -> Option<Arc<CachedKey>> {
        self.entries.get(id).await
    }

    /// The open key: `found` by [`Self::cached`], or opened now. Concurrent callers share one opening. `admit` is called before a key is opened on a
    /// cache miss, and can refuse it.
    ///
    /// # Errors
    /// The error of `admit`, `State`, `Frozen`, `Conflict` if the key changed while it was opened, the errors of the store and the KMS.
    pub(super) async fn open(
        self: &Arc<Self>,
        permit: &Permit,
        id: KeyId,
        found: Option<Arc<CachedKey>>,
        admit: impl FnOnce() -> Result<(), VaultError>,
    ) -> Result<Arc<CachedKey>, VaultError> {
        debug_assert!(permit.key() == Some(id), "a key is opened under a permit for it");
        let load = async {
            admit()?;
            // Boxed, because the future of each operation would contain this one, although most find the key in the cache.
            in_span("open key", SpanKind::Internal, Box::pin(self.load(id)), |span, opened| {
                if let Err(error) = opened {
                    span.failed(error.code().as_str());
                }
            })
            .await
        };
        let key = self.entries.get_or_load(id, found, load).await?;
        if self.env.store.known_revision() != key.precondition().store_revision {
            // The store changed while the key was opened. If this key changed, nothing else would evict it.
            let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
            if stored.record.revision != key.revision {
                self.entries.evict(id).await;
                return Err(VaultError::Conflict);
            }
            key.record_unchanged(stored.store_revision);
        }
        if key.epoch != self.entries.epoch() {
            key.wipe();
            return Err(VaultError::Frozen);
        }
        if self.entries.needs_refresh(&key, self.env.now()) {
            self.refresh_in_background(id);
        }
        Ok(key)
    }

    /// Opens a key again before it reaches its maximum age. If that fails, the open key stays in use until its maximum age.
    fn refresh_in_background(self: &Arc<Self>, id: KeyId) {
        let Some(attempt) = self.refresh.begin(id, self.entries.refresh_backoff()) else { return };
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            // No call waits for it, so that its KMS calls are loose, and its spans are a trace of their own.
            let load = Box::pin(cache.env.kms_calls.operation(cache.load(id)));
            match cache.env.traced("refresh key", load, |span| span.text("keyvault.key_id", id.to_string())).await {
                Ok(key) => {
                    cache.entries.replace(key).await;
                    attempt.succeeded();
                }
                Err(error) => tracing::warn!(%error, "a cached key could not be refreshed; it stays in use until its maximum age"),
            }
        });
    }

    /// Opens a key from the store.
    async fn load(&self, id: KeyId) -> Result<Arc<CachedKey>, VaultError> {
        let epoch = self.entries.epoch();
        self.gate.in_service()?;
        let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        if !stored.record.lifecycle.can_decrypt() {
            self.check_row(&stored).await?;
            return Err(VaultError::State(stored.record.lifecycle.state()));
        }
        let mut kms = KmsUse::default();
        let UnsealedKey { open_key, .. } = self.unseal(&stored, RowTagRule::Required, &mut kms).await?;
        if epoch != self.entries.epoch() {
            return Err(VaultError::Frozen);
        }
        Ok(Arc::new(CachedKey::new(&stored, open_key, self.env.now(), epoch, kms)))
    }

    /// Evicts and wipes one key at once.
    pub(super) async fn evict(&self, id: KeyId) {
        self.entries.evict(id).await;
    }

    /// Evicts and wipes all keys at once.
    pub(super) async fn evict_all(&self) {
        self.entries.evict_all().await;
    }

    /// Evicts and wipes the keys that another replica changed.
    pub(super) async fn evict_changed(&self) {
        let Some(replication) = self.env.store.replication() else { return };
        for (id, revision) in self.entries.revisions() {
            if replication.key_revision(id).await != Some(revision) {
                self.entries.evict(id).await;
            }
        }
    }

    /// Drops expired keys. Runs every second.
    pub(super) async fn maintain(&self) {
        self.entries.maintain().await;
    }

    /// Whether no key is open.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }
}
