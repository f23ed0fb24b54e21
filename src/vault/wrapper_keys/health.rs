//! The health of wrapper keys as this process knows it, from the calls it makes. Nothing here calls a KMS.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    domain::{WrapperKey, WrapperKeyId, WrapperState, text_enum},
    kms::{Denial, WrapperError},
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
#[derive(Default)]
pub(super) struct HealthTracker {
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
    /// Whether the canary was opened at least once, and no inconclusive error occurred since.
    conclusive: bool,
    at: Instant,
}

impl HealthTracker {
    /// Records the result of a call for one key. An invalid wrap, a refusal of access (IAM can refuse the context of one key) and a wrap of
    /// an old key version do not prove that the wrapper key fails: the canary decides.
    pub(super) fn record_call<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let mut by_key = self.lock();
        let health = by_key.entry(id).or_insert_with(KeyHealth::unknown);
        match result {
            Err(WrapperError::Invalid { .. } | WrapperError::Denied { denial: Denial::AccessDenied | Denial::OldVersion, .. }) => {
                health.conclusive = false;
            }
            other => {
                let last = other.as_ref().map(drop).map_err(Clone::clone);
                tell(id, health.last.as_ref(), &last);
                health.last = Some(last);
            }
        }
        health.at = Instant::now();
    }

    /// Records whether a wrapper key opened its canary or was registered.
    pub(super) fn record_canary<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let last = result.as_ref().map(drop).map_err(Clone::clone);
        let mut by_key = self.lock();
        tell(id, by_key.get(&id).and_then(|health| health.last.as_ref()), &last);
        by_key.insert(id, KeyHealth { last: Some(last), conclusive: true, at: Instant::now() });
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

    /// Whether the canary of a wrapper key should be opened: at start, while it fails, after an inconclusive error, and if no call was made
    /// for [`CANARY_INTERVAL`]. Without the last condition a disabled standby key would not be noticed.
    pub(super) fn needs_canary(&self, id: WrapperKeyId) -> bool {
        self.lock()
            .get(&id)
            .is_none_or(|health| !health.conclusive || !matches!(health.last, Some(Ok(()))) || health.at.elapsed() >= CANARY_INTERVAL)
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

/// One log line when a wrapper key starts to fail, fails for another reason, or works again.
fn tell(id: WrapperKeyId, before: Option<&Result<(), WrapperError>>, now: &Result<(), WrapperError>) {
    let reason = |result: &Result<(), WrapperError>| result.as_ref().err().map(WrapperError::reason);
    let failed = before.and_then(reason);
    match now {
        Err(error) if failed != Some(error.reason()) => {
            tracing::warn!(wrapper_key = %id, reason = %error.reason(), %error, remedy = error.reason().remedy(), "a wrapper key fails");
        }
        Ok(()) if failed.is_some() => tracing::info!(wrapper_key = %id, "a wrapper key works again"),
        _ => {}
    }
}

impl KeyHealth {
    fn unknown() -> Self {
        Self { last: None, conclusive: false, at: Instant::now() }
    }
}

/// Maximum time without a call before the canary of a wrapper key is opened.
const CANARY_INTERVAL: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ProviderKind, Timestamp},
        kms::Outage,
    };

    const ONE: WrapperKeyId = WrapperKeyId::from_random([1; 6]);
    const TWO: WrapperKeyId = WrapperKeyId::from_random([2; 6]);

    fn down() -> Result<(), WrapperError> {
        Err(WrapperError::Unavailable { reference: "k".into(), outage: Outage::TimedOut, request_id: None })
    }

    fn denied(denial: Denial) -> Result<(), WrapperError> {
        Err(WrapperError::Denied { reference: "k".into(), denial, permission: None, request_id: None })
    }

    #[test]
    fn the_health_of_one_wrapper_key_does_not_affect_another() {
        let health = HealthTracker::default();
        assert_eq!((health.of(ONE), health.needs_canary(ONE)), (WrapperHealth::Unknown, true));
        health.record_canary(ONE, &Ok(()));
        health.record_call(TWO, &down());
        assert_eq!((health.of(ONE), health.needs_canary(ONE)), (WrapperHealth::Ok, false));
        assert_eq!((health.of(TWO), health.needs_canary(TWO)), (WrapperHealth::Failing, true));
        assert_eq!(health.fault(TWO), down().err());
        health.record_call(TWO, &Ok(()));
        assert_eq!(health.fault(TWO), None);
    }

    #[test]
    fn a_refusal_of_access_is_decided_by_the_canary() {
        let health = HealthTracker::default();
        health.record_canary(ONE, &Ok(()));
        health.record_call(ONE, &denied(Denial::AccessDenied));
        assert_eq!((health.of(ONE), health.needs_canary(ONE)), (WrapperHealth::Ok, true));
        health.record_canary(ONE, &denied(Denial::AccessDenied));
        assert_eq!(health.of(ONE), WrapperHealth::Failing);
        health.record_call(TWO, &denied(Denial::Disabled));
        assert_eq!(health.of(TWO), WrapperHealth::Failing, "a disabled wrapper key fails for all keys");
    }

    #[test]
    fn only_registered_wrapper_keys_in_use_are_kept() {
        let health = HealthTracker::default();
        health.record_call(ONE, &down());
        health.record_call(TWO, &down());
        let key = WrapperKey {
            id: ONE,
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
