//! A key that is open in memory: usable, not readable, and wiped the moment it is let go.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use crate::{
    crypto::{PrivateKey, envelope::RowKey},
    domain::{KeyAttributes, KmsUse, Lifecycle, Timestamp},
    storage::{KeyPrecondition, StoredKey},
};

/// The two secrets of an open key. Wiped when the last use in flight ends.
pub(in crate::vault) struct OpenKey {
    /// The parsed private or symmetric key.
    pub private: Box<dyn PrivateKey>,
    /// Authenticates the row.
    pub row_key: RowKey,
}

/// An open key with the facts it was opened under.
pub(in crate::vault) struct CachedKey {
    /// What is bound.
    pub attributes: KeyAttributes,
    /// Its marks when it was opened.
    pub lifecycle: Lifecycle,
    /// Its revision when it was opened.
    pub revision: u64,
    /// When it was opened.
    pub at: Timestamp,
    /// The freeze epoch it was opened in.
    pub epoch: u64,
    /// The newest revision of the store at which the key was known to be unchanged.
    store_revision: AtomicU64,
    /// KMS request ids of the opening, for the entry of whoever caused it.
    kms: Mutex<KmsUse>,
    ready: ArcSwapOption<OpenKey>,
}

impl CachedKey {
    pub(in crate::vault) fn new(stored: &StoredKey, ready: OpenKey, at: Timestamp, epoch: u64, kms: KmsUse) -> Self {
        Self {
            attributes: stored.record.attributes.clone(),
            lifecycle: stored.record.lifecycle,
            revision: stored.record.revision,
            at,
            epoch,
            store_revision: AtomicU64::new(stored.store_revision),
            kms: Mutex::new(kms),
            ready: ArcSwapOption::from_pointee(ready),
        }
    }

    /// The key, unless it was wiped meanwhile.
    pub(in crate::vault) fn ready(&self) -> Option<Arc<OpenKey>> {
        self.ready.load_full()
    }

    /// Lets the secrets go; uses in flight end first.
    pub(in crate::vault) fn wipe(&self) {
        self.ready.store(None);
    }

    /// What a result under this key depends on.
    pub(in crate::vault) fn precondition(&self) -> KeyPrecondition {
        KeyPrecondition { key: self.attributes.id, revision: self.revision, store_revision: self.store_revision.load(Ordering::Acquire) }
    }

    /// A commit found the key unchanged at this revision of the store: the next need not look again.
    pub(in crate::vault) fn known_unchanged(&self, store_revision: u64) {
        self.store_revision.fetch_max(store_revision, Ordering::AcqRel);
    }

    /// What the opening asked of a KMS; given once.
    pub(in crate::vault) fn take_kms(&self) -> KmsUse {
        std::mem::take(&mut self.kms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
