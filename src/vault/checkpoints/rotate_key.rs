//! The rotation of the key that signs checkpoints. Its audit entry is signed by the old and by the new key, so that a reviewer who trusts the old
//! key can follow to the new one.

use crate::{
    audit::{SignedNote, VerifierKey, checkpoint_key_rotation},
    crypto::with_wiped_stack,
    domain::{Algorithm, AuditEvent, KeyAttributes, Operation, Transition},
    storage::{Change, KeyUpdate},
};

use super::{
    calls::VerifierKeyView,
    signing_key::{attributes_of_signing_key, verifier_key},
};
use crate::vault::{
    AuditedResult, CallContext, Vault, VaultError,
    audit_gate::Completed,
    key_cache::{OpenKey, RowTagRule},
};

impl Vault {
    /// Creates a new key that signs checkpoints from now on, and ends the present one. Creates the first one if there is none.
    ///
    /// # Errors
    /// `Forbidden`, `Frozen`; the errors of the KMS, the store and the audit log.
    pub async fn rotate_checkpoint_key(&self, call: &CallContext) -> Result<AuditedResult<VerifierKeyView>, VaultError> {
        // No checkpoint is made meanwhile.
        let mut open = self.checkpoints.signing_key.lock().await;
        let rotated = self
            .gate
            .run(self.gate.event(call, Operation::RotateCheckpointKey), |mut event, _| async move {
                let result = self.try_rotate_checkpoint_key(&mut event).await;
                (event, result)
            })
            .await?;
        *open = None;
        Ok(rotated)
    }

    async fn try_rotate_checkpoint_key(&self, event: &mut AuditEvent) -> Result<Completed<VerifierKeyView>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        self.gate.in_service()?;
        let state = self.env.store.state().await?;
        let origin = self.log_origin().await?;
        let old = match state.checkpoint_key {
            None => None,
            Some(id) => {
                let stored = self.env.store.key(id).await?.ok_or(VaultError::KeyNotFound(id))?;
                let unsealed = self.key_cache.unseal(&stored, RowTagRule::Required, &mut event.kms).await?;
                Some((stored, unsealed.open_key))
            }
        };
        let (sealed, private) = self.new_vault_key(event, attributes_of_signing_key).await?;
        let record = sealed.record;
        let new_key = verifier_key(&record, &origin)?;
        event.node = Some(record.attributes.node.clone());
        let link = match old {
            None => None,
            Some((stored, open_key)) => {
                let old = &stored.record;
                let old_key = verifier_key(old, &origin)?;
                let note = rotation_note(&origin, (&old_key, &open_key), (&new_key, private.as_ref()))?;
                event.note = Some(note);
                event.subject = Some(old.attributes.id.to_string());
                let mut ended = old.clone();
                ended.lifecycle = old.lifecycle.after(Transition::Supersede).map_err(VaultError::InvalidKeyState)?;
                ended.successor = Some(record.attributes.id);
                ended.revision = old.revision.saturating_add(1);
                let to = ended.state_change();
                let row_tag = Some(open_key.row_key.tag(&ended.tagged_bytes()));
                let KeyAttributes { id, .. } = ended.attributes;
                let update = KeyUpdate { key: id, if_revision: old.revision, to, row_tag, reinstate_wrap: None };
                let subject = Some(record.attributes.id.to_string());
                Some((update, Box::new(AuditEvent { key: Some(id), change: Some(to), subject, note: None, ..event.clone() })))
            }
        };
        let view = VerifierKeyView { verifier_key: new_key.to_string(), state: record.lifecycle.state(), created_at: record.created_at };
        let change = Change::InsertKey { record: Box::new(record), active: sealed.active, link, replaces: None };
        Ok(Completed::changed(permit, view, change))
    }
}

/// The statement that one key follows another, signed by both.
fn rotation_note(
    origin: &str,
    (old, old_private): (&VerifierKey, &OpenKey),
    (new, new_private): (&VerifierKey, &dyn crate::crypto::PrivateKey),
) -> Result<String, VaultError> {
    let text = checkpoint_key_rotation(origin, old, new);
    let signatures = with_wiped_stack(|| {
        let of_old = old_private.private.sign(Algorithm::Ed25519, text.as_bytes())?;
        Ok::<_, crate::crypto::CryptoError>((of_old, new_private.sign(Algorithm::Ed25519, text.as_bytes())?))
    });
    let (of_old, of_new) = signatures?;
    let mut note = SignedNote::new(text).map_err(|_| VaultError::Internal("the statement of a rotation is no valid note"))?;
    note.add_signature(old, of_old);
    note.add_signature(new, of_new);
    Ok(note.to_string())
}
