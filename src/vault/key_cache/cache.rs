//! Open keys: bounded by count, idle time and absolute maximum age; one load at a time for each key; wiped, not just forgotten.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{future::Cache as Moka, notification::RemovalCause};

use crate::domain::{KeyId, Timestamp};

use super::cached_key::CachedKey;
use crate::vault::VaultError;

/// `[cache]`: how many keys stay open, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// At most so many open keys. Default 10000.
    pub capacity: u64,
    /// A key that is not used for so long is closed. Default 1 h.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A key is closed after so long, however much it is used, unless it could be opened anew. It is the budget for an outage
    /// of the KMS, and the delay of its kill switch. Default 4 h.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { capacity: 10_000, idle_timeout: Duration::from_hours(1), max_age: Duration::from_hours(4) }
    }
}

/// The cache. moka drops late, even for entries that it no longer shows, so every way out wipes in the eviction listener, and
/// [`Cache::maintain`] must run every second.
pub(in crate::vault) struct Cache {
    keys: Moka<KeyId, Arc<CachedKey>>,
    max_age: Duration,
    /// Counts freezes: what was opened in an earlier epoch is never used.
    epoch: AtomicU64,
}

impl Cache {
    pub(in crate::vault) fn new(config: &CacheConfig) -> Self {
        let keys = Moka::builder()
            .max_capacity(config.capacity)
            .time_to_idle(config.idle_timeout)
            .time_to_live(config.max_age)
            .eviction_listener(|_, opened: Arc<CachedKey>, cause| {
                opened.wipe();
                let cause = match cause {
                    RemovalCause::Expired => "expired",
                    RemovalCause::Explicit => "explicit",
                    RemovalCause::Replaced => "replaced",
                    RemovalCause::Size => "size",
                };
                metrics::counter!("keyvault_cache_evictions_total", "cause" => cause).increment(1);
            })
            .build();
        Self { keys, max_age: config.max_age, epoch: AtomicU64::new(0) }
    }

    /// The open key, if it is here and of this epoch.
    pub(in crate::vault) async fn get(&self, id: KeyId) -> Option<Arc<CachedKey>> {
        let opened = self.keys.get(&id).await?;
        (opened.epoch == self.epoch() && opened.ready().is_some()).then_some(opened)
    }

    /// The open key, opened by `load` if it is not here. A thousand callers cost one load; its failure is theirs, and not kept.
    pub(in crate::vault) async fn get_or_open<F>(&self, id: KeyId, load: F) -> Result<Arc<CachedKey>, VaultError>
    where
        F: Future<Output = Result<Arc<CachedKey>, VaultError>>,
    {
        if let Some(opened) = self.get(id).await {
            metrics::counter!("keyvault_cache_hits_total").increment(1);
            return Ok(opened);
        }
        metrics::counter!("keyvault_cache_misses_total").increment(1);
        self.keys.try_get_with(id, load).await.map_err(|shared: Arc<VaultError>| (*shared).clone())
    }

    /// Replaces an open key by one opened anew.
    pub(in crate::vault) async fn refresh(&self, opened: Arc<CachedKey>) {
        if opened.epoch == self.epoch() {
            self.keys.insert(opened.attributes.id, opened).await;
        }
    }

    /// Whether a key in use should be opened anew before its maximum age ends.
    pub(in crate::vault) fn wants_refresh(&self, opened: &CachedKey, now: Timestamp) -> bool {
        now.since(opened.at) >= self.max_age / 2
    }

    /// After a refresh that failed, the next one waits so long: often enough to be done before maximum age ends.
    pub(in crate::vault) fn refresh_pause(&self) -> Duration {
        (self.max_age / 32).clamp(Duration::from_millis(250), Duration::from_mins(1))
    }

    /// Wipes one key, at once.
    pub(in crate::vault) async fn forget(&self, id: KeyId) {
        self.keys.invalidate(&id).await;
    }

    /// Wipes all keys, at once, and refuses what is being loaded now.
    pub(in crate::vault) async fn wipe_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for (_, opened) in &self.keys {
            opened.wipe();
        }
        self.keys.invalidate_all();
        // The first run calls the listener, the second drops the values.
        self.keys.run_pending_tasks().await;
        self.keys.run_pending_tasks().await;
    }

    /// A commit found this key unchanged at this revision of the store.
    pub(in crate::vault) async fn known_unchanged(&self, id: KeyId, store_revision: u64) {
        if let Some(opened) = self.keys.get(&id).await {
            opened.known_unchanged(store_revision);
        }
    }

    /// Lets expired keys go, and wipes what slipped in while the vault froze. To be called every second.
    pub(in crate::vault) async fn maintain(&self) {
        self.keys.run_pending_tasks().await;
        for (_, opened) in &self.keys {
            if opened.epoch != self.epoch() {
                opened.wipe();
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge of some thousands")]
        metrics::gauge!("keyvault_cache_keys").set(self.len() as f64);
    }

    /// How many keys are open.
    pub(in crate::vault) fn len(&self) -> u64 {
        self.keys.entry_count()
    }

    /// The freeze epoch.
    pub(in crate::vault) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
