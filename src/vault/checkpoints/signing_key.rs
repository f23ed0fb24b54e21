//! The Ed25519 key that signs checkpoints: created by the vault, sealed like any other key, included in every rotation, and owned by the vault itself.

use std::sync::Arc;

use crate::{
    audit::VerifierKey,
    crypto,
    domain::{AuditEvent, Class, KeyAttributes, KeyId, KeyRecord, KeySpec, KmsUse, NodeName, Operation, Origin, Purpose, Usages},
    storage::{Change, StoredKey},
};

use crate::vault::{
    Vault, VaultError,
    key_cache::{OpenKey, RowTagRule},
};

/// Length of `SubjectPublicKeyInfo` before the 32 bytes of an Ed25519 key (RFC 8410 §4).
const SPKI_HEAD: usize = 12;

/// The 32 bytes of the public key of a checkpoint key. Its row is not authenticated, its id is: the fingerprint of the public key.
///
/// # Errors
/// `Internal` if the row has another public key than the id says.
pub(super) fn public_key(record: &KeyRecord) -> Result<[u8; 32], VaultError> {
    const OTHER: VaultError = VaultError::Internal("the public key of a checkpoint key is not the one that its id names");
    let attributes = &record.attributes;
    let spki = record.public_key.as_deref().ok_or(OTHER)?;
    if KeyId::Pair(crypto::fingerprint(attributes.spec, attributes.purpose, spki)) != attributes.id {
        return Err(OTHER);
    }
    spki.get(SPKI_HEAD..).and_then(|key| key.try_into().ok()).ok_or(OTHER)
}

/// The key that verifies the checkpoints of a log.
///
/// # Errors
/// As [`public_key`].
pub(super) fn verifier_key(record: &KeyRecord, origin: &str) -> Result<VerifierKey, VaultError> {
    VerifierKey::log(origin, public_key(record)?).map_err(|_| VaultError::Internal("the origin is no name of a verifier key"))
}

/// The attributes of a signing key with this id.
pub(super) fn attributes_of_signing_key(id: KeyId) -> KeyAttributes {
    KeyAttributes {
        id,
        node: NodeName::vault(),
        purpose: Purpose::Signing,
        spec: KeySpec::EcCurve25519,
        usages: Usages::NONE,
        class: Class::LongTerm,
        origin: Origin::Generated,
        exportable: false,
    }
}

impl Vault {
    /// The open signing key, and its row. Creates the key if there is none and `create` is set; `None` if it is not set.
    ///
    /// # Errors
    /// The errors of the store, of the KMS, and of the commit.
    pub(super) async fn open_signing_key(
        &self,
        open: &mut Option<(KeyId, Arc<OpenKey>)>,
        create: bool,
    ) -> Result<Option<(Arc<OpenKey>, Box<StoredKey>)>, VaultError> {
        // The entries of the opening have its KMS calls, whoever needs the key.
        self.env.kms_calls.operation(Box::pin(self.try_open_signing_key(open, create))).await
    }

    async fn try_open_signing_key(
        &self,
        open: &mut Option<(KeyId, Arc<OpenKey>)>,
        create: bool,
    ) -> Result<Option<(Arc<OpenKey>, Box<StoredKey>)>, VaultError> {
        let id = match self.env.store.state().await?.checkpoint_key {
            Some(id) => id,
            None if create => self.create_signing_key().await?,
            None => return Ok(None),
        };
        let stored = Box::new(self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?);
        if let Some((known, key)) = open
            && *known == id
        {
            return Ok(Some((Arc::clone(key), stored)));
        }
        let mut kms = KmsUse::default();
        let opened = self.key_cache.unseal(&stored, RowTagRule::Required, &mut kms).await;
        let event =
            AuditEvent { key: Some(id), node: Some(NodeName::vault()), kms, ..self.gate.system_event(Operation::OpenCheckpointKey) };
        let key = match opened {
            Ok(unsealed) => Arc::new(unsealed.open_key),
            Err(error) => return self.gate.refuse(event, error).await,
        };
        self.gate.record(event).await?;
        *open = Some((id, Arc::clone(&key)));
        Ok(Some((key, stored)))
    }

    async fn create_signing_key(&self) -> Result<KeyId, VaultError> {
        let mut event = AuditEvent { node: Some(NodeName::vault()), ..self.gate.system_event(Operation::CreateCheckpointKey) };
        let change = async {
            let (new, _) = self.new_vault_key(&mut event, attributes_of_signing_key).await?;
            Ok(Change::InsertKey { record: Box::new(new.record), active: new.active, link: None, replaces: None })
        };
        let change = change.await;
        match (change, event.key) {
            (Ok(change), Some(id)) => {
                self.gate.record_change(change, event).await?;
                Ok(id)
            }
            (Ok(_), None) => Err(VaultError::Internal("a new key has no id")),
            (Err(error), _) => self.gate.refuse(event, error).await,
        }
    }
}
