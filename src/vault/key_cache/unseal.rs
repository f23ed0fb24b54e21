//! From a stored row to an open key: every check that stands between the two, and nothing that could be skipped.

use std::sync::Arc;

use crate::{
    crypto::{
        self, SecretBytes,
        envelope::{self, OpenError},
        on_wiped_stack,
    },
    domain::{KeyId, KeyRecord, KeyState, KmsUse, Lifecycle, Permit, Principal, WrapperKeyId},
    storage::StoredKey,
};

use super::cached_key::{CachedKey, OpenKey};
use crate::vault::{Vault, VaultError};

/// Whether a row without a tag may be opened: only by a step that tags it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum RowTagRule {
    Required,
    MayBeAbsent,
}

impl RowTagRule {
    /// A row in use has its tag; one that was put out of use may have lost it, since that must work while the KMS is down.
    pub(in crate::vault) const fn of(lifecycle: Lifecycle) -> Self {
        if lifecycle.can_decrypt() { Self::Required } else { Self::MayBeAbsent }
    }
}

/// Key material, out of its seal: lives as long as one call.
pub(in crate::vault) struct Unsealed {
    /// PKCS#8, or 32 raw bytes.
    pub material: SecretBytes,
    /// The parsed key and the row's key.
    pub ready: OpenKey,
    /// The wrapper key whose wrap was quarantined, and opened it after all.
    pub lift: Option<WrapperKeyId>,
}

impl Vault {
    /// The open key, from the cache or opened now, by one flight for all who wait.
    pub(in crate::vault) async fn opened(self: &Arc<Self>, permit: &Permit, id: KeyId) -> Result<Arc<CachedKey>, VaultError> {
        debug_assert!(permit.key() == Some(id), "a key is opened under a permit for it");
        let opened = self.cache.get_or_open(id, self.open(id, Some(permit.principal()))).await?;
        if self.store.revision() != opened.precondition().store_revision {
            // Something changed while it was loaded, perhaps this key, after whose change nobody would wipe it.
            let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
            if stored.record.revision != opened.revision {
                self.cache.forget(id).await;
                return Err(VaultError::Conflict);
            }
            opened.known_unchanged(stored.store_revision);
        }
        if opened.epoch != self.cache.epoch() {
            opened.wipe();
            return Err(VaultError::Frozen);
        }
        if self.cache.wants_refresh(&opened, (self.clock)()) {
            self.refresh_ahead(id);
        }
        Ok(opened)
    }

    /// Opens a hot key anew before its maximum age ends; if that fails, the old one serves on until it does end.
    fn refresh_ahead(self: &Arc<Self>, id: KeyId) {
        let Some(attempt) = self.refresh_state.begin(id, self.cache.refresh_pause()) else { return };
        let vault = Arc::clone(self);
        tokio::spawn(async move {
            match vault.open(id, None).await {
                Ok(opened) => {
                    vault.cache.refresh(opened).await;
                    attempt.succeeded();
                }
                Err(error) => tracing::warn!(%error, "a key in use could not be opened anew; it serves on until its max_age ends"),
            }
        });
    }

    /// Opens a key from the store; on behalf of a principal it counts against that one's cold opens.
    async fn open(&self, id: KeyId, on_behalf_of: Option<&Principal>) -> Result<Arc<CachedKey>, VaultError> {
        let epoch = self.cache.epoch();
        self.in_service()?;
        if let Some(principal) = on_behalf_of {
            self.limits.cold_open(principal)?;
        }
        let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        if !stored.record.lifecycle.can_decrypt() {
            self.check_row(&stored).await?;
            return Err(VaultError::State(stored.record.lifecycle.state()));
        }
        let mut kms = KmsUse::default();
        let Unsealed { ready, .. } = self.unseal(&stored, RowTagRule::Required, &mut kms).await?;
        if epoch != self.cache.epoch() {
            return Err(VaultError::Frozen);
        }
        Ok(Arc::new(CachedKey::new(&stored, ready, (self.clock)(), epoch, kms)))
    }

    /// Opens a row: the log agrees with it, a wrap gives its data key, its seal and its tag hold, and the key in it is the one it
    /// says. What fails is quarantined; an error of the KMS never is a reason.
    pub(in crate::vault) async fn unseal(&self, stored: &StoredKey, tag: RowTagRule, kms: &mut KmsUse) -> Result<Unsealed, VaultError> {
        self.check_row(stored).await?;
        let record = &stored.record;
        let context = record.attributes.encryption_context(&self.id);
        let Some(sealed) = &record.sealed else { return Err(self.quarantine(record, "its sealed bytes are gone").await) };
        let (data_key, lift) = match self.data_key(record, &context, tag, kms).await {
            Ok(found) => found,
            Err(error) => return Err(self.if_unopenable(record, error).await),
        };
        let opened = match on_wiped_stack(|| envelope::open(&data_key, sealed, &context)) {
            Ok(opened) => {
                metrics::counter!("keyvault_keys_opened_total").increment(1);
                opened
            }
            Err(OpenError::UnknownVersion) => return Err(self.quarantine(record, "sealed by an unknown version").await),
            Err(OpenError::Malformed | OpenError::Commitment | OpenError::Sealed) => {
                return Err(self.quarantine(record, "the seal does not hold").await);
            }
        };
        let tagged = match &record.row_tag {
            Some(stored_tag) => opened.row_key.verify(&record.tagged_bytes(), stored_tag),
            None => tag == RowTagRule::MayBeAbsent,
        };
        if !tagged {
            return Err(self.quarantine(record, "the row tag does not hold").await);
        }
        let Some(scheme) = crypto::scheme(record.attributes.spec, record.attributes.purpose) else {
            return Err(self.quarantine(record, "spec and purpose do not go together").await);
        };
        let Ok(private) = on_wiped_stack(|| scheme.parse(&opened.material)) else {
            return Err(self.quarantine(record, "the material is no key").await);
        };
        if !is_the_key_it_says(record, private.public_key()) || on_wiped_stack(|| crypto::prove(private.as_ref(), scheme)).is_err() {
            return Err(self.quarantine(record, "the material is another key").await);
        }
        Ok(Unsealed { material: opened.material, ready: OpenKey { private, row_key: opened.row_key }, lift })
    }

    /// Holds the row against the log's newest word: an edited or restored row is found out here.
    pub(in crate::vault) async fn check_row(&self, stored: &StoredKey) -> Result<(), VaultError> {
        if stored.logged == Some(stored.record.state_change()) {
            Ok(())
        } else {
            Err(self.quarantine(&stored.record, "the row is not the one that the log knows").await)
        }
    }

    /// Where no wrap is left that could ever open the key, the key itself is set aside, and that is the answer.
    async fn if_unopenable(&self, record: &KeyRecord, error: VaultError) -> VaultError {
        let nothing_opens = matches!(error, VaultError::State(KeyState::Quarantined));
        let now = match self.store.key(record.attributes.id).await {
            Ok(Some(now)) => now.record,
            // Then nobody knows how the key stands, and the caller may ask again.
            Err(unreadable) if nothing_opens => return unreadable.into(),
            Ok(None) | Err(_) => return error,
        };
        // Read before its wrap under a wrapper key that was retired meanwhile was replaced: it opens through those that it has now. Or
        // read before it was destroyed, which took its wraps.
        if now.lifecycle.is_destroyed() || (nothing_opens && now.wraps != record.wraps) {
            return VaultError::Conflict;
        }
        let hopeless = now.wraps.iter().all(|wrap| wrap.quarantined || wrap.generation != now.generation);
        if hopeless { self.quarantine(record, "no wrap opens it").await } else { error }
    }
}

/// The public key derived from the material is the stored one, and its fingerprint is the id (invariant 6).
fn is_the_key_it_says(record: &KeyRecord, derived: Option<&[u8]>) -> bool {
    match (derived, &record.public_key, record.attributes.id) {
        (Some(derived), Some(stored), KeyId::Pair(id)) => {
            derived == stored && crypto::fingerprint(record.attributes.spec, record.attributes.purpose, derived) == id
        }
        (None, None, KeyId::Symmetric(_)) => true,
        _ => false,
    }
}
