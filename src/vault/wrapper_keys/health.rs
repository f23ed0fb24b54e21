//! The health of wrapper keys as this process knows it, from the calls it makes, and when each is to be probed. Nothing here calls a KMS.
//!
//! A probe opens the canary of a wrapper key. It is due at the latest `[wrapper] probe_interval` after the last call, so that a disabled
//! wrapper key is known within this time whatever callers do.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    crypto::Random,
    domain::{WrapperKey, WrapperKeyId, WrapperState, text_enum},
    kms::{Denial, Outage, WrapperError},
};

text_enum!(
    /// What this process knows of a wrapper key, from its own calls.
    WrapperHealth as "wrapper health" {
        /// The last call succeeded.
        Ok = "ok",
        /// The last call failed.
        Failing = "failing",
        /// No call was made yet.
        Unknown = "unknown",
    }
);

/// The last known health of each wrapper key.
pub(super) struct HealthTracker {
    /// `[wrapper] probe_interval`.
    probe_interval: Duration,
    /// For the jitter of probes.
    random: Arc<dyn Random>,
    /// Whether the active wrapper key was compared with the configuration.
    compared: AtomicBool,
    /// Why the first wrapper key could not be registered.
    bootstrap_fault: Mutex<Option<WrapperError>>,
    /// The registered wrapper keys that are not retired.
    by_key: Mutex<HashMap<WrapperKeyId, KeyHealth>>,
}

/// The health of one wrapper key.
struct KeyHealth {
    /// The last conclusive result. `None` if there is none.
    last: Option<Result<(), WrapperError>>,
    /// Whether the last probe was conclusive, and no inconclusive error occurred since.
    conclusive: bool,
    /// The last call.
    at: Instant,
    /// Probes in a row that were denied.
    denied_probes: u32,
    /// The part of the interval after which the next probe is due, from half of it (0) to all of it (255).
    jitter: u8,
}

impl HealthTracker {
    /// Nothing is known yet.
    pub(super) fn new(probe_interval: Duration, random: Arc<dyn Random>) -> Self {
        Self { probe_interval, random, compared: AtomicBool::default(), bootstrap_fault: Mutex::default(), by_key: Mutex::default() }
    }

    /// How often to look for probes that are due.
    pub(super) fn look_interval(&self) -> Duration {
        LOOK_INTERVAL.min(self.probe_interval / 4)
    }

    /// Records the result of a call for one key. An invalid wrap, a refusal of access (IAM can refuse the context of one key) and a wrap of
    /// an old key version do not prove that the wrapper key fails: the canary decides.
    pub(super) fn record_call<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let mut by_key = self.lock();
        let health = by_key.entry(id).or_insert_with(KeyHealth::unknown);
        match result {
            Err(WrapperError::Invalid { .. } | WrapperError::Denied { denial: Denial::AccessDenied | Denial::OldVersion, .. }) => {
                health.conclusive = false;
            }
            other => health.last = Some(other.as_ref().map(drop).map_err(Clone::clone)),
        }
        health.at = Instant::now();
    }

    /// Records whether a wrapper key opened its canary or was registered. A probe that was not sent (the rate limit is reached, or a circuit
    /// breaker is open because of another wrapper key) shows nothing, and is repeated.
    pub(super) fn record_canary<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let mut jitter = [0];
        // Without randomness there is no jitter. The probes still proceed.
        let _ = self.random.fill(&mut jitter);
        let mut by_key = self.lock();
        let health = by_key.entry(id).or_insert_with(KeyHealth::unknown);
        if matches!(result, Err(WrapperError::Unavailable { outage: Outage::NotTried, .. })) {
            health.conclusive = false;
            return;
        }
        let denied_probes = match result {
            Ok(_) | Err(WrapperError::Unavailable { .. }) => 0,
            Err(_) => health.denied_probes.saturating_add(1),
        };
        let last = Some(result.as_ref().map(drop).map_err(Clone::clone));
        *health = KeyHealth { last, conclusive: true, at: Instant::now(), denied_probes, jitter: jitter[0] };
    }

    /// Records why the first wrapper key could not be registered.
    pub(super) fn record_bootstrap_fault(&self, error: &WrapperError) {
        *self.bootstrap_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    /// Why the first wrapper key could not be registered.
    pub(super) fn bootstrap_fault(&self) -> Option<WrapperError> {
        self.bootstrap_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes all wrapper keys that are not registered or are retired.
    pub(super) fn retain(&self, keys: &[WrapperKey]) {
        let in_use = |id: &WrapperKeyId| keys.iter().any(|key| key.id == *id && key.state != WrapperState::Retired);
        self.lock().retain(|id, _| in_use(id));
    }

    /// Whether a wrapper key is to be probed: at start, after an inconclusive error, during an outage (circuit breakers limit the attempts),
    /// after a denial at intervals that double up to `probe_interval`, and otherwise if no call was made for most of `probe_interval`.
    pub(super) fn needs_probe(&self, id: WrapperKeyId) -> bool {
        let by_key = self.lock();
        let Some(health) = by_key.get(&id).filter(|health| health.conclusive) else { return true };
        let pause = match &health.last {
            None | Some(Err(WrapperError::Unavailable { .. })) => Duration::ZERO,
            Some(Err(_)) => LOOK_INTERVAL.saturating_mul(1 << health.denied_probes.min(10)).min(self.probe_interval),
            Some(Ok(())) => self.probe_interval / 2 + self.probe_interval / 512 * u32::from(health.jitter),
        };
        // A look later it could be too late.
        health.at.elapsed() + self.look_interval() >= pause
    }

    /// Whether the active wrapper key is still to be compared with the configuration.
    pub(super) fn needs_comparison(&self) -> bool {
        !self.compared.load(Ordering::Relaxed)
    }

    /// Records that the active wrapper key was compared with the configuration.
    pub(super) fn record_comparison(&self) {
        self.compared.store(true, Ordering::Relaxed);
    }

    /// The last error of a wrapper key, if its last conclusive call failed.
    pub(super) fn fault(&self, id: WrapperKeyId) -> Option<WrapperError> {
        self.lock().get(&id)?.last.clone()?.err()
    }

    /// The health of a wrapper key.
    pub(super) fn of(&self, id: WrapperKeyId) -> WrapperHealth {
        match self.lock().get(&id).map(|health| &health.last) {
            Some(Some(Ok(()))) => WrapperHealth::Ok,
            Some(Some(Err(_))) => WrapperHealth::Failing,
            Some(None) | None => WrapperHealth::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WrapperKeyId, KeyHealth>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyHealth {
    fn unknown() -> Self {
        Self { last: None, conclusive: false, at: Instant::now(), denied_probes: 0, jitter: 0 }
    }
}

/// The longest interval between two looks for probes that are due. A wrapper key in an outage is probed as often.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::SystemRandom,
        domain::{ProviderKind, Timestamp},
    };

    const ONE: WrapperKeyId = WrapperKeyId::from_random([1; 6]);
    const TWO: WrapperKeyId = WrapperKeyId::from_random([2; 6]);

    fn tracker(probe_interval: Duration) -> HealthTracker {
        HealthTracker::new(probe_interval, Arc::new(SystemRandom::default()))
    }

    fn down() -> Result<(), WrapperError> {
        Err(WrapperError::Unavailable { reference: "k".into(), outage: Outage::TimedOut, request_id: None })
    }

    fn denied(denial: Denial) -> Result<(), WrapperError> {
        Err(WrapperError::Denied { reference: "k".into(), denial, permission: None, request_id: None })
    }

    #[test]
    fn the_health_of_one_wrapper_key_does_not_affect_another() {
        let health = tracker(Duration::from_mins(1));
        assert_eq!((health.of(ONE), health.needs_probe(ONE)), (WrapperHealth::Unknown, true));
        health.record_canary(ONE, &Ok(()));
        health.record_call(TWO, &down());
        assert_eq!((health.of(ONE), health.needs_probe(ONE)), (WrapperHealth::Ok, false));
        assert_eq!((health.of(TWO), health.needs_probe(TWO)), (WrapperHealth::Failing, true));
        assert_eq!(health.fault(TWO), down().err());
        health.record_call(TWO, &Ok(()));
        assert_eq!(health.fault(TWO), None);
    }

    #[test]
    fn a_refusal_of_access_is_decided_by_the_canary() {
        let health = tracker(Duration::from_mins(1));
        health.record_canary(ONE, &Ok(()));
        health.record_call(ONE, &denied(Denial::AccessDenied));
        assert_eq!((health.of(ONE), health.needs_probe(ONE)), (WrapperHealth::Ok, true));
        health.record_canary(ONE, &denied(Denial::AccessDenied));
        assert_eq!(health.of(ONE), WrapperHealth::Failing);
        health.record_call(TWO, &denied(Denial::Disabled));
        assert_eq!(health.of(TWO), WrapperHealth::Failing, "a disabled wrapper key fails for all keys");
    }

    #[test]
    fn a_probe_is_due_within_the_interval_and_a_denied_one_less_and_less_often() {
        let health = tracker(Duration::from_secs(40));
        let since = |elapsed: u64| {
            let at = Instant::now().checked_sub(Duration::from_secs(elapsed)).unwrap();
            health.lock().get_mut(&ONE).unwrap().at = at;
            health.needs_probe(ONE)
        };
        for _ in 0..50 {
            health.record_canary(ONE, &Ok(()));
            assert!(!since(17) && since(38), "between half of the interval and all of it");
        }
        // Pauses of 4, 8, 16, 32, 40, 40 s.
        for (early, due) in [(1, 2), (5, 6), (13, 14), (29, 30), (37, 38), (37, 38)] {
            health.record_canary(ONE, &denied(Denial::Disabled));
            assert!(!since(early) && since(due), "{early} {due}");
        }
        health.record_canary(ONE, &down());
        assert!(since(0), "an outage ends at any time");
    }

    #[test]
    fn a_probe_that_was_not_sent_changes_no_health() {
        let health = tracker(Duration::from_mins(1));
        let not_sent: Result<(), _> = Err(WrapperError::Unavailable { reference: "k".into(), outage: Outage::NotTried, request_id: None });
        health.record_canary(ONE, &not_sent);
        assert_eq!((health.of(ONE), health.needs_probe(ONE)), (WrapperHealth::Unknown, true));
        health.record_canary(ONE, &Ok(()));
        health.record_canary(ONE, &not_sent);
        assert_eq!((health.of(ONE), health.needs_probe(ONE)), (WrapperHealth::Ok, true));
    }

    #[test]
    fn only_registered_wrapper_keys_in_use_are_kept() {
        let health = tracker(Duration::from_mins(1));
        health.record_call(ONE, &down());
        health.record_call(TWO, &down());
        let key = WrapperKey {
            id: ONE,
            name: None,
            provider: ProviderKind::Local,
            identity: String::new(),
            reference: String::new(),
            regions: Vec::new(),
            state: WrapperState::Draining,
            canary: Vec::new(),
            created_at: Timestamp::from_micros(0),
        };
        health.retain(std::slice::from_ref(&key));
        assert_eq!((health.of(ONE), health.of(TWO)), (WrapperHealth::Failing, WrapperHealth::Unknown));
        health.retain(&[WrapperKey { state: WrapperState::Retired, ..key }]);
        assert_eq!(health.of(ONE), WrapperHealth::Unknown);
    }
}
