//! `import`: a key that existed outside the vault. Its origin stays `imported` permanently.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    crypto::{self, SecretBytes, canton::read_key_pair},
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Purpose, Usages, text_enum,
    },
    storage::{Change, StoredKey},
};

use super::new_key::{KeyIdentity, KeyToSeal, SealedNewKey, class, identify, usages};
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
    /// # Errors
    /// `InvalidMaterial`, `KeyExists`, otherwise as [`Vault::create_key`].
    pub async fn import_key(&self, call: &CallContext, import: ImportKey) -> Result<AuditedResult<ImportedKey>, VaultError> {
        let import = &Arc::new(import);
        self.gate
            .run(self.gate.event(call, Operation::ImportKey), |mut event, _| async move {
                let result = self.try_import(&mut event, call, import).await;
                (event, result)
            })
            .await
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
        if let Some(stored) = self.env.store.key(id).await? {
            let record = existing(stored, &attributes)?;
            return Ok(Completed::read(permit, ImportedKey { record, created: false }));
        }
        let to_seal = KeyToSeal { attributes, public_key, name: import.name.clone(), predecessor: None };
        let SealedNewKey { record, active } = self.seal_new_key(event, to_seal, &material.bytes).await?;
        let change = Change::InsertKey { record: Box::new(record.clone()), active, link: None };
        let imported = ImportedKey { record, created: true };
        Ok(Completed { idempotency: self.gate.idempotency_record(idempotent, &id), ..Completed::changed(permit, imported, change) })
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

/// The stored key, if it has the attributes of the import.
fn existing(stored: StoredKey, attributes: &KeyAttributes) -> Result<KeyRecord, VaultError> {
    let same = stored.record.attributes == *attributes && !stored.record.lifecycle.is_destroyed();
    if same { Ok(stored.record) } else { Err(VaultError::KeyExists(attributes.id)) }
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
