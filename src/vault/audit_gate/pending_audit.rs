//! Disables and freezes that took effect while the audit log was unavailable, kept until their entries can be written.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use crate::domain::{AuditEvent, KeyId};

/// A change that is in force and whose audit entry is not yet written.
pub(in crate::vault) enum PendingEntry {
    /// A disabled key.
    Disable {
        /// The key.
        id: KeyId,
        /// The event of the call.
        event: Box<AuditEvent>,
    },
    /// A freeze of the vault.
    Freeze {
        /// The event of the call.
        event: Box<AuditEvent>,
    },
}

impl PendingEntry {
    /// Whether both record the same change by the same principal.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Freeze { event: one }, Self::Freeze { event: other }) => one.principal.name == other.principal.name,
            (Self::Disable { id: one, event }, Self::Disable { id: other, event: later }) => {
                one == other && event.principal.name == later.principal.name
            }
            _ => false,
        }
    }
}

/// The pending entries, oldest first, and the keys that are disabled in memory, independent of their state in the store.
#[derive(Default)]
pub(in crate::vault) struct PendingAudit {
    entries: Mutex<Vec<PendingEntry>>,
    disabled: RwLock<HashSet<KeyId>>,
}

impl PendingAudit {
    /// Disables a key in memory.
    pub(in crate::vault) fn disable(&self, id: KeyId) {
        self.disabled.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Ends the disablement in memory, because the store holds it now or because the disable failed. A key with a pending entry stays
    /// disabled.
    pub(in crate::vault) fn clear_disabled(&self, id: KeyId) {
        let pending = self.lock().iter().any(|entry| matches!(entry, PendingEntry::Disable { id: pending, .. } if *pending == id));
        if !pending {
            self.disabled.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// Whether the key is disabled in memory.
    pub(in crate::vault) fn is_disabled(&self, id: KeyId) -> bool {
        self.disabled.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Keeps an entry until it can be written. A principal that repeats its call while its entry is pending adds none, so that the entries do
    /// not grow during an outage.
    pub(in crate::vault) fn push(&self, entry: PendingEntry) {
        let mut entries = self.lock();
        if !entries.iter().any(|pending| pending.covers(&entry)) {
            entries.push(entry);
        }
    }

    /// Whether a freeze is not in the audit log yet.
    pub(in crate::vault) fn has_freeze(&self) -> bool {
        self.lock().iter().any(|entry| matches!(entry, PendingEntry::Freeze { .. }))
    }

    /// Discards pending freezes, because an unfreeze was committed after them.
    pub(in crate::vault) fn discard_freezes(&self) {
        self.lock().retain(|entry| !matches!(entry, PendingEntry::Freeze { .. }));
    }

    /// Takes all pending entries for another attempt to write them.
    pub(in crate::vault) fn take(&self) -> Vec<PendingEntry> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PendingEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
