//! Limits for each principal. A call beyond a limit is refused with `TooMany`, and other principals are not affected.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Principal;

use super::VaultError;

/// `[limits]`: limits for each principal. A call beyond a limit is answered with 429. No value may be 0.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Concurrent requests. Default 1024.
    pub concurrent: usize,
    /// Concurrent RSA key generations, RSA decryptions and password key derivations. Default 16.
    pub concurrent_heavy: usize,
    /// Concurrent queries of the audit log. Default 4.
    pub concurrent_queries: usize,
    /// Keys opened through the KMS each second. Up to ten seconds' worth is allowed as a burst. Default 200.
    pub cache_misses_per_second: u32,
    /// Keys created, imported, rotated or re-sealed each minute. Up to one minute's worth is allowed as a burst. Default 600.
    pub creations_per_minute: u32,
    /// Calls each second that need no grant: `status`, `whoami`, `authorize`, `topology/decode`. Up to one minute's worth is allowed as a burst.
    /// Default 5.
    pub information_per_second: u32,
    /// Refusals that are written individually each second. Those beyond become one counted entry. Default 20.
    pub refusals_per_second: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            concurrent: 1024,
            concurrent_heavy: 16,
            concurrent_queries: 4,
            cache_misses_per_second: 200,
            creations_per_minute: 600,
            information_per_second: 5,
            refusals_per_second: 20,
        }
    }
}

/// The limits of all principals that made a call. Idle principals are removed.
pub(super) struct Limits {
    config: LimitsConfig,
    /// Expensive computations of all principals. More of them would only compete for the cores.
    expensive: Arc<Semaphore>,
    principals: Mutex<HashMap<Arc<str>, Arc<PrincipalLimits>>>,
}

struct PrincipalLimits {
    requests: Arc<Semaphore>,
    expensive: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    cache_misses: Mutex<TokenBucket>,
    creations: Mutex<TokenBucket>,
    information: Mutex<TokenBucket>,
}

/// A slot among the concurrent requests of a principal. It is released on drop.
pub struct RequestSlot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A slot among the concurrent expensive computations. It is released on drop.
pub(super) struct ExpensiveSlot(#[expect(dead_code, reason = "held for its drop")] [OwnedSemaphorePermit; 2]);

/// A slot among the concurrent queries of a principal. It is released on drop.
pub(super) struct QuerySlot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Limits {
    pub(super) fn new(config: LimitsConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { config, expensive: Arc::new(Semaphore::new(cores * 2)), principals: Mutex::default() }
    }

    /// A slot for one request.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn request(&self, principal: &Principal) -> Result<RequestSlot, VaultError> {
        let requests = Arc::clone(&self.of(principal).requests);
        requests.try_acquire_owned().map(RequestSlot).map_err(|_| VaultError::TooMany("concurrent requests"))
    }

    /// A slot for one expensive computation. Waits for the computations of all principals, but not for those of this principal.
    ///
    /// # Errors
    /// `TooMany` if the principal reached its limit; `ShuttingDown`.
    pub(super) async fn expensive(&self, principal: &Principal) -> Result<ExpensiveSlot, VaultError> {
        let at_limit = |_| VaultError::TooMany("concurrent expensive requests");
        let of_principal = Arc::clone(&self.of(principal).expensive).try_acquire_owned().map_err(at_limit)?;
        let of_all = Arc::clone(&self.expensive).acquire_owned().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok(ExpensiveSlot([of_principal, of_all]))
    }

    /// A slot for one query of the audit log.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn query(&self, principal: &Principal) -> Result<QuerySlot, VaultError> {
        let queries = Arc::clone(&self.of(principal).queries);
        queries.try_acquire_owned().map(QuerySlot).map_err(|_| VaultError::TooMany("concurrent queries of the audit log"))
    }

    /// Counts one key that is opened through the KMS.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn cache_miss(&self, principal: &Principal) -> Result<(), VaultError> {
        take(&self.of(principal).cache_misses, "uses of keys that are not in the cache")
    }

    /// Counts one key that is created, imported, rotated or re-sealed.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn creation(&self, principal: &Principal) -> Result<(), VaultError> {
        take(&self.of(principal).creations, "new or re-sealed keys")
    }

    /// Counts one call that needs no grant.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn information(&self, principal: &Principal) -> Result<(), VaultError> {
        take(&self.of(principal).information, "calls that need no grant")
    }

    /// Removes the principals without requests in progress and with full token buckets.
    pub(super) fn forget_idle(&self) {
        self.lock().retain(|_, limits| Arc::strong_count(limits) > 1 || !limits.is_idle(&self.config));
    }

    fn of(&self, principal: &Principal) -> Arc<PrincipalLimits> {
        let mut principals = self.lock();
        if let Some(limits) = principals.get(&principal.name) {
            return Arc::clone(limits);
        }
        let limits = Arc::new(PrincipalLimits {
            requests: Arc::new(Semaphore::new(self.config.concurrent)),
            expensive: Arc::new(Semaphore::new(self.config.concurrent_heavy)),
            queries: Arc::new(Semaphore::new(self.config.concurrent_queries)),
            cache_misses: Mutex::new(TokenBucket::new(f64::from(self.config.cache_misses_per_second), 10.0)),
            creations: Mutex::new(TokenBucket::new(f64::from(self.config.creations_per_minute) / 60.0, 60.0)),
            information: Mutex::new(TokenBucket::new(f64::from(self.config.information_per_second), 60.0)),
        });
        principals.insert(Arc::clone(&principal.name), Arc::clone(&limits));
        limits
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<PrincipalLimits>>> {
        self.principals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PrincipalLimits {
    fn is_idle(&self, config: &LimitsConfig) -> bool {
        let full = |bucket: &Mutex<TokenBucket>| bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(Instant::now());
        self.requests.available_permits() == config.concurrent
            && self.expensive.available_permits() == config.concurrent_heavy
            && self.queries.available_permits() == config.concurrent_queries
            && full(&self.cache_misses)
            && full(&self.creations)
            && full(&self.information)
    }
}

fn take(bucket: &Mutex<TokenBucket>, what: &'static str) -> Result<(), VaultError> {
    let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
    if taken { Ok(()) } else { Err(VaultError::TooMany(what)) }
}

/// A token bucket: it gains `per_second` tokens each second, up to `capacity`.
struct TokenBucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(per_second: f64, burst_seconds: f64) -> Self {
        let capacity = (per_second * burst_seconds).max(1.0);
        Self { per_second, capacity, tokens: capacity, at: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let available = self.tokens >= 1.0;
        if available {
            self.tokens -= 1.0;
        }
        available
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.capacity
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.capacity);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn principal(name: &str) -> Principal {
        Principal { name: name.into(), certificate: None }
    }

    #[test]
    fn a_principal_at_its_limit_does_not_affect_others() {
        let limits = Limits::new(LimitsConfig { concurrent: 1, ..LimitsConfig::default() });
        let held = limits.request(&principal("dns:a")).unwrap();
        assert!(matches!(limits.request(&principal("dns:a")), Err(VaultError::TooMany(_))));
        assert!(limits.request(&principal("dns:b")).is_ok());
        limits.forget_idle();
        assert!(limits.request(&principal("dns:a")).is_err(), "a principal with a request in progress is not removed");
        drop(held);
        assert!(limits.request(&principal("dns:a")).is_ok());
    }

    #[test]
    fn a_token_bucket_refills_up_to_its_capacity() {
        let mut bucket = TokenBucket::new(2.0, 1.0);
        let start = bucket.at;
        assert_eq!([bucket.take(start), bucket.take(start), bucket.take(start)], [true, true, false]);
        assert!(bucket.take(start + Duration::from_millis(500)));
        let later = start + Duration::from_secs(100);
        assert_eq!([bucket.take(later), bucket.take(later), bucket.take(later)], [true, true, false]);
    }
}
