//! `import`: a key that lived outside, marked so for ever.

use std::{ops::ControlFlow, sync::Arc};

use serde::Serialize;

use crate::{
    crypto::{self, SecretBytes, canton::read_key_pair, on_wiped_stack},
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyName, KeyRecord, KeySpec, NodeName, Operation, Origin, Purpose, Usages, text_enum,
    },
    storage::StoredKey,
};

use super::new_key::{self, NewKeyPlan, class, does_not_fit, usages};
use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::commit::{ATTEMPTS, Completed},
    key_cache::unseal::RowTagRule,
};

text_enum!(
    /// The form of key material outside the vault.
    MaterialFormat as "material format" {
        /// PKCS#8 `PrivateKeyInfo`, DER.
        Pkcs8 = "pkcs8",
        /// A key-pair file of Canton 3.3 to 3.6, with or without a password, or the bare message in it.
        CantonKeyPair = "canton-key-pair",
        /// 32 raw bytes of a symmetric key.
        Raw = "raw",
    }
);

/// What to import. The facts without the secrets are what an idempotency key stands for.
#[derive(Serialize)]
pub struct ImportKey {
    /// For which node.
    pub node: NodeName,
    /// The form of the material.
    pub format: MaterialFormat,
    /// The material.
    #[serde(skip)]
    pub material: SecretBytes,
    /// The password of a Canton file that has one.
    #[serde(skip)]
    pub password: Option<SecretBytes>,
    /// For what: required where the material does not say it.
    pub purpose: Option<Purpose>,
    /// Usages; those in the file, or by the name, if not stated.
    pub usages: Option<Usages>,
    /// Class; permanent for a namespace key if not stated.
    pub class: Option<Class>,
    /// A label.
    pub name: Option<KeyName>,
    /// Whether an exporter may take it out again.
    pub exportable: bool,
}

/// A key that is in the vault now.
#[derive(Debug)]
pub struct Imported {
    /// The key.
    pub record: KeyRecord,
    /// Whether this call brought it; else it was here, with the same facts.
    pub created: bool,
}

/// What was read from the material.
struct Material {
    purpose: Purpose,
    spec: KeySpec,
    usages: Option<Usages>,
    bytes: SecretBytes,
}

impl Vault {
    /// Imports a key. The same key with the same facts again changes nothing; with others it is refused.
    ///
    /// # Errors
    /// `InvalidMaterial` with the fault, `KeyExists`, else as [`Vault::create_key`].
    pub async fn import_key(self: &Arc<Self>, call: &CallContext, import: ImportKey) -> Result<AuditedResult<Imported>, VaultError> {
        let import = Arc::new(import);
        let mut event = self.event(call, Operation::ImportKey);
        for _ in 0..ATTEMPTS {
            event = self.event(call, Operation::ImportKey);
            let done = self.try_import(&mut event, call, &import).await;
            if let ControlFlow::Break(answer) = self.settle(event.clone(), done).await? {
                return Ok(answer);
            }
        }
        self.refuse(event, VaultError::Conflict).await
    }

    async fn try_import(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        import: &Arc<ImportKey>,
    ) -> Result<Completed<Imported>, VaultError> {
        let permit = self.permit_on_node(event, &import.node)?;
        self.in_service()?;
        let idempotent_call = self.idempotent_call(call, "POST /v1/keys/import", import.as_ref())?;
        let remembered = self.remembered(idempotent_call.as_ref()).await?;
        if remembered.is_none() {
            self.limits.creation(&call.principal)?;
        }
        let slot = self.limits.heavy(&call.principal).await?;
        let reading = Arc::clone(import);
        let material = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            on_wiped_stack(|| read(&reading))
        });
        let material = material.await.map_err(|_| VaultError::Internal("a computation was cut off"))??;
        let usages = usages(material.purpose, import.usages.or(material.usages), import.name.as_ref())?;
        let plan = NewKeyPlan {
            node: import.node.clone(),
            purpose: material.purpose,
            spec: material.spec,
            usages,
            class: class(import.class, usages),
            origin: Origin::Imported,
            exportable: import.exportable,
            name: import.name.clone(),
            predecessor: None,
        };
        let pair_id = on_wiped_stack(|| pair_id(&plan, &material.bytes))?;
        if let Some(id) = remembered {
            event.key = Some(id);
            event.subject = Some("repeated".into());
            let record = self.brought_before(event, id, pair_id, &material.bytes).await?;
            return Ok(Completed::read(permit, Imported { record, created: true }));
        }
        if let Some(id) = pair_id {
            event.key = Some(id);
            if let Some(stored) = self.store.key(id).await? {
                return is_same(&stored, &plan, id).map(|record| Completed::read(permit, Imported { record, created: false }));
            }
        }
        let (record, active) = self.seal_new(event, &plan, &material.bytes).await?;
        let change = new_key::insert(&record, active);
        Ok(Completed {
            idempotency: self.remember(idempotent_call, &record.attributes.id),
            ..Completed::changed(permit, Imported { record, created: true }, change)
        })
    }
}

impl Vault {
    /// The key that an earlier call with the same facts brought, if it brought the same material. Facts alone are remembered, since a
    /// stored hash would tell of the secret; so the id of a pair is compared, or the symmetric key itself is opened.
    async fn brought_before(
        &self,
        event: &mut AuditEvent,
        id: KeyId,
        pair_id: Option<KeyId>,
        material: &SecretBytes,
    ) -> Result<KeyRecord, VaultError> {
        let stored = self.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
        let same = match pair_id {
            Some(pair_id) => pair_id == id,
            None => self.unseal(&stored, RowTagRule::of(stored.record.lifecycle), &mut event.kms).await?.material.same(material),
        };
        if same { Ok(stored.record) } else { Err(VaultError::IdempotencyMismatch) }
    }
}

/// Reads the material; takes up to tens of milliseconds where a password must be derived.
fn read(import: &ImportKey) -> Result<Material, VaultError> {
    let material = match import.format {
        MaterialFormat::Pkcs8 => {
            let (spec, bytes) = crypto::read_pkcs8(None, import.purpose, &import.material)?;
            Material { purpose: purpose_of(spec, import.purpose)?, spec, usages: None, bytes }
        }
        MaterialFormat::CantonKeyPair => {
            let pair = read_key_pair(&import.material, import.password.as_ref())?;
            let usages = (pair.purpose == Purpose::Signing).then_some(pair.usages);
            Material { purpose: pair.purpose, spec: pair.spec, usages, bytes: pair.pkcs8 }
        }
        MaterialFormat::Raw => Material {
            purpose: Purpose::Symmetric,
            spec: KeySpec::Aes256,
            usages: None,
            bytes: SecretBytes::copy_of(import.material.expose()),
        },
    };
    if import.password.is_some() && import.format != MaterialFormat::CantonKeyPair {
        return Err(VaultError::InvalidAttributes("only a canton-key-pair has a password".into()));
    }
    match import.purpose {
        Some(stated) if stated != material.purpose => {
            Err(VaultError::InvalidAttributes(format!("the material is a {} key, not one for {stated}", material.purpose)))
        }
        _ => Ok(material),
    }
}

/// What a key of this spec is for; P-256 keys do not say it themselves.
fn purpose_of(spec: KeySpec, stated: Option<Purpose>) -> Result<Purpose, VaultError> {
    match (spec, stated) {
        (_, Some(purpose)) => Ok(purpose),
        (KeySpec::EcCurve25519 | KeySpec::EcP384 | KeySpec::EcSecp256k1, None) => Ok(Purpose::Signing),
        (KeySpec::Rsa2048, None) => Ok(Purpose::Encryption),
        (KeySpec::Aes256, None) => Ok(Purpose::Symmetric),
        (KeySpec::EcP256, None) => {
            Err(VaultError::InvalidAttributes("an ec-p256 key does not say what it is for: state the purpose".into()))
        }
    }
}

fn pair_id(plan: &NewKeyPlan, material: &SecretBytes) -> Result<Option<KeyId>, VaultError> {
    let scheme = crypto::scheme(plan.spec, plan.purpose).ok_or_else(|| does_not_fit(plan.spec, plan.purpose))?;
    let private = scheme.parse(material)?;
    Ok(private.public_key().map(|spki| KeyId::Pair(crypto::fingerprint(plan.spec, plan.purpose, spki))))
}

/// The stored key, if it is the one that would be imported.
fn is_same(stored: &StoredKey, plan: &NewKeyPlan, id: KeyId) -> Result<KeyRecord, VaultError> {
    let KeyAttributes { id: _, node, purpose, spec, usages, class, origin, exportable } = &stored.record.attributes;
    let same = (node, *purpose, *spec, *usages, *class, *origin, *exportable)
        == (&plan.node, plan.purpose, plan.spec, plan.usages, plan.class, plan.origin, plan.exportable);
    if same && !stored.record.lifecycle.is_destroyed() { Ok(stored.record.clone()) } else { Err(VaultError::KeyExists(id)) }
}
