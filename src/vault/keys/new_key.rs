//! What creating, importing and rotating share: facts that fit together, and a sealed, wrapped, tagged first row.

use crate::{
    crypto::{self, CryptoError, SecretBytes, envelope, on_wiped_stack},
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, KeySpec, Lifecycle, NodeName, Origin, Purpose, Usage, Usages, Wrap,
        WrapperKeyId,
    },
    storage::Change,
};

use crate::vault::{Vault, VaultError};

/// The facts of a key to be made, before its id is known.
pub(in crate::vault) struct NewKeyPlan {
    pub node: NodeName,
    pub purpose: Purpose,
    pub spec: KeySpec,
    pub usages: Usages,
    pub class: Class,
    pub origin: Origin,
    pub exportable: bool,
    pub name: Option<KeyName>,
    pub predecessor: Option<KeyId>,
}

impl Vault {
    /// Seals new material under a fresh data key and wraps that: the whole first row of a key.
    pub(in crate::vault) async fn seal_new(
        &self,
        event: &mut AuditEvent,
        plan: &NewKeyPlan,
        material: &SecretBytes,
    ) -> Result<(KeyRecord, WrapperKeyId), VaultError> {
        let scheme = crypto::scheme(plan.spec, plan.purpose).ok_or_else(|| does_not_fit(plan.spec, plan.purpose))?;
        let public_key = on_wiped_stack(|| {
            let private = scheme.parse(material)?;
            crypto::prove(private.as_ref(), scheme)?;
            Ok::<_, CryptoError>(private.public_key().map(<[u8]>::to_vec))
        })?;
        let id = match &public_key {
            Some(spki) => KeyId::Pair(crypto::fingerprint(plan.spec, plan.purpose, spki)),
            None => KeyId::Symmetric(self.random_bytes()?),
        };
        let attributes = KeyAttributes {
            id,
            node: plan.node.clone(),
            purpose: plan.purpose,
            spec: plan.spec,
            usages: plan.usages,
            class: plan.class,
            origin: plan.origin,
            exportable: plan.exportable,
        };
        event.key = Some(id);
        let context = attributes.encryption_context(&self.id);
        let data_key = envelope::new_data_key(self.random.as_ref())?;
        let (sealed, row_key) = on_wiped_stack(|| envelope::seal(&data_key, material, &context, self.random.as_ref()))?;
        let (wrapper_key, wrapped) = self.wrap(&data_key, &context, &mut event.kms).await?;
        let now = (self.clock)();
        let mut record = KeyRecord {
            attributes,
            name: plan.name.clone(),
            public_key,
            created_at: now,
            generation: 1,
            revision: 1,
            lifecycle: Lifecycle::ACTIVE,
            successor: None,
            predecessor: plan.predecessor,
            delete_at: None,
            row_tag: None,
            sealed: Some(sealed),
            wraps: vec![Wrap { wrapper_key, generation: 1, wrapped, created_at: now, verified_at: Some(now), quarantined: false }],
        };
        record.row_tag = Some(row_key.tag(&record.tagged_bytes()));
        event.change = Some(record.state_change());
        Ok((record, wrapper_key))
    }

    pub(in crate::vault) fn random_bytes<const N: usize>(&self) -> Result<[u8; N], VaultError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// The change that stores a new row.
pub(in crate::vault) fn insert(record: &KeyRecord, active: WrapperKeyId) -> Change {
    Change::InsertKey { record: Box::new(record.clone()), active, link: None }
}

/// Usages as stated, else as Canton's names say them (`…-namespace`, `…-sequencer-auth`, `…-signing`), else none.
pub(in crate::vault) fn usages(purpose: Purpose, stated: Option<Usages>, name: Option<&KeyName>) -> Result<Usages, VaultError> {
    match (purpose, stated) {
        (Purpose::Signing, Some(usages)) => Ok(usages),
        (Purpose::Signing, None) => Ok(name.map_or(Usages::NONE, |name| usages_by_name(name.as_str()))),
        (Purpose::Encryption | Purpose::Symmetric, None) => Ok(Usages::NONE),
        (Purpose::Encryption | Purpose::Symmetric, Some(usages)) if usages.is_empty() => Ok(usages),
        (Purpose::Encryption | Purpose::Symmetric, Some(_)) => Err(VaultError::InvalidAttributes("only signing keys have usages".into())),
    }
}

/// The class as stated, else permanent for a namespace key.
pub(in crate::vault) fn class(stated: Option<Class>, usages: Usages) -> Class {
    stated.unwrap_or(if usages.contains(Usage::Namespace) { Class::Permanent } else { Class::LongTerm })
}

pub(in crate::vault) fn does_not_fit(spec: KeySpec, purpose: Purpose) -> VaultError {
    VaultError::InvalidAttributes(format!("there is no {purpose} key of spec {spec}"))
}

fn usages_by_name(name: &str) -> Usages {
    const SUFFIXES: [(&str, Usage); 3] =
        [("-namespace", Usage::Namespace), ("-sequencer-auth", Usage::SequencerAuthentication), ("-signing", Usage::Protocol)];
    let stem = name.split("-rotated-").next().unwrap_or(name);
    SUFFIXES.iter().filter(|(suffix, _)| stem.ends_with(suffix)).map(|(_, usage)| *usage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_canton_give_usages_and_others_none() {
        for (name, expected) in [
            ("participant1-namespace", "namespace"),
            ("participant1-sequencer-auth", "sequencer-authentication"),
            ("participant1-signing-rotated-2026-01-01T00:00:00Z", "protocol"),
            ("participant1-encryption", ""),
            ("signing", ""),
            ("my key", ""),
        ] {
            assert_eq!(usages_by_name(name).to_string(), expected, "{name}");
        }
    }

    #[test]
    fn a_namespace_key_is_permanent_unless_said_otherwise() {
        let namespace: Usages = [Usage::Namespace].into_iter().collect();
        assert_eq!(class(None, namespace), Class::Permanent);
        assert_eq!(class(Some(Class::LongTerm), namespace), Class::LongTerm);
        assert_eq!(class(None, Usages::NONE), Class::LongTerm);
    }
}
