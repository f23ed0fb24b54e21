//! What the vault knows of its own health, from the calls it makes: never from asking something that could hang.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    storage::{CommitError, Receipt},
    wrapper::{Denial, WrapperError},
};

/// The last known state of the parts that can fail.
#[derive(Default)]
pub(super) struct Health {
    stopping: AtomicBool,
    audit_failing: AtomicBool,
    /// Whether the canary was asked at least once, and nothing happened since that only it can settle.
    canary_settled: AtomicBool,
    /// Whether the active wrapper key was held against the configuration.
    compared: AtomicBool,
    /// The wrapper's last failure; `None` after a success, and before the first call.
    wrapper: Mutex<Option<WrapperError>>,
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
    /// access: IAM may refuse one key's context and allow all others. So these two leave the verdict to the canary.
    pub(super) fn wrapper<T>(&self, result: &Result<T, WrapperError>) {
        match result {
            Err(WrapperError::Invalid { .. } | WrapperError::Denied { denial: Denial::AccessDenied, .. }) => {
                self.canary_settled.store(false, Ordering::Relaxed);
            }
            other => self.set_wrapper(other.as_ref().err()),
        }
    }

    /// Notes how the wrapper key itself fared, by its canary or its registration.
    pub(super) fn canary<T>(&self, result: &Result<T, WrapperError>) {
        self.canary_settled.store(true, Ordering::Relaxed);
        self.set_wrapper(result.as_ref().err());
    }

    fn set_wrapper(&self, fault: Option<&WrapperError>) {
        *self.wrapper.lock().unwrap_or_else(PoisonError::into_inner) = fault.cloned();
    }

    /// Whether the canary has something to settle: at the start, while there is a fault, and on suspicion.
    pub(super) fn wants_canary(&self) -> bool {
        !self.canary_settled.load(Ordering::Relaxed) || self.wrapper_fault().is_some()
    }

    /// Whether the active wrapper key was not held against the configuration yet.
    pub(super) fn wants_comparison(&self) -> bool {
        !self.compared.load(Ordering::Relaxed)
    }

    /// The active wrapper key was held against the configuration.
    pub(super) fn compared(&self) {
        self.compared.store(true, Ordering::Relaxed);
    }

    /// The wrapper's last failure, if it has not worked since.
    pub(super) fn wrapper_fault(&self) -> Option<WrapperError> {
        self.wrapper.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
