//! `import`: a key that existed outside the vault. Its origin stays `imported` permanently.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    crypto::{self, SecretBytes, canton::read_key_pair},
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Purpose, Target, Usages,
        text_enum,
    },
    storage::{Change, StoredKey},
};

use super::new_key::{KeyIdentity, KeyToSeal, Replaced, SealedNewKey, class, identify, usages};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, heavy_work::Heavy, key_cache::RowTagRule};

text_enum!(
    /// The format of key material outside the vault.
    MaterialFormat as "material format" {
        /// PKCS#8 `PrivateKeyInfo`, DER.
        Pkcs8 = "pkcs8",
        /// A key-pair file of Canton 3.3 to 3.6, with or without a password, or the message in it.
        CantonKeyPair = "canton-key-pair",
        /// 32 raw bytes of a symmetric key.
        Raw = "raw",
    }
);

/// A key to import. Its serialized form, without the secrets, is hashed for an idempotent request.
#[derive(Serialize)]
pub struct ImportKey {
    /// The node that the key belongs to.
    pub node: NodeName,
    /// The format of the material.
    pub format: MaterialFormat,
    /// The material.
    #[serde(skip)]
    pub material: SecretBytes,
    /// The password of a Canton file.
    #[serde(skip)]
    pub password: Option<SecretBytes>,
    /// The purpose. Required if the material does not contain it.
    pub purpose: Option<Purpose>,
    /// The usages. `None`: those in the file, otherwise by the name.
    pub usages: Option<Usages>,
    /// The class. `None`: permanent for a namespace key, otherwise long-term.
    pub class: Option<Class>,
    /// The name.
    pub name: Option<KeyName>,
    /// Whether the role `exporter` may export it.
    pub exportable: bool,
    /// Whether it may replace a destroyed key with the same id, also of another node. Not hashed unless it is set, so that the hashes of earlier
    /// programs stay valid.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace_destroyed: bool,
}

/// A key that is stored after the import.
#[derive(Debug)]
pub struct ImportedKey {
    /// The key.
    pub record: KeyRecord,
    /// Whether this request imported it. Otherwise it existed with the same attributes.
    pub created: bool,
}

/// The content of the material.
struct ParsedMaterial {
    purpose: Purpose,
    spec: KeySpec,
    usages: Option<Usages>,
    bytes: SecretBytes,
}

impl Vault {
    /// Imports a key. Importing the same key with the same attributes again changes nothing; with other attributes it is refused.
    ///
    /// A destroyed key is imported again only with `replace_destroyed`, by a caller who may import on its former node too. It begins anew, as any
    /// import does: active and without a successor, with the node, name, usages and class of the request. Its revisions continue.
    ///
    /// # Errors
    /// `InvalidMaterial`, `KeyExists`, `KeyOfAnotherNode`, `KeyWasDestroyed`, otherwise as [`Vault::create_key`].
    pub async fn import_key(&self, call: &CallContext, import: ImportKey) -> Result<AuditedResult<ImportedKey>, VaultError> {
        let import = &Arc::new(import);
        let imported = self
            .gate
            .run(self.gate.event(call, Operation::ImportKey), |mut event, _| async move {
                let result = self.try_import(&mut event, call, import).await;
                (event, result)
            })
            .await?;
        if imported.value().created {
            self.key_cache.evict(imported.value().record.attributes.id).await;
        }
        Ok(imported)
    }

    async fn try_import(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        import: &Arc<ImportKey>,
    ) -> Result<Completed<ImportedKey>, VaultError> {
        let permit = self.gate.permit_node(event, &import.node)?;
        self.gate.in_service()?;
        let idempotent = self.gate.idempotent_call(call, "POST /v1/keys/import", import.as_ref())?;
        let earlier = self.gate.earlier_result(idempotent.as_ref()).await?;
        let (material, KeyIdentity { id, public_key }) = self.parse_material(call, import).await?;
        let usages = usages(material.purpose, import.usages.or(material.usages), import.name.as_ref())?;
        if let Some(earlier) = earlier {
            event.key = Some(earlier);
            event.subject = Some("repeated".into());
            let record = self.imported_before(event, earlier, id, &material.bytes).await?;
            return Ok(Completed::read(permit, ImportedKey { record, created: true }));
        }
        let attributes = KeyAttributes {
            id,
            node: import.node.clone(),
            purpose: material.purpose,
            spec: material.spec,
            usages,
            class: class(import.class, usages),
            origin: Origin::Imported,
            exportable: import.exportable,
        };
        event.key = Some(id);
        let mut replaces = None;
        if let Some(stored) = self.env.store.key(id).await? {
            let stored = self.importable(call, import, &attributes, stored).await?;
            if !stored.lifecycle.is_destroyed() {
                return Ok(Completed::read(permit, ImportedKey { record: stored, created: false }));
            }
            event.reason = Some(format!("replaces the destroyed key of node {}", stored.attributes.node));
            replaces = Some(Replaced { revision: stored.revision, generation: stored.generation });
        }
        let to_seal = KeyToSeal { attributes, public_key, name: import.name.clone(), predecessor: None, replaces };
        let SealedNewKey { record, active } = self.seal_new_key(event, to_seal, &material.bytes).await?;
        let replaces = replaces.map(|Replaced { revision, .. }| revision);
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link: None, replaces };
        let imported = ImportedKey { record, created: true };
        Ok(Completed { idempotency: self.gate.idempotency_record(idempotent, &id), ..Completed::changed(permit, imported, change) })
    }

    /// The stored key with the id of the import, if the import changes nothing, or may replace it because it is destroyed. The row must be the one
    /// that the log knows.
    async fn importable(
        &self,
        call: &CallContext,
        import: &ImportKey,
        requested: &KeyAttributes,
        stored: StoredKey,
    ) -> Result<KeyRecord, VaultError> {
        let id = requested.id;
        // A caller learns nothing about a key of a node on which they have no rights, except that the vault has it.
        let target = Target::Key(id, &stored.record.attributes.node);
        if self.gate.policy().permit(&call.principal, Operation::ImportKey, target).is_err() {
            return Err(VaultError::KeyOfAnotherNode(id));
        }
        self.key_cache.check_row(&stored).await?;
        let stored = stored.record;
        if stored.lifecycle.is_destroyed() {
            return if import.replace_destroyed { Ok(stored) } else { Err(VaultError::KeyWasDestroyed(id)) };
        }
        match difference(&stored, import, requested) {
            None => Ok(stored),
            Some((attribute, stored, requested)) => Err(VaultError::KeyExists { id, attribute, stored, requested }),
        }
    }

    /// Parses and identifies the material on a blocking thread, within the share of the principal.
    async fn parse_material(&self, call: &CallContext, import: &Arc<ImportKey>) -> Result<(ParsedMaterial, KeyIdentity), VaultError> {
        let heavy = if import.password.is_some() { Heavy::PasswordDerivation } else { Heavy::Computation };
        let (import, env) = (Arc::clone(import), Arc::clone(&self.env));
        let computation = move || {
            let material = parse(&import)?;
            let identity = identify(&env, material.spec, material.purpose, &material.bytes)?;
            Ok((material, identity))
        };
        self.limits.heavy(&call.principal, heavy, computation).await
    }

    /// The key that an earlier request with the same body imported, if that request had the same material. The store has no hash of the
    /// material, because a hash would leak information about the secret. Therefore the ids of key pairs are compared, and a symmetric key is
    /// opened.
    async fn imported_before(
        &self,
        event: &mut AuditEvent,
        earlier: KeyId,
        id: KeyId,
        material: &SecretBytes,
    ) -> Result<KeyRecord, VaultError> {
        let stored = self.env.store.key(earlier).await?.ok_or(VaultError::KeyNotFound(earlier))?;
        let same = match id {
            KeyId::Pair(_) => id == earlier,
            KeyId::Symmetric(_) => {
                let rule = RowTagRule::of(stored.record.lifecycle);
                self.key_cache.unseal(&stored, rule, &mut event.kms).await?.material.same(material)
            }
        };
        if same { Ok(stored.record) } else { Err(VaultError::IdempotencyMismatch) }
    }
}

/// The first attribute in which the stored key differs from the import: its name, the stored value and the requested one. A name that is not
/// requested does not differ.
fn difference(stored: &KeyRecord, import: &ImportKey, requested: &KeyAttributes) -> Option<(&'static str, String, String)> {
    // Destructured, so that a new attribute cannot be forgotten here.
    let KeyAttributes { id: _, node, purpose, spec, usages, class, origin, exportable } = &stored.attributes;
    let name = |name: Option<&KeyName>| name.map_or_else(String::new, ToString::to_string);
    let requested_name = import.name.as_ref().or(stored.name.as_ref());
    [
        ("node", node.to_string(), requested.node.to_string()),
        ("purpose", purpose.to_string(), requested.purpose.to_string()),
        ("spec", spec.to_string(), requested.spec.to_string()),
        ("usage", usages.to_string(), requested.usages.to_string()),
        ("class", class.to_string(), requested.class.to_string()),
        ("origin", origin.to_string(), requested.origin.to_string()),
        ("exportable", exportable.to_string(), requested.exportable.to_string()),
        ("name", name(stored.name.as_ref()), name(requested_name)),
    ]
    .into_iter()
    .find(|(_, stored, requested)| stored != requested)
}

/// Parses the material. The key derivation of a password takes tens of milliseconds.
fn parse(import: &ImportKey) -> Result<ParsedMaterial, VaultError> {
    let material = match import.format {
        MaterialFormat::Pkcs8 => {
            let (spec, bytes) = crypto::read_pkcs8(None, import.purpose, &import.material)?;
            ParsedMaterial { purpose: purpose_of(spec, import.purpose)?, spec, usages: None, bytes }
        }
        MaterialFormat::CantonKeyPair => {
            let pair = read_key_pair(&import.material, import.password.as_ref())?;
            let usages = (pair.purpose == Purpose::Signing).then_some(pair.usages);
            ParsedMaterial { purpose: pair.purpose, spec: pair.spec, usages, bytes: pair.pkcs8 }
        }
        MaterialFormat::Raw => ParsedMaterial {
            purpose: Purpose::Symmetric,
            spec: KeySpec::Aes256,
            usages: None,
            bytes: SecretBytes::copy_of(import.material.expose()),
        },
    };
    if import.password.is_some() && import.format != MaterialFormat::CantonKeyPair {
        return Err(VaultError::InvalidAttributes("only the format canton-key-pair can have a password".into()));
    }
    if import.replace_destroyed && material.purpose == Purpose::Symmetric {
        return Err(VaultError::InvalidAttributes(
            "replace_destroyed: a symmetric key gets a new id at each import, so that it replaces no key".into(),
        ));
    }
    match import.purpose {
        Some(stated) if stated != material.purpose => {
            Err(VaultError::InvalidAttributes(format!("the material is a {} key, not a {stated} key", material.purpose)))
        }
        _ => Ok(material),
    }
}

/// The purpose of a key of this spec. A P-256 key does not contain its purpose.
fn purpose_of(spec: KeySpec, stated: Option<Purpose>) -> Result<Purpose, VaultError> {
    match (spec, stated) {
        (_, Some(purpose)) => Ok(purpose),
        (KeySpec::EcCurve25519 | KeySpec::EcP384 | KeySpec::EcSecp256k1, None) => Ok(Purpose::Signing),
        (KeySpec::Rsa2048, None) => Ok(Purpose::Encryption),
        (KeySpec::Aes256, None) => Ok(Purpose::Symmetric),
        (KeySpec::EcP256, None) => {
            Err(VaultError::InvalidAttributes("an ec-p256 key does not contain its purpose. Supply the purpose".into()))
        }
    }
}
