//! What is in force but not yet in the log: disables and freezes made while the log was down, kept until it takes them.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, RwLock},
};

use crate::domain::{AuditEvent, KeyId};

/// A change in force that waits for its entry.
pub(super) enum Deferred {
    Disable { id: KeyId, event: Box<AuditEvent> },
    Freeze { event: Box<AuditEvent> },
}

/// The waiting list, and the keys that are off in memory whatever the store says.
#[derive(Default)]
pub(super) struct DeferredList {
    waiting: Mutex<Vec<Deferred>>,
    off: RwLock<HashSet<KeyId>>,
}

impl DeferredList {
    /// The key is refused from now on.
    pub(super) fn disable(&self, id: KeyId) {
        self.off.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// The store says so itself now, or the disable did not come about.
    pub(super) fn enabled(&self, id: KeyId) {
        let waits = self.lock().iter().any(|deferred| matches!(deferred, Deferred::Disable { id: waiting, .. } if *waiting == id));
        if !waits {
            self.off.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// Whether the key is off in memory.
    pub(super) fn disables(&self, id: KeyId) -> bool {
        self.off.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Keeps a change until its entry can be written.
    pub(super) fn push(&self, deferred: Deferred) {
        self.lock().push(deferred);
    }

    /// A freeze that waits for its entry is overtaken.
    pub(super) fn unfrozen(&self) {
        self.lock().retain(|deferred| !matches!(deferred, Deferred::Freeze { .. }));
    }

    /// Takes the waiting list, to try it again.
    pub(super) fn take(&self) -> Vec<Deferred> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Deferred>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
