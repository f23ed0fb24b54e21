//! What one principal may ask for at a time: beyond it, `429` for this one, and nothing for the others to notice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Principal;

use super::VaultError;

/// `[limits]`: for each principal; beyond them a call is answered 429. None may be 0.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests at the same time. Default 1024.
    pub concurrent: usize,
    /// RSA decryptions and password derivations at the same time. Default 16.
    pub concurrent_heavy: usize,
    /// Keys opened through the KMS, a second; ten seconds' worth may come at once. Default 200.
    pub cache_misses_per_second: u32,
    /// Keys created or imported, a minute; one minute's worth may come at once. Default 600.
    pub creations_per_minute: u32,
    /// Refusals written one by one, a second; those beyond become one counted entry. Default 20.
    pub refusals_per_second: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { concurrent: 1024, concurrent_heavy: 16, cache_misses_per_second: 200, creations_per_minute: 600, refusals_per_second: 20 }
    }
}

/// The running counts of every principal seen. As many as there are certificates; forgotten when idle.
pub(super) struct Limits {
    config: LimitsConfig,
    /// Heavy computations run here at the same time, whoever asks: more would only take turns on the cores.
    heavy: Arc<Semaphore>,
    principals: Mutex<HashMap<Arc<str>, Arc<PrincipalLimits>>>,
}

struct PrincipalLimits {
    requests: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
    cold_opens: Mutex<TokenBucket>,
    creations: Mutex<TokenBucket>,
}

/// A place among the requests of a principal; given back on drop.
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A place among the heavy computations; given back on drop.
pub(super) struct HeavySlot(#[expect(dead_code, reason = "held for its drop")] [OwnedSemaphorePermit; 2]);

impl Limits {
    pub(super) fn new(config: LimitsConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { config, heavy: Arc::new(Semaphore::new(cores * 2)), principals: Mutex::default() }
    }

    /// A place for one request.
    pub(super) fn request(&self, principal: &Principal) -> Result<Slot, VaultError> {
        let requests = Arc::clone(&self.of(principal).requests);
        requests.try_acquire_owned().map(Slot).map_err(|_| VaultError::TooMany("requests at the same time"))
    }

    /// A place for one heavy computation; waits for the cores, not for the principal's own share.
    pub(super) async fn heavy(&self, principal: &Principal) -> Result<HeavySlot, VaultError> {
        let busy = |_| VaultError::TooMany("heavy requests at the same time");
        let mine = Arc::clone(&self.of(principal).heavy).try_acquire_owned().map_err(busy)?;
        let all = Arc::clone(&self.heavy).acquire_owned().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok(HeavySlot([mine, all]))
    }

    /// Counts one key opened through the KMS.
    pub(super) fn cold_open(&self, principal: &Principal) -> Result<(), VaultError> {
        take(&self.of(principal).cold_opens, "keys that are not in memory")
    }

    /// Counts one key created or imported.
    pub(super) fn creation(&self, principal: &Principal) -> Result<(), VaultError> {
        take(&self.of(principal).creations, "new keys")
    }

    /// Forgets principals without a request under way.
    pub(super) fn forget_idle(&self) {
        let mut principals = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        principals.retain(|_, mine| Arc::strong_count(mine) > 1 || !mine.is_rested(&self.config));
    }

    fn of(&self, principal: &Principal) -> Arc<PrincipalLimits> {
        let mut principals = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = principals.get(&principal.name) {
            return Arc::clone(mine);
        }
        let mine = Arc::new(PrincipalLimits {
            requests: Arc::new(Semaphore::new(self.config.concurrent)),
            heavy: Arc::new(Semaphore::new(self.config.concurrent_heavy)),
            cold_opens: Mutex::new(TokenBucket::new(f64::from(self.config.cache_misses_per_second), 10.0)),
            creations: Mutex::new(TokenBucket::new(f64::from(self.config.creations_per_minute) / 60.0, 60.0)),
        });
        principals.insert(Arc::clone(&principal.name), Arc::clone(&mine));
        mine
    }
}

impl PrincipalLimits {
    fn is_rested(&self, config: &LimitsConfig) -> bool {
        let full = |bucket: &Mutex<TokenBucket>| bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(Instant::now());
        self.requests.available_permits() == config.concurrent
            && self.heavy.available_permits() == config.concurrent_heavy
            && full(&self.cold_opens)
            && full(&self.creations)
    }
}

fn take(bucket: &Mutex<TokenBucket>, what: &'static str) -> Result<(), VaultError> {
    let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
    if taken { Ok(()) } else { Err(VaultError::TooMany(what)) }
}

/// A token bucket: `per_second` flow in, up to `burst_seconds` of it are kept.
struct TokenBucket {
    per_second: f64,
    most: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(per_second: f64, burst_seconds: f64) -> Self {
        let most = (per_second * burst_seconds).max(1.0);
        Self { per_second, most, tokens: most, at: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.flow(now);
        let some = self.tokens >= 1.0;
        if some {
            self.tokens -= 1.0;
        }
        some
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.flow(now);
        self.tokens >= self.most
    }

    fn flow(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.most);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn who(name: &str) -> Principal {
        Principal { name: name.into(), certificate: None }
    }

    #[test]
    fn one_principal_at_its_limit_leaves_the_others_alone() {
        let limits = Limits::new(LimitsConfig { concurrent: 1, ..LimitsConfig::default() });
        let held = limits.request(&who("dns:a")).unwrap();
        assert!(matches!(limits.request(&who("dns:a")), Err(VaultError::TooMany(_))));
        assert!(limits.request(&who("dns:b")).is_ok());
        limits.forget_idle();
        assert!(limits.request(&who("dns:a")).is_err(), "a principal with a request under way is not forgotten");
        drop(held);
        assert!(limits.request(&who("dns:a")).is_ok());
    }

    #[test]
    fn a_bucket_refills_with_time_and_no_further_than_its_burst() {
        let mut bucket = TokenBucket::new(2.0, 1.0);
        let start = bucket.at;
        assert_eq!([bucket.take(start), bucket.take(start), bucket.take(start)], [true, true, false]);
        assert!(bucket.take(start + Duration::from_millis(500)));
        let later = start + Duration::from_secs(100);
        assert_eq!([bucket.take(later), bucket.take(later), bucket.take(later)], [true, true, false]);
    }
}
