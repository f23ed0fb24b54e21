//! `export`: a key on its way out, for those created to leave.

use std::sync::Arc;

use crate::{
    crypto::{
        Random, SecretBytes,
        canton::{KeyPairToWrite, write_key_pair},
        on_wiped_stack,
    },
    domain::{AuditEvent, KeyId, KeyRecord, KeyState, Operation, Purpose},
    storage::Unchanged,
};

use super::{Answer, Call, MaterialFormat, Vault, VaultError, commit::Done, open::TagRule};

/// A key outside its seal.
pub struct Exported {
    /// The form of the material.
    pub format: MaterialFormat,
    /// The material.
    pub material: SecretBytes,
}

impl Vault {
    /// Exports a key that was created exportable and is active or superseded.
    ///
    /// # Errors
    /// `NotExportable`, `InvalidFacts` if the key has no such form, else as [`Vault::sign`].
    pub async fn export_key(
        self: &Arc<Self>,
        call: &Call,
        id: KeyId,
        format: MaterialFormat,
        password: Option<SecretBytes>,
    ) -> Result<Answer<Exported>, VaultError> {
        let mut event = AuditEvent { subject: Some(format.to_string()), ..self.event(call, Operation::ExportKey) };
        let done = self.try_export(&mut event, call, id, format, password).await;
        self.conclude(event, done).await
    }

    async fn try_export(
        &self,
        event: &mut AuditEvent,
        call: &Call,
        id: KeyId,
        format: MaterialFormat,
        password: Option<SecretBytes>,
    ) -> Result<Done<Exported>, VaultError> {
        let (permit, stored) = self.permit_key(event, id).await?;
        self.in_service()?;
        let record = &stored.record;
        if !record.facts.exportable {
            return Err(VaultError::NotExportable);
        }
        if !record.lifecycle.reads_old() {
            return Err(VaultError::State(record.lifecycle.state()));
        }
        if self.deferred.disables(id) {
            return Err(VaultError::State(KeyState::Disabled));
        }
        let fits = match format {
            MaterialFormat::Pkcs8 | MaterialFormat::CantonKeyPair => record.facts.purpose != Purpose::Symmetric,
            MaterialFormat::Raw => record.facts.purpose == Purpose::Symmetric,
        };
        if !fits || (password.is_some() && format != MaterialFormat::CantonKeyPair) {
            return Err(VaultError::InvalidFacts(format!("a {} key has no form {format} with these options", record.facts.purpose)));
        }
        self.limits.cold_open(&call.principal)?;
        let slot = self.limits.heavy(&call.principal).await?;
        let unsealed = self.unseal(&stored, TagRule::Required, &mut event.kms).await?;
        let unchanged = Unchanged { key: id, revision: record.revision, store_revision: stored.store_revision };
        let (record, random) = (stored.record, Arc::clone(&self.random));
        let material = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            match format {
                MaterialFormat::Pkcs8 | MaterialFormat::Raw => Ok(unsealed.material),
                MaterialFormat::CantonKeyPair => {
                    on_wiped_stack(|| canton_file(&record, &unsealed.material, password.as_ref(), random.as_ref()))
                }
            }
        });
        let material = material.await.map_err(|_| VaultError::Internal("a computation was cut off"))??;
        Ok(Done { unchanged: Some(unchanged), ..Done::read(permit, Exported { format, material }) })
    }
}

/// A key-pair file that Canton 3.3 to 3.6 read back.
fn canton_file(
    record: &KeyRecord,
    pkcs8: &SecretBytes,
    password: Option<&SecretBytes>,
    random: &dyn Random,
) -> Result<SecretBytes, VaultError> {
    let (KeyId::Pair(fingerprint), Some(public_key)) = (record.facts.id, &record.public_key) else {
        return Err(VaultError::Internal("a key pair without a public key"));
    };
    let pair = KeyPairToWrite {
        purpose: record.facts.purpose,
        spec: record.facts.spec,
        usages: record.facts.usages,
        fingerprint,
        public_key,
        pkcs8,
    };
    Ok(write_key_pair(&pair, password, random)?)
}
