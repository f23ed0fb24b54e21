//! What is in force but not yet in the log: disables and freezes made while the log was down, kept until it takes them.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, RwLock},
};

use crate::domain::{AuditEvent, KeyId};

/// A change in force that waits for its entry.
pub(in crate::vault) enum PendingEntry {
    Disable { id: KeyId, event: Box<AuditEvent> },
    Freeze { event: Box<AuditEvent> },
}

/// The waiting list, and the keys that are off in memory whatever the store says.
#[derive(Default)]
pub(in crate::vault) struct PendingAudit {
    waiting: Mutex<Vec<PendingEntry>>,
    off: RwLock<HashSet<KeyId>>,
}

impl PendingAudit {
    /// The key is refused from now on.
    pub(in crate::vault) fn disable(&self, id: KeyId) {
        self.off.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// The store says so itself now, or the disable did not come about.
    pub(in crate::vault) fn enabled(&self, id: KeyId) {
        let waits =
            self.lock().iter().any(|pending_audit| matches!(pending_audit, PendingEntry::Disable { id: waiting, .. } if *waiting == id));
        if !waits {
            self.off.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// Whether the key is off in memory.
    pub(in crate::vault) fn disables(&self, id: KeyId) -> bool {
        self.off.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Keeps a change until its entry can be written.
    pub(in crate::vault) fn push(&self, pending_audit: PendingEntry) {
        self.lock().push(pending_audit);
    }

    /// A freeze that waits for its entry is overtaken.
    pub(in crate::vault) fn unfrozen(&self) {
        self.lock().retain(|pending_audit| !matches!(pending_audit, PendingEntry::Freeze { .. }));
    }

    /// Takes the waiting list, to try it again.
    pub(in crate::vault) fn take(&self) -> Vec<PendingEntry> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PendingEntry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
