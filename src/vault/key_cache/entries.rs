//! The entries of the key cache: bounded by number, idle time and age. An evicted key is wiped, not only dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::Counter;
use moka::{future::Cache as MokaCache, notification::RemovalCause};

use crate::domain::{KeyId, Timestamp};

use super::cached_key::CachedKey;
use crate::vault::VaultError;

/// `[cache]`: how many private keys stay open in memory, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Maximum number of open keys. Default 10000.
    pub capacity: u64,
    /// A key that is not used for this time is evicted. Default 1 h.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A key is evicted at this age, however often it is used, unless it was opened again before. This is how long keys work during an
    /// outage of the KMS, and the delay until disabling the KMS key takes effect. Default 4 h.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { capacity: 10_000, idle_timeout: Duration::from_hours(1), max_age: Duration::from_hours(4) }
    }
}

/// The cache entries. The `moka` crate drops evicted values late. Therefore the eviction listener wipes each key, and
/// [`CacheEntries::maintain`] must run every second.
pub(super) struct CacheEntries {
    keys: MokaCache<KeyId, Arc<CachedKey>>,
    max_age: Duration,
    /// The number of freezes. A key opened in an earlier epoch is not used.
    epoch: AtomicU64,
    hits: Counter,
    misses: Counter,
}

impl CacheEntries {
    pub(super) fn new(config: &CacheConfig) -> Self {
        let keys = MokaCache::builder()
            .max_capacity(config.capacity)
            .time_to_idle(config.idle_timeout)
            .time_to_live(config.max_age)
            .eviction_listener(|_, key: Arc<CachedKey>, cause| {
                key.wipe();
                let cause = match cause {
                    RemovalCause::Expired => "expired",
                    RemovalCause::Explicit => "explicit",
                    RemovalCause::Replaced => "replaced",
                    RemovalCause::Size => "size",
                };
                metrics::counter!("keyvault_cache_evictions_total", "cause" => cause).increment(1);
            })
            .build();
        Self {
            keys,
            max_age: config.max_age,
            epoch: AtomicU64::new(0),
            hits: metrics::counter!("keyvault_cache_hits_total"),
            misses: metrics::counter!("keyvault_cache_misses_total"),
        }
    }

    /// The open key, if the cache has it and no freeze happened since it was opened.
    pub(super) async fn get(&self, id: KeyId) -> Option<Arc<CachedKey>> {
        self.keys.get(&id).await.filter(|key| self.is_usable(key))
    }

    fn is_usable(&self, key: &CachedKey) -> bool {
        key.epoch == self.epoch() && key.is_open()
    }

    /// The open key: `found` by [`Self::get`], if it is still open; otherwise `load` opens it. Concurrent callers share one load (single flight). Its
    /// error is returned to all of them and is not cached.
    pub(super) async fn get_or_load<F>(&self, id: KeyId, found: Option<Arc<CachedKey>>, load: F) -> Result<Arc<CachedKey>, VaultError>
    where
        F: Future<Output = Result<Arc<CachedKey>, VaultError>>,
    {
        if let Some(key) = found.filter(|key| self.is_usable(key)) {
            self.hits.increment(1);
            return Ok(key);
        }
        self.misses.increment(1);
        self.keys.try_get_with(id, load).await.map_err(|shared: Arc<VaultError>| (*shared).clone())
    }

    /// Replaces an open key by the same key opened again.
    pub(super) async fn replace(&self, key: Arc<CachedKey>) {
        if key.epoch == self.epoch() {
            self.keys.insert(key.attributes.id, key).await;
        }
    }

    /// Whether a key in use should be opened again before it reaches its maximum age: from half of it.
    pub(super) fn needs_refresh(&self, key: &CachedKey, now: Timestamp) -> bool {
        now.since(key.opened_at) >= self.max_age / 2
    }

    /// The pause after a failed refresh. It is short enough for several attempts before the key reaches its maximum age.
    pub(super) fn refresh_backoff(&self) -> Duration {
        (self.max_age / 32).clamp(Duration::from_millis(250), Duration::from_mins(1))
    }

    /// Evicts and wipes one key at once.
    pub(super) async fn evict(&self, id: KeyId) {
        self.keys.invalidate(&id).await;
    }

    /// The keys in the cache, and the revision at which each was opened.
    pub(super) fn revisions(&self) -> Vec<(KeyId, u64)> {
        self.keys.iter().map(|(id, key)| (*id, key.revision)).collect()
    }

    /// Evicts and wipes all keys at once, and discards keys that are being opened.
    pub(super) async fn evict_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for (_, key) in &self.keys {
            key.wipe();
        }
        self.keys.invalidate_all();
        // The first run calls the eviction listener, the second drops the values.
        self.keys.run_pending_tasks().await;
        self.keys.run_pending_tasks().await;
    }

    /// Drops expired keys, and wipes keys that were inserted during a freeze. Runs every second.
    pub(super) async fn maintain(&self) {
        self.keys.run_pending_tasks().await;
        for (_, key) in &self.keys {
            if key.epoch != self.epoch() {
                key.wipe();
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge of some thousands")]
        metrics::gauge!("keyvault_cache_keys").set(self.len() as f64);
    }

    /// The number of open keys.
    pub(super) fn len(&self) -> u64 {
        self.keys.entry_count()
    }

    /// The number of freezes since the start.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
