//! A private key that is open in memory. Other code can use it but cannot read it, and it is wiped when it is evicted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use crate::{
    crypto::{PrivateKey, envelope::RowKey},
    domain::{KeyAttributes, KmsUse, Lifecycle, Origin, Timestamp},
    storage::{KeyPrecondition, StoredKey},
};

/// The two secrets of an open key. They are wiped when the last use in progress ends.
pub(in crate::vault) struct OpenKey {
    /// The parsed private or symmetric key.
    pub private: Box<dyn PrivateKey>,
    /// Authenticates the state of the row.
    pub row_key: RowKey,
}

/// A cache entry: an open key, and the row that it was opened from.
pub(in crate::vault) struct CachedKey {
    /// The attributes, which are bound to the sealed key.
    pub attributes: KeyAttributes,
    /// The state when the key was opened.
    pub lifecycle: Lifecycle,
    /// The revision of the row when the key was opened.
    pub revision: u64,
    /// The time when the key was opened.
    pub opened_at: Timestamp,
    /// The freeze epoch in which the key was opened.
    pub epoch: u64,
    /// The newest revision of the store at which the key was known to be unchanged.
    store_revision: AtomicU64,
    /// The wrapper keys that took part in the opening, for the audit entry of the call that caused it.
    kms: Mutex<KmsUse>,
    open_key: ArcSwapOption<OpenKey>,
}

impl CachedKey {
    pub(super) fn new(stored: &StoredKey, open_key: OpenKey, opened_at: Timestamp, epoch: u64, kms: KmsUse) -> Self {
        Self {
            attributes: stored.record.attributes.clone(),
            lifecycle: stored.record.lifecycle,
            revision: stored.record.revision,
            opened_at,
            epoch,
            store_revision: AtomicU64::new(stored.store_revision),
            kms: Mutex::new(kms),
            open_key: ArcSwapOption::from_pointee(open_key),
        }
    }

    /// The secrets. `None` if the key was wiped meanwhile.
    pub(in crate::vault) fn open_key(&self) -> Option<Arc<OpenKey>> {
        self.open_key.load_full()
    }

    /// Whether the key was not wiped.
    pub(super) fn is_open(&self) -> bool {
        self.open_key.load().is_some()
    }

    /// Drops the secrets. Uses in progress end first.
    pub(super) fn wipe(&self) {
        self.open_key.store(None);
    }

    /// What must still hold when a result of this key is committed.
    pub(in crate::vault) fn precondition(&self) -> KeyPrecondition {
        KeyPrecondition {
            key: self.attributes.id,
            revision: self.revision,
            store_revision: self.store_revision.load(Ordering::Acquire),
            imported: self.attributes.origin == Origin::Imported,
        }
    }

    /// Records that the key is unchanged at this revision of the store, so that the next use need not read the row.
    pub(in crate::vault) fn record_unchanged(&self, store_revision: u64) {
        self.store_revision.fetch_max(store_revision, Ordering::AcqRel);
    }

    /// The wrapper keys of the opening. Only the first call gets them.
    pub(in crate::vault) fn take_kms(&self) -> KmsUse {
        std::mem::take(&mut self.kms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
