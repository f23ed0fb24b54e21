//! What the vault knows of its own health, from the calls it makes: never from asking something that could hang.

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
    storage::{CommitError, Receipt},
};

text_enum!(
    /// What this process knows of a wrapper key, from its own calls.
    WrapperHealth as "wrapper health" {
        /// It worked when it was last asked.
        Ok = "ok",
        /// It did not work when it was last asked.
        Failing = "failing",
        /// It was not asked yet.
        Unknown = "unknown",
    }
);

/// The last known state of the parts that can fail.
#[derive(Default)]
pub(super) struct Health {
    stopping: AtomicBool,
    audit_failing: AtomicBool,
    /// Whether the active wrapper key was held against the configuration.
    compared: AtomicBool,
    /// Why there is no first wrapper key yet; `None` also before the first attempt.
    first: Mutex<Option<WrapperError>>,
    /// What was heard of each registered wrapper key that is not retired.
    wrappers: Mutex<HashMap<WrapperKeyId, WrapperHealthRecord>>,
}

/// What was heard of one wrapper key.
struct WrapperHealthRecord {
    /// How it fared last; `None` if nobody could tell yet.
    last: Option<Result<(), WrapperError>>,
    /// Whether its canary was asked at least once, and nothing happened since that only it can settle.
    settled: bool,
    at: Instant,
}

impl Health {
    /// Notes how a commit ended: only an unavailable store is ill health.
    pub(super) fn audit(&self, result: &Result<Receipt, CommitError>) {
        self.audit_failing.store(matches!(result, Err(CommitError::Unavailable(_))), Ordering::Relaxed);
    }

    /// Whether the last commit could not be made durable.
    pub(super) fn audit_failing(&self) -> bool {
        self.audit_failing.load(Ordering::Relaxed)
    }

    /// Notes how a call for one key ended. An invalid wrap is not the wrapper key's fault, and neither is, by itself, a refusal of
    /// access: IAM may refuse one key's context and allow all others. Nor is a wrap of an old version. So these leave the verdict to the
    /// canary.
    pub(super) fn wrapper<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let mut wrappers = self.wrappers();
        let heard = wrappers.entry(id).or_insert_with(WrapperHealthRecord::nothing);
        match result {
            Err(WrapperError::Invalid { .. } | WrapperError::Denied { denial: Denial::AccessDenied | Denial::OldVersion, .. }) => {
                heard.settled = false;
            }
            other => heard.last = Some(other.as_ref().map(drop).map_err(Clone::clone)),
        }
        heard.at = Instant::now();
    }

    /// Notes how a wrapper key itself fared, by its canary or its registration.
    pub(super) fn canary<T>(&self, id: WrapperKeyId, result: &Result<T, WrapperError>) {
        let last = Some(result.as_ref().map(drop).map_err(Clone::clone));
        self.wrappers().insert(id, WrapperHealthRecord { last, settled: true, at: Instant::now() });
    }

    /// Notes why the first wrapper key could not be registered.
    pub(super) fn no_first_wrapper(&self, error: &WrapperError) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    /// Why the first wrapper key could not be registered.
    pub(super) fn first_wrapper_fault(&self) -> Option<WrapperError> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets every wrapper key but these, and the retired ones of these.
    pub(super) fn know_only(&self, keys: &[WrapperKey]) {
        let known = |id: &WrapperKeyId| keys.iter().any(|key| key.id == *id && key.state != WrapperState::Retired);
        self.wrappers().retain(|id, _| known(id));
    }

    /// Whether the canary of a wrapper key has something to settle: at the start, while there is a fault, on suspicion, and after a
    /// silence. Whoever disabled a key that only stands by would not be noticed otherwise.
    pub(super) fn wants_canary(&self, id: WrapperKeyId) -> bool {
        self.wrappers().get(&id).is_none_or(|heard| !heard.settled || !matches!(heard.last, Some(Ok(()))) || heard.at.elapsed() >= SILENCE)
    }

    /// Whether the active wrapper key was not held against the configuration yet.
    pub(super) fn wants_comparison(&self) -> bool {
        !self.compared.load(Ordering::Relaxed)
    }

    /// The active wrapper key was held against the configuration.
    pub(super) fn compared(&self) {
        self.compared.store(true, Ordering::Relaxed);
    }

    /// The last failure of a wrapper key, if it has not worked since.
    pub(super) fn wrapper_fault(&self, id: WrapperKeyId) -> Option<WrapperError> {
        self.wrappers().get(&id)?.last.clone()?.err()
    }

    /// What is known of a wrapper key.
    pub(super) fn of_wrapper(&self, id: WrapperKeyId) -> WrapperHealth {
        match self.wrappers().get(&id).map(|heard| &heard.last) {
            Some(Some(Ok(()))) => WrapperHealth::Ok,
            Some(Some(Err(_))) => WrapperHealth::Failing,
            Some(None) | None => WrapperHealth::Unknown,
        }
    }

    fn wrappers(&self) -> MutexGuard<'_, HashMap<WrapperKeyId, WrapperHealthRecord>> {
        self.wrappers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no call is taken.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the vault is stopping.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

impl WrapperHealthRecord {
    fn nothing() -> Self {
        Self { last: None, settled: false, at: Instant::now() }
    }
}

/// A wrapper key that nobody used for so long is asked how it is.
const SILENCE: Duration = Duration::from_mins(5);

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
        Err(WrapperError::Denied { reference: "k".into(), denial, request_id: None })
    }

    #[test]
    fn one_wrapper_key_says_nothing_of_another() {
        let health = Health::default();
        assert_eq!((health.of_wrapper(ONE), health.wants_canary(ONE)), (WrapperHealth::Unknown, true));
        health.canary(ONE, &Ok(()));
        health.wrapper(TWO, &down());
        assert_eq!((health.of_wrapper(ONE), health.wants_canary(ONE)), (WrapperHealth::Ok, false));
        assert_eq!((health.of_wrapper(TWO), health.wants_canary(TWO)), (WrapperHealth::Failing, true));
        assert_eq!(health.wrapper_fault(TWO), down().err());
        health.wrapper(TWO, &Ok(()));
        assert_eq!(health.wrapper_fault(TWO), None);
    }

    #[test]
    fn a_refusal_of_access_is_left_to_the_canary() {
        let health = Health::default();
        health.canary(ONE, &Ok(()));
        health.wrapper(ONE, &denied(Denial::AccessDenied));
        assert_eq!((health.of_wrapper(ONE), health.wants_canary(ONE)), (WrapperHealth::Ok, true));
        health.canary(ONE, &denied(Denial::AccessDenied));
        assert_eq!(health.of_wrapper(ONE), WrapperHealth::Failing);
        health.wrapper(TWO, &denied(Denial::Disabled));
        assert_eq!(health.of_wrapper(TWO), WrapperHealth::Failing, "a disabled key is disabled for all");
    }

    #[test]
    fn only_registered_keys_in_use_are_kept_in_mind() {
        let health = Health::default();
        health.wrapper(ONE, &down());
        health.wrapper(TWO, &down());
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
        health.know_only(std::slice::from_ref(&key));
        assert_eq!((health.of_wrapper(ONE), health.of_wrapper(TWO)), (WrapperHealth::Failing, WrapperHealth::Unknown));
        health.know_only(&[WrapperKey { state: WrapperState::Retired, ..key }]);
        assert_eq!(health.of_wrapper(ONE), WrapperHealth::Unknown);
    }
}
