//! `export`: the private key of a key that was created exportable.

use std::sync::Arc;

use crate::{
    crypto::{
        Random, SecretBytes,
        canton::{CantonVersion, KeyPairToWrite, write_key_pair},
        read_pkcs8,
    },
    domain::{AuditEvent, KeyAttributes, KeyId, KeyRecord, KeyState, Operation, Origin, Purpose},
    storage::KeyPrecondition,
};

use super::MaterialFormat;
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, heavy_work::Heavy, key_cache::RowTagRule};

/// How to export a key.
pub struct ExportKey {
    /// The format of the material.
    pub format: MaterialFormat,
    /// The version of Canton that a key-pair file is for. `None`: the newest. Only for [`MaterialFormat::CantonKeyPair`].
    pub canton_version: Option<CantonVersion>,
    /// Protects a key-pair file. Only for [`MaterialFormat::CantonKeyPair`].
    pub password: Option<SecretBytes>,
}

/// An unsealed private key.
pub struct ExportedKey {
    /// The format of the material.
    pub format: MaterialFormat,
    /// The material.
    pub material: SecretBytes,
}

impl Vault {
    /// Exports a key that was created exportable and is active or superseded.
    ///
    /// # Errors
    /// `NotExportable`, `InvalidAttributes` if the key does not have this format, otherwise as [`Vault::sign`].
    pub async fn export_key(&self, call: &CallContext, id: KeyId, export: ExportKey) -> Result<AuditedResult<ExportedKey>, VaultError> {
        let mut event = AuditEvent { subject: Some(export.format.to_string()), ..self.gate.event(call, Operation::ExportKey) };
        let result = self.try_export(&mut event, call, id, export).await;
        self.gate.conclude(event, result).await
    }

    async fn try_export(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        id: KeyId,
        export: ExportKey,
    ) -> Result<Completed<ExportedKey>, VaultError> {
        let ExportKey { format, canton_version, password } = export;
        let (permit, stored) = self.key_cache.permit_stored_key(event, id).await?;
        self.gate.in_service()?;
        let record = &stored.record;
        if !record.attributes.exportable {
            return Err(VaultError::NotExportable);
        }
        if !record.lifecycle.can_decrypt() {
            return Err(VaultError::State(record.lifecycle.state()));
        }
        if self.gate.pending_audit().is_disabled(id) {
            return Err(VaultError::State(KeyState::Disabled));
        }
        check_format(&record.attributes, format)?;
        for (option, given) in [("password", password.is_some()), ("canton_version", canton_version.is_some())] {
            if given && format != MaterialFormat::CantonKeyPair {
                return Err(VaultError::InvalidAttributes(format!("{option}: only for the format canton-key-pair, not for {format}")));
            }
        }
        self.limits.cache_miss(&call.principal)?;
        let unsealed = self.key_cache.unseal(&stored, RowTagRule::Required, &mut event.kms).await?;
        let precondition = KeyPrecondition {
            key: id,
            revision: record.revision,
            store_revision: stored.store_revision,
            imported: record.attributes.origin == Origin::Imported,
        };
        let (record, random) = (stored.record, Arc::clone(&self.env.random));
        let heavy = if password.is_some() { Heavy::PasswordDerivation } else { Heavy::Computation };
        let computation = move || {
            let KeyAttributes { spec, purpose, .. } = record.attributes;
            // Earlier versions stored EC keys in another form than Canton's.
            let canonical = |material: &SecretBytes| read_pkcs8(Some(spec), Some(purpose), material).map(|(_, pkcs8)| pkcs8);
            let material = unsealed.material;
            let version = canton_version.unwrap_or(CantonVersion::V3_6);
            match format {
                MaterialFormat::Raw => Ok(material),
                MaterialFormat::Pkcs8 => Ok(canonical(&material)?),
                MaterialFormat::CantonKeyPair => canton_file(&record, &canonical(&material)?, version, password.as_ref(), random.as_ref()),
            }
        };
        let material = self.limits.heavy(&call.principal, heavy, computation).await?;
        Ok(Completed { precondition: Some(precondition), ..Completed::read(permit, ExportedKey { format, material }) })
    }
}

/// # Errors
/// `InvalidAttributes` if a key of this purpose does not have the format.
fn check_format(attributes: &KeyAttributes, format: MaterialFormat) -> Result<(), VaultError> {
    match (attributes.purpose, format) {
        (Purpose::Symmetric, MaterialFormat::Raw)
        | (Purpose::Signing | Purpose::Encryption, MaterialFormat::Pkcs8 | MaterialFormat::CantonKeyPair) => Ok(()),
        (Purpose::Symmetric, _) => Err(VaultError::InvalidAttributes(format!("a symmetric key is exported as raw, not as {format}"))),
        (purpose, MaterialFormat::Raw) => {
            Err(VaultError::InvalidAttributes(format!("a key for {purpose} is exported as pkcs8 or canton-key-pair, not as raw")))
        }
    }
}

/// A key-pair file as this version of Canton writes it.
fn canton_file(
    record: &KeyRecord,
    pkcs8: &SecretBytes,
    version: CantonVersion,
    password: Option<&SecretBytes>,
    random: &dyn Random,
) -> Result<SecretBytes, VaultError> {
    let (KeyId::Pair(fingerprint), Some(public_key)) = (record.attributes.id, &record.public_key) else {
        return Err(VaultError::Internal("a key pair without a public key"));
    };
    let pair = KeyPairToWrite {
        purpose: record.attributes.purpose,
        spec: record.attributes.spec,
        usages: record.attributes.usages,
        fingerprint,
        public_key,
        pkcs8,
    };
    Ok(write_key_pair(&pair, version, password, random)?)
}
