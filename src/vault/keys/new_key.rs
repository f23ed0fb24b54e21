//! What create, import and rotate share: the id and attributes of a new key, and its sealed, wrapped and tagged first row.

use std::sync::Arc;

use crate::{
    crypto::{self, PrivateKey, Scheme, SecretBytes, envelope, with_wiped_stack},
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, KeySpec, Lifecycle, Principal, Purpose, Usage, Usages, Wrap,
        WrapperKeyId,
    },
};

use crate::vault::{
    Vault, VaultError,
    environment::Environment,
    heavy_work::{Heavy, on_blocking_thread},
};

/// The id of new key material, and its public key (SPKI DER) if it has one.
pub(super) struct KeyIdentity {
    pub id: KeyId,
    pub public_key: Option<Vec<u8>>,
}

/// A key to seal: what its first row contains besides the sealed material.
pub(super) struct KeyToSeal {
    pub attributes: KeyAttributes,
    pub public_key: Option<Vec<u8>>,
    pub name: Option<KeyName>,
    pub predecessor: Option<KeyId>,
    /// The destroyed key with the same id whose row the new one replaces.
    pub replaces: Option<Replaced>,
}

/// The last revision and generation of a destroyed key. Those of the key that replaces it follow.
#[derive(Clone, Copy)]
pub(super) struct Replaced {
    pub revision: u64,
    pub generation: u32,
}

/// The first row of a key, and the wrapper key of its wrap, which must still be active at the commit.
pub(in crate::vault) struct SealedNewKey {
    pub record: KeyRecord,
    pub active: WrapperKeyId,
}

/// New key material and its identity.
pub(super) struct NewMaterial {
    pub bytes: SecretBytes,
    pub identity: KeyIdentity,
}

impl Vault {
    /// Generates and identifies key material on a blocking thread: that of an expensive scheme within the share of the principal, as a use of
    /// the key.
    ///
    /// # Errors
    /// `InvalidAttributes` if no scheme has this spec and purpose; `TooMany`.
    pub(super) async fn generate(&self, principal: &Principal, spec: KeySpec, purpose: Purpose) -> Result<NewMaterial, VaultError> {
        let (scheme, env) = (scheme_of(spec, purpose)?, Arc::clone(&self.env));
        let computation = move || {
            let bytes = scheme.generate(env.random.as_ref())?;
            let identity = identify(&env, spec, purpose, &bytes)?;
            Ok(NewMaterial { bytes, identity })
        };
        if scheme.is_expensive() {
            self.limits.heavy(principal, Heavy::Computation, computation).await
        } else {
            on_blocking_thread(computation).await
        }
    }

    /// A new Ed25519 key of the vault itself, sealed, and open.
    ///
    /// # Errors
    /// As [`identify`] and [`Vault::seal_new_key`].
    pub(in crate::vault) async fn new_vault_key(
        &self,
        event: &mut AuditEvent,
        attributes: impl FnOnce(KeyId) -> KeyAttributes,
    ) -> Result<(SealedNewKey, Box<dyn PrivateKey>), VaultError> {
        let (spec, purpose) = (KeySpec::EcCurve25519, Purpose::Signing);
        let material = with_wiped_stack(|| scheme_of(spec, purpose)?.generate(self.env.random.as_ref()).map_err(VaultError::from))?;
        let KeyIdentity { id, public_key } = identify(&self.env, spec, purpose, &material)?;
        let to_seal = KeyToSeal { attributes: attributes(id), public_key, name: None, predecessor: None, replaces: None };
        let private = scheme_of(spec, purpose)?.parse(&material)?;
        Ok((self.seal_new_key(event, to_seal, &material).await?, private))
    }

    /// Seals new material under a new data key, and wraps the data key under the active wrapper key.
    ///
    /// # Errors
    /// The errors of the wrapper keys; `Internal` without randomness.
    pub(super) async fn seal_new_key(
        &self,
        event: &mut AuditEvent,
        new: KeyToSeal,
        material: &SecretBytes,
    ) -> Result<SealedNewKey, VaultError> {
        let KeyToSeal { attributes, public_key, name, predecessor, replaces } = new;
        let Replaced { revision, generation } = replaces.unwrap_or(Replaced { revision: 0, generation: 0 });
        let (revision, generation) = (revision.saturating_add(1), generation.saturating_add(1));
        event.key = Some(attributes.id);
        let context = attributes.encryption_context(&self.env.vault_id);
        let data_key = envelope::new_data_key(self.env.random.as_ref())?;
        let (sealed, row_key) = with_wiped_stack(|| envelope::seal(&data_key, material, &context, self.env.random.as_ref()))?;
        let (wrapper_key, wrapped) = self.wrapper_keys.wrap(&data_key, &context, &mut event.kms).await?;
        let now = self.env.now();
        let mut record = KeyRecord {
            attributes,
            name,
            public_key,
            created_at: now,
            generation,
            revision,
            lifecycle: Lifecycle::ACTIVE,
            successor: None,
            predecessor,
            delete_at: None,
            row_tag: None,
            sealed: Some(sealed),
            wraps: vec![Wrap { wrapper_key, generation, wrapped, created_at: now, verified_at: Some(now), quarantined: false }],
        };
        record.row_tag = Some(row_key.tag(&record.tagged_bytes()));
        event.change = Some(record.state_change());
        Ok(SealedNewKey { record, active: wrapper_key })
    }

    /// The stored record of a key.
    ///
    /// # Errors
    /// `KeyNotFound` or `StorageUnavailable`.
    pub(super) async fn record(&self, id: KeyId) -> Result<KeyRecord, VaultError> {
        self.env.store.key(id).await?.map(|stored| stored.record).ok_or(VaultError::KeyNotFound(id))
    }
}

/// The identity of new key material, after a self-test of the key. A symmetric key gets a random id. Takes milliseconds for RSA, so that it runs
/// on a blocking thread.
///
/// # Errors
/// `InvalidAttributes` if no scheme has this spec and purpose; `InvalidMaterial`.
pub(super) fn identify(env: &Environment, spec: KeySpec, purpose: Purpose, material: &SecretBytes) -> Result<KeyIdentity, VaultError> {
    let scheme = scheme_of(spec, purpose)?;
    let private = scheme.parse(material)?;
    crypto::self_test(private.as_ref(), scheme)?;
    let public_key = private.public_key().map(<[u8]>::to_vec);
    let id = match &public_key {
        Some(spki) => KeyId::Pair(crypto::fingerprint(spec, purpose, spki)),
        None => KeyId::Symmetric(env.random_bytes()?),
    };
    Ok(KeyIdentity { id, public_key })
}

/// The scheme of a spec and purpose.
///
/// # Errors
/// `InvalidAttributes`.
pub(super) fn scheme_of(spec: KeySpec, purpose: Purpose) -> Result<&'static dyn Scheme, VaultError> {
    crypto::scheme(spec, purpose).ok_or_else(|| VaultError::InvalidAttributes(format!("a {purpose} key cannot have the spec {spec}")))
}

/// The usages: as requested, otherwise by the key names of Canton (`…-namespace`, `…-sequencer-auth`, `…-signing`) and of Splice
/// (`namespace`), otherwise none.
///
/// # Errors
/// `InvalidAttributes` if a key that is not a signing key has usages.
pub(super) fn usages(purpose: Purpose, requested: Option<Usages>, name: Option<&KeyName>) -> Result<Usages, VaultError> {
    match (purpose, requested) {
        (Purpose::Signing, Some(usages)) => Ok(usages),
        (Purpose::Signing, None) => Ok(name.map_or(Usages::NONE, |name| usages_by_name(name.as_str()))),
        (Purpose::Encryption | Purpose::Symmetric, None) => Ok(Usages::NONE),
        (Purpose::Encryption | Purpose::Symmetric, Some(usages)) if usages.is_empty() => Ok(usages),
        (Purpose::Encryption | Purpose::Symmetric, Some(_)) => {
            Err(VaultError::InvalidAttributes("only signing keys can have usages".into()))
        }
    }
}

/// The class: as requested, otherwise permanent for a namespace key.
pub(super) fn class(requested: Option<Class>, usages: Usages) -> Class {
    requested.unwrap_or(if usages.contains(Usage::Namespace) { Class::Permanent } else { Class::LongTerm })
}

fn usages_by_name(name: &str) -> Usages {
    const SUFFIXES: [(&str, Usage); 3] =
        [("-namespace", Usage::Namespace), ("-sequencer-auth", Usage::SequencerAuthentication), ("-signing", Usage::Protocol)];
    let stem = name.split("-rotated-").next().unwrap_or(name);
    // Splice (`NodeInitializer.scala`) writes no name of a node before it. Its key `signing` has all usages.
    if stem == "namespace" {
        return std::iter::once(Usage::Namespace).collect();
    }
    SUFFIXES.iter().filter(|(suffix, _)| stem.ends_with(suffix)).map(|(_, usage)| *usage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_names_of_canton_and_splice_give_usages_and_other_names_give_none() {
        for (name, expected) in [
            ("participant1-namespace", "namespace"),
            ("participant1-sequencer-auth", "sequencer-authentication"),
            ("participant1-signing-rotated-2026-01-01T00:00:00Z", "protocol"),
            ("participant1-encryption", ""),
            ("namespace", "namespace"),
            ("signing", ""),
            ("my key", ""),
        ] {
            assert_eq!(usages_by_name(name).to_string(), expected, "{name}");
        }
    }

    #[test]
    fn a_namespace_key_is_permanent_unless_requested_otherwise() {
        let namespace: Usages = [Usage::Namespace].into_iter().collect();
        assert_eq!(class(None, namespace), Class::Permanent);
        assert_eq!(class(Some(Class::LongTerm), namespace), Class::LongTerm);
        assert_eq!(class(None, Usages::NONE), Class::LongTerm);
    }
}
