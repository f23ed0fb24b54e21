//! What the vault knows of its own health, from the calls it makes: never from asking something that could hang.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    storage::{CommitError, Receipt},
    wrapper::WrapperError,
};

use super::Code;

/// The last known state of the parts that can fail.
#[derive(Default)]
pub(super) struct Health {
    stopping: AtomicBool,
    audit_failing: AtomicBool,
    /// The code of the wrapper's last failure; `None` after a success, and before the first call.
    wrapper: Mutex<Option<Code>>,
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

    /// Notes how a call to a wrapper key ended. An invalid wrap is not the wrapper's fault.
    pub(super) fn wrapper<T>(&self, result: &Result<T, WrapperError>) {
        let now = match result {
            Ok(_) | Err(WrapperError::Invalid { .. }) => None,
            Err(WrapperError::Unavailable { .. }) => Some(Code::WrapperUnavailable),
            Err(WrapperError::NotAllowed { .. }) => Some(Code::WrapperNotAllowed),
            Err(WrapperError::Denied { .. } | WrapperError::Misconfigured { .. }) => Some(Code::WrapperDenied),
        };
        *self.wrapper.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The code of the wrapper's last failure, if it has not worked since.
    pub(super) fn wrapper_fault(&self) -> Option<Code> {
        *self.wrapper.lock().unwrap_or_else(PoisonError::into_inner)
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
