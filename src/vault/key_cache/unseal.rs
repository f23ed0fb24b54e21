//! From a stored row to an open key: all checks between the two.

use std::sync::Arc;

use crate::{
    crypto::{
        self, PrivateKey, Scheme, SecretBytes,
        envelope::{self, OpenError, Opened},
        with_wiped_stack,
    },
    domain::{KeyId, KeyRecord, KeyState, KmsUse, Lifecycle, WrapperKeyId},
    storage::StoredKey,
};

use super::{KeyCache, OpenKey};
use crate::vault::{VaultError, heavy_work::on_blocking_thread, wrapper_keys::DataKey};

/// Whether a row without a tag may be unsealed. Only a transition that writes a new tag may do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum RowTagRule {
    /// The row must have a valid tag.
    Required,
    /// The row may have no tag. A tag that is present must be valid.
    MayBeAbsent,
}

impl RowTagRule {
    /// A row in use has a tag. A row that was disabled while the KMS was unavailable can have none.
    pub(in crate::vault) const fn of(lifecycle: Lifecycle) -> Self {
        if lifecycle.can_decrypt() { Self::Required } else { Self::MayBeAbsent }
    }
}

/// Unsealed key material. It lives as long as one call.
pub(in crate::vault) struct UnsealedKey {
    /// PKCS#8 DER, or 32 raw bytes of a symmetric key.
    pub material: SecretBytes,
    /// The parsed key and the key of the row tag.
    pub open_key: OpenKey,
    /// The wrapper key of the wrap that opened the key, if that wrap is quarantined in the store.
    pub reinstated_wrap: Option<WrapperKeyId>,
}

impl KeyCache {
    /// Unseals a row. The audit log must agree with the row, a wrap must give the data key, the seal and the row tag must be valid, and the
    /// key must be the one that the row names. A key that fails a check is quarantined; an error of the KMS never quarantines a key.
    ///
    /// # Errors
    /// `State(Quarantined)` after a failed check; the errors of the store and the KMS.
    pub(in crate::vault) async fn unseal(&self, stored: &StoredKey, tag: RowTagRule, kms: &mut KmsUse) -> Result<UnsealedKey, VaultError> {
        self.check_row(stored).await?;
        let record = &stored.record;
        let context = record.attributes.encryption_context(&self.env.vault_id);
        let Some(sealed) = &record.sealed else { return Err(self.quarantine(record, "its sealed bytes are missing").await) };
        let quarantined_too = tag == RowTagRule::MayBeAbsent;
        let DataKey { key: data_key, reinstated_wrap } = match self.wrapper_keys.data_key(record, &context, quarantined_too, kms).await {
            Ok(found) => found,
            Err(error) => return Err(self.quarantine_if_no_wrap_opens(record, error).await),
        };
        let opened = match with_wiped_stack(|| envelope::open(&data_key, sealed, &context)) {
            Ok(opened) => {
                metrics::counter!("keyvault_keys_opened_total").increment(1);
                opened
            }
            Err(OpenError::UnknownVersion) => return Err(self.quarantine(record, "sealed by an unknown version").await),
            Err(OpenError::Malformed | OpenError::Commitment | OpenError::Sealed) => {
                return Err(self.quarantine(record, "the seal does not hold").await);
            }
        };
        let tag_valid = match &record.row_tag {
            Some(stored_tag) => opened.row_key.verify(&record.tagged_bytes(), stored_tag),
            None => tag == RowTagRule::MayBeAbsent,
        };
        if !tag_valid {
            return Err(self.quarantine(record, "the row tag does not hold").await);
        }
        let Some(scheme) = crypto::scheme(record.attributes.spec, record.attributes.purpose) else {
            return Err(self.quarantine(record, "spec and purpose do not go together").await);
        };
        let Opened { material, row_key } = opened;
        let parsed = if scheme.is_expensive() {
            let slot = Arc::clone(&self.parsing).acquire_owned().await.map_err(|_| VaultError::ShuttingDown)?;
            let computation = move || {
                let _slot = slot;
                Ok(parse(scheme, material))
            };
            on_blocking_thread(computation).await?
        } else {
            with_wiped_stack(|| parse(scheme, material))
        };
        let Some(Parsed { material, private, usable }) = parsed else {
            return Err(self.quarantine(record, "the material is no key").await);
        };
        if !matches_id(record, private.public_key()) || !usable {
            return Err(self.quarantine(record, "the material is another key").await);
        }
        Ok(UnsealedKey { material, open_key: OpenKey { private, row_key }, reinstated_wrap })
    }

    /// Compares the row with the newest state change of the key in the audit log. This detects an edited or restored row.
    ///
    /// # Errors
    /// `State(Quarantined)`.
    pub(in crate::vault) async fn check_row(&self, stored: &StoredKey) -> Result<(), VaultError> {
        if stored.logged_state == Some(stored.record.state_change()) {
            Ok(())
        } else {
            Err(self.quarantine(&stored.record, "the row is not the one that the log knows").await)
        }
    }

    /// Quarantines the key if no wrap is left that can ever open it. Returns the error for the caller.
    async fn quarantine_if_no_wrap_opens(&self, record: &KeyRecord, error: VaultError) -> VaultError {
        let all_invalid = matches!(error, VaultError::State(KeyState::Quarantined));
        let current = match self.env.store.key(record.attributes.id).await {
            Ok(Some(current)) => current.record,
            // The state of the key is unknown, and the caller may retry.
            Err(unreadable) if all_invalid => return unreadable.into(),
            Ok(None) | Err(_) => return error,
        };
        // The row was read before its wraps were replaced (after a rotation and a retirement), or before the key was destroyed.
        if current.lifecycle.is_destroyed() || (all_invalid && current.wraps != record.wraps) {
            return VaultError::Conflict;
        }
        let none_left = current.wraps.iter().all(|wrap| wrap.quarantined || wrap.generation != current.generation);
        if none_left { self.quarantine(record, "no wrap opens it").await } else { error }
    }
}

/// A parsed key, and whether it passed its self-test.
struct Parsed {
    material: SecretBytes,
    private: Box<dyn PrivateKey>,
    usable: bool,
}

/// Parses and tests material. `None` if it is no key of the scheme.
fn parse(scheme: &dyn Scheme, material: SecretBytes) -> Option<Parsed> {
    let private = scheme.parse(&material).ok()?;
    let usable = crypto::self_test(private.as_ref(), scheme).is_ok();
    Some(Parsed { material, private, usable })
}

/// Whether the public key derived from the material is the stored one and its fingerprint is the key id (invariant 6).
fn matches_id(record: &KeyRecord, derived: Option<&[u8]>) -> bool {
    match (derived, &record.public_key, record.attributes.id) {
        (Some(derived), Some(stored), KeyId::Pair(id)) => {
            derived == stored && crypto::fingerprint(record.attributes.spec, record.attributes.purpose, derived) == id
        }
        (None, None, KeyId::Symmetric(_)) => true,
        _ => false,
    }
}
