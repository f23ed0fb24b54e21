//! Limits for each principal, and for the process. A call beyond a limit is refused with `TooMany`, and other principals are not affected.
//!
//! A call enters with its kind of work, which decides its limits ([`rule`]). `docs/limits.md` shows all limits.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::domain::{Operation, Principal, WorkKind};

use super::{
    VaultError,
    heavy_work::{Heavy, HeavyShare, HeavyWork},
    token_bucket::TokenBucket,
};

/// `[limits]`: limits for each principal, and of the process where it says so. A call beyond a limit is answered with 429. No value may be 0.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Concurrent requests. Default 512.
    pub concurrent: usize,
    /// Concurrent requests of all principals. A quarter of them is for principals with few requests in progress. Default 768.
    pub concurrent_total: usize,
    /// Heavy computations that run or wait: key generations, RSA decryptions, key files, password derivations. Default 16.
    pub concurrent_heavy: usize,
    /// Concurrent queries of the audit log. Default 4.
    pub concurrent_queries: usize,
    /// Keys opened through the KMS each second. Up to ten seconds' worth is allowed as a burst. Default 200.
    pub cache_misses_per_second: u32,
    /// Calls each minute that create, import, rotate or re-seal a key. Up to one minute's worth is allowed as a burst. Default 600.
    pub creations_per_minute: u32,
    /// Other calls each minute that change state, except freeze and disable. Up to one minute's worth is allowed as a burst. Default 600.
    pub changes_per_minute: u32,
    /// Calls each second that need no grant: `status`, `whoami`, `authorize`, `topology/decode`. Up to one minute's worth is allowed as a burst.
    /// Default 5.
    pub information_per_second: u32,
    /// Refusals that are written individually each second. Those beyond become one counted entry. Default 20.
    pub refusals_per_second: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            concurrent: 512,
            concurrent_total: 768,
            concurrent_heavy: 16,
            concurrent_queries: 4,
            cache_misses_per_second: 200,
            creations_per_minute: 600,
            changes_per_minute: 600,
            information_per_second: 5,
            refusals_per_second: 20,
        }
    }
}

/// Concurrent freezes and disables of one principal. They have their own places, so that no other work refuses them.
pub const CONCURRENT_INCIDENT: usize = 64;
/// A principal with at most this many requests in progress gets one from the reserve of the process.
pub const RESERVED_REQUESTS: usize = 8;
/// Calls with a long answer at the same time: lists, queries and decoded topology transactions. Those of one principal, and of all.
pub const LONG_ANSWERS: usize = 2;
/// The same, of all principals.
pub const LONG_ANSWERS_TOTAL: usize = 8;
/// Exports of the audit log at the same time, of one principal.
pub const EXPORTS: usize = 1;
/// The same, of all principals.
pub const EXPORTS_TOTAL: usize = 4;
/// Bytes of a body that count as part of the request. Only the rest takes from the memory for bodies.
pub const SMALL_BODY: usize = 8 * 1024;
/// Memory for the bodies of one principal, in bytes.
pub const BODIES: usize = 1024 * 1024;
/// Memory for the bodies of all principals, in bytes.
pub const BODIES_TOTAL: usize = 4 * 1024 * 1024;
/// Freezes of a frozen vault each minute.
pub const REPEATED_FREEZES_PER_MINUTE: u32 = 60;
/// How long a call waits for the share of the process that others use.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is counted in time. One row for each, in [`Rate::row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    CacheMisses,
    Creations,
    Changes,
    Information,
    RepeatedFreezes,
}

impl Rate {
    const ALL: [Self; 5] = [Self::CacheMisses, Self::Creations, Self::Changes, Self::Information, Self::RepeatedFreezes];

    /// The name in `docs/limits.md`.
    const fn name(self) -> &'static str {
        match self {
            Self::CacheMisses => "keys opened",
            Self::Creations => "creations",
            Self::Changes => "changes",
            Self::Information => "information",
            Self::RepeatedFreezes => "repeated freezes",
        }
    }

    /// What a refusal names, the rate in a second, and the burst in seconds' worth.
    fn row(self, config: &LimitsConfig) -> (&'static str, f64, f64) {
        let minute = |number: u32| f64::from(number) / 60.0;
        match self {
            Self::CacheMisses => ("uses of keys that are not in the cache", f64::from(config.cache_misses_per_second), 10.0),
            Self::Creations => ("new or re-sealed keys", minute(config.creations_per_minute), 60.0),
            Self::Changes => ("changes", minute(config.changes_per_minute), 60.0),
            Self::Information => ("calls that need no grant", f64::from(config.information_per_second), 60.0),
            Self::RepeatedFreezes => ("freezes of a frozen vault", minute(REPEATED_FREEZES_PER_MINUTE), 60.0),
        }
    }
}

/// The limits of a kind of work.
#[derive(Debug, Clone, Copy)]
struct Rule {
    places: Places,
    rate: Option<Rate>,
    answer: Answer,
}

/// Where the place of a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    Ordinary,
    Incident,
}

/// How long the answer can be, and what happens if the principal waits for too many long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Short,
    /// A further one waits.
    Long,
    /// A further query of the audit log is refused, because it keeps a reader of the store busy.
    Query,
    /// A further export is refused, because it lasts as long as its reader reads.
    Export,
}

/// The limits of every kind of work. A kind without a row does not compile.
const fn rule(kind: WorkKind) -> Rule {
    const ORDINARY: Rule = Rule { places: Places::Ordinary, rate: None, answer: Answer::Short };
    match kind {
        WorkKind::Use | WorkKind::Show | WorkKind::NoRoute => ORDINARY,
        WorkKind::Creation => Rule { rate: Some(Rate::Creations), ..ORDINARY },
        WorkKind::Change => Rule { rate: Some(Rate::Changes), ..ORDINARY },
        WorkKind::Information => Rule { rate: Some(Rate::Information), ..ORDINARY },
        WorkKind::Decoding => Rule { rate: Some(Rate::Information), answer: Answer::Long, ..ORDINARY },
        WorkKind::Topology | WorkKind::List => Rule { answer: Answer::Long, ..ORDINARY },
        WorkKind::Query => Rule { answer: Answer::Query, ..ORDINARY },
        WorkKind::Export => Rule { answer: Answer::Export, ..ORDINARY },
        WorkKind::Incident => Rule { places: Places::Incident, ..ORDINARY },
    }
}

/// The names of the limits that a kind of work has, as in `docs/limits.md`.
pub fn limits_of(kind: WorkKind) -> Vec<&'static str> {
    let Rule { places, rate, answer } = rule(kind);
    let mut names = match places {
        Places::Ordinary => vec!["requests", "requests of all"],
        Places::Incident => vec!["freezes and disables"],
    };
    names.extend(rate.map(Rate::name));
    names.extend_from_slice(match answer {
        Answer::Short => &[],
        Answer::Long => &["long answers", "long answers of all"],
        Answer::Query => &["queries", "long answers of all"],
        Answer::Export => &["exports", "exports of all"],
    });
    names.extend_from_slice(match kind {
        WorkKind::Use => &["keys opened", "heavy work", "heavy work in parallel", "derivations"],
        WorkKind::Creation => &["heavy work", "heavy work in parallel", "derivations", "bodies", "bodies of all"],
        WorkKind::Topology | WorkKind::Decoding => &["heavy work", "heavy work in parallel", "bodies", "bodies of all"],
        WorkKind::Incident => &["repeated freezes"],
        WorkKind::Change
        | WorkKind::Query
        | WorkKind::Export
        | WorkKind::List
        | WorkKind::Show
        | WorkKind::Information
        | WorkKind::NoRoute => &[],
    });
    names.push("refusals");
    names
}

/// The limits of the process, and of all principals that made a call. Idle principals are removed.
pub(super) struct Limits {
    config: LimitsConfig,
    /// The live replicas, which share the limit of creations.
    replicas: AtomicU32,
    process: Arc<Process>,
    heavy_work: HeavyWork,
    principals: Mutex<HashMap<Arc<str>, Arc<PrincipalLimits>>>,
}

/// What all principals share.
struct Process {
    requests: Arc<Semaphore>,
    /// Requests of principals with few in progress.
    reserve: Arc<Semaphore>,
    long_answers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// In KiB.
    bodies: Arc<Semaphore>,
}

struct PrincipalLimits {
    requests: Arc<Semaphore>,
    incidents: Arc<Semaphore>,
    heavy: HeavyShare,
    queries: Arc<Semaphore>,
    long_answers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// In KiB.
    bodies: Arc<Semaphore>,
    rates: [Mutex<TokenBucket>; Rate::ALL.len()],
}

/// The place of one request, with the memory of its body and of its answer. Held until the answer was sent.
pub struct RequestSlot {
    process: Arc<Process>,
    of_principal: Arc<PrincipalLimits>,
    held: Mutex<Vec<OwnedSemaphorePermit>>,
}

impl Limits {
    pub(super) fn new(config: LimitsConfig) -> Self {
        let reserve = config.concurrent_total / 4;
        let process = Process {
            requests: Arc::new(Semaphore::new(config.concurrent_total - reserve)),
            reserve: Arc::new(Semaphore::new(reserve)),
            long_answers: Arc::new(Semaphore::new(LONG_ANSWERS_TOTAL)),
            exports: Arc::new(Semaphore::new(EXPORTS_TOTAL)),
            bodies: Arc::new(Semaphore::new(BODIES_TOTAL / 1024)),
        };
        Self { config, replicas: AtomicU32::new(1), process: Arc::new(process), heavy_work: HeavyWork::new(), principals: Mutex::default() }
    }

    /// A place for a request, by its kind of work.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) async fn enter(&self, principal: &Principal, operation: Operation) -> Result<RequestSlot, VaultError> {
        let Rule { places, rate, answer } = rule(operation.work_kind().unwrap_or(WorkKind::NoRoute));
        let own = self.of(principal);
        let taken = match places {
            Places::Incident => vec![place(&own.incidents, "concurrent freezes and disables")?],
            Places::Ordinary => {
                let few = own.requests.available_permits() + RESERVED_REQUESTS >= self.config.concurrent;
                let own = place(&own.requests, "concurrent requests")?;
                let shared = place(&self.process.requests, "concurrent requests of all principals");
                let shared = shared.or_else(|full| if few { place(&self.process.reserve, TOTAL) } else { Err(full) });
                vec![own, shared?]
            }
        };
        let slot = RequestSlot { process: Arc::clone(&self.process), of_principal: own, held: Mutex::new(taken) };
        if let Some(rate) = rate {
            let shares = if rate == Rate::Creations { self.replicas.load(Ordering::Relaxed) } else { 1 };
            slot.of_principal.take(rate, shares, &self.config)?;
        }
        match answer {
            Answer::Short => {}
            Answer::Long => {
                slot.hold(in_time(Arc::clone(&slot.of_principal.long_answers), 1, "concurrent lists and decoded transactions").await?);
                slot.hold(in_time(Arc::clone(&self.process.long_answers), 1, LONG_OF_ALL).await?);
            }
            Answer::Query => {
                slot.hold(place(&slot.of_principal.queries, "concurrent queries of the audit log")?);
                slot.hold(in_time(Arc::clone(&self.process.long_answers), 1, LONG_OF_ALL).await?);
            }
            Answer::Export => {
                slot.hold(place(&slot.of_principal.exports, "concurrent exports of the audit log")?);
                slot.hold(place(&self.process.exports, "concurrent exports of the audit log of all principals")?);
            }
        }
        Ok(slot)
    }

    /// Runs a heavy computation on a blocking thread, within the share of the principal.
    ///
    /// # Errors
    /// As [`HeavyWork::run`].
    pub(super) async fn heavy<T: Send + 'static>(
        &self,
        principal: &Principal,
        heavy: Heavy,
        computation: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.heavy_work.run(&self.of(principal).heavy, heavy, computation).await
    }

    /// A place for a call that reads the entries about a key in the audit log, although it is no query. It is one of those of queries.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn log_read(&self, principal: &Principal) -> Result<OwnedSemaphorePermit, VaultError> {
        place(&self.of(principal).queries, "concurrent queries of the audit log")
    }

    /// Counts one key that is opened through the KMS.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn cache_miss(&self, principal: &Principal) -> Result<(), VaultError> {
        self.of(principal).take(Rate::CacheMisses, 1, &self.config)
    }

    /// Counts one freeze of a vault that is frozen.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn repeated_freeze(&self, principal: &Principal) -> Result<(), VaultError> {
        self.of(principal).take(Rate::RepeatedFreezes, 1, &self.config)
    }

    /// Divides the limit of creations between the live replicas of a shared store, because it holds for all of them together. The other limits protect
    /// a process.
    pub(super) fn share_between(&self, replicas: usize) {
        self.replicas.store(u32::try_from(replicas).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }

    /// Removes the principals without requests in progress and with full token buckets.
    pub(super) fn forget_idle(&self) {
        self.lock().retain(|_, limits| Arc::strong_count(limits) > 1 || !limits.is_idle());
    }

    fn of(&self, principal: &Principal) -> Arc<PrincipalLimits> {
        let mut principals = self.lock();
        if let Some(limits) = principals.get(&principal.name) {
            return Arc::clone(limits);
        }
        let limits = Arc::new(PrincipalLimits {
            requests: Arc::new(Semaphore::new(self.config.concurrent)),
            incidents: Arc::new(Semaphore::new(CONCURRENT_INCIDENT)),
            heavy: self.heavy_work.share(self.config.concurrent_heavy),
            queries: Arc::new(Semaphore::new(self.config.concurrent_queries)),
            long_answers: Arc::new(Semaphore::new(LONG_ANSWERS)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            bodies: Arc::new(Semaphore::new(BODIES / 1024)),
            rates: Rate::ALL.map(|rate| {
                let (_, per_second, burst) = rate.row(&self.config);
                Mutex::new(TokenBucket::new(per_second, burst))
            }),
        });
        principals.insert(Arc::clone(&principal.name), Arc::clone(&limits));
        limits
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<PrincipalLimits>>> {
        self.principals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TOTAL: &str = "concurrent requests of all principals";
const LONG_OF_ALL: &str = "concurrent lists and decoded transactions of all principals";

impl RequestSlot {
    /// Takes memory for a body that has now `length` bytes. `taken` is how much this call took before, in KiB. Returns how much it has now.
    ///
    /// # Errors
    /// `TooMany`.
    pub async fn grow_body(&self, length: usize, taken: u32) -> Result<u32, VaultError> {
        let needed = u32::try_from(length.saturating_sub(SMALL_BODY).div_ceil(1024)).unwrap_or(u32::MAX);
        let Some(more) = needed.checked_sub(taken).filter(|more| *more > 0) else { return Ok(taken) };
        let own = Arc::clone(&self.of_principal.bodies).try_acquire_many_owned(more);
        self.hold(own.map_err(|_| VaultError::too_many("bodies at the same time"))?);
        self.hold(in_time(Arc::clone(&self.process.bodies), more, "bodies of all principals at the same time").await?);
        Ok(needed)
    }

    fn hold(&self, permit: OwnedSemaphorePermit) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(permit);
    }
}

impl PrincipalLimits {
    /// A principal with a request in progress has a [`RequestSlot`], which refers to this.
    fn is_idle(&self) -> bool {
        let full = |bucket: &Mutex<TokenBucket>| bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(Instant::now());
        self.heavy.is_idle() && self.rates.iter().all(full)
    }

    /// Takes `shares` tokens: one, or one for each process that gives tokens too.
    fn take(&self, rate: Rate, shares: u32, config: &LimitsConfig) -> Result<(), VaultError> {
        let Some(bucket) = self.rates.get(rate as usize) else { return Err(VaultError::Internal("a rate without a token bucket")) };
        let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), f64::from(shares));
        let (what, ..) = rate.row(config);
        taken.map_err(|wait| VaultError::TooMany { what, retry_after: wait })
    }
}

fn place(places: &Arc<Semaphore>, what: &'static str) -> Result<OwnedSemaphorePermit, VaultError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| VaultError::too_many(what))
}

/// Waits for what others use, at most [`PATIENCE`].
async fn in_time(semaphore: Arc<Semaphore>, number: u32, what: &'static str) -> Result<OwnedSemaphorePermit, VaultError> {
    match timeout(PATIENCE, semaphore.acquire_many_owned(number)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(VaultError::ShuttingDown),
        Err(_) => Err(VaultError::too_many(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str) -> Principal {
        Principal { name: name.into(), certificate: None }
    }

    fn too_many<T>(result: &Result<T, VaultError>) -> bool {
        matches!(result, Err(VaultError::TooMany { .. }))
    }

    #[tokio::test]
    async fn a_principal_at_its_limit_does_not_affect_others() {
        let limits = Limits::new(LimitsConfig { concurrent: 1, ..LimitsConfig::default() });
        let held = limits.enter(&principal("dns:a"), Operation::Sign).await.unwrap();
        assert!(too_many(&limits.enter(&principal("dns:a"), Operation::Sign).await));
        assert!(limits.enter(&principal("dns:b"), Operation::Sign).await.is_ok());
        limits.forget_idle();
        assert!(
            too_many(&limits.enter(&principal("dns:a"), Operation::Sign).await),
            "a principal with a request in progress is not removed"
        );
        drop(held);
        assert!(limits.enter(&principal("dns:a"), Operation::Sign).await.is_ok());
        limits.forget_idle();
        assert!(limits.lock().is_empty());
    }

    #[tokio::test]
    async fn freeze_and_disable_are_not_refused_for_other_work() {
        let config =
            LimitsConfig { concurrent: 4, concurrent_total: 8, changes_per_minute: 1, creations_per_minute: 1, ..LimitsConfig::default() };
        let limits = Limits::new(config);
        let (admin, others) = (principal("dns:admin"), ["dns:a", "dns:b"].map(principal));
        let mut held = Vec::new();
        for caller in others.iter().chain([&admin]).cycle().take(30) {
            held.extend(limits.enter(caller, Operation::Sign).await);
        }
        for operation in [Operation::EnableKey, Operation::EnableKey, Operation::CreateKey, Operation::CreateKey, Operation::ShowKey] {
            assert!(too_many(&limits.enter(&admin, operation).await), "{operation}");
        }
        for _ in 0..10_000 {
            limits.enter(&admin, Operation::Freeze).await.unwrap();
            limits.enter(&admin, Operation::DisableKey).await.unwrap();
        }
        drop(held);
        assert!(limits.enter(&admin, Operation::ShowKey).await.is_ok());
        assert!(limits.enter(&admin, Operation::EnableKey).await.is_ok());
        assert!(too_many(&limits.enter(&admin, Operation::EnableKey).await), "the rate of changes");
        assert!(limits.enter(&admin, Operation::DisableKey).await.is_ok());
    }

    #[tokio::test]
    async fn some_principals_cannot_use_all_places_of_the_process() {
        let limits = Limits::new(LimitsConfig { concurrent: 1024, concurrent_total: 100, ..LimitsConfig::default() });
        let mut held = Vec::new();
        for number in 0..400 {
            held.extend(limits.enter(&principal(["dns:a", "dns:b"][number % 2]), Operation::Sign).await);
        }
        assert_eq!(held.len(), 75, "the rest is reserved");
        for _ in 0..RESERVED_REQUESTS {
            held.push(limits.enter(&principal("dns:c"), Operation::Sign).await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_bodies_and_long_answers_is_bounded() {
        let limits = Limits::new(LimitsConfig::default());
        let body = async |name: &str| {
            let slot = limits.enter(&principal(name), Operation::ImportKey).await.unwrap();
            slot.grow_body(64 * 1024, 0).await.map(|_| slot)
        };
        let mut held = Vec::new();
        for name in ["dns:a", "dns:b", "dns:c", "dns:d"] {
            while let Ok(slot) = body(name).await {
                held.push(slot);
            }
        }
        assert_eq!(held.len(), 4 * (BODIES / 1024 / 56), "56 KiB beyond the small part each");
        let small = limits.enter(&principal("dns:e"), Operation::ImportKey).await.unwrap();
        assert_eq!(small.grow_body(SMALL_BODY, 0).await, Ok(0), "small bodies need none");
        drop(held);
        assert!(body("dns:a").await.is_ok());

        let list = async |name: &str| limits.enter(&principal(name), Operation::ListKeys).await;
        let mut held = Vec::new();
        for name in ["dns:a", "dns:b", "dns:c", "dns:d", "dns:e"] {
            while let Ok(slot) = list(name).await {
                held.push(slot);
            }
        }
        assert_eq!(held.len(), LONG_ANSWERS_TOTAL);
        let (waiting, ()) = tokio::join!(list("dns:f"), async { drop(held) });
        assert!(waiting.is_ok(), "it waits for the others");
    }
}
