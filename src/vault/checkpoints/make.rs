//! Makes a checkpoint of the durable log.

use crate::{
    audit::{Checkpoint, SignedNote},
    crypto::with_wiped_stack,
    domain::{Algorithm, AuditEvent, Operation},
    storage::{Change, LogHead, StoredCheckpoint},
};

use super::{Rollback, origin, signing_key::verifier_key};
use crate::vault::{Vault, VaultError};

impl Vault {
    /// The origin of the log of this process.
    ///
    /// # Errors
    /// The errors of the store.
    pub(in crate::vault) async fn log_origin(&self) -> Result<String, VaultError> {
        let incarnation = self.env.store.state().await?.incarnation;
        Ok(origin(self.env.vault_id.as_str(), &self.checkpoints.instance, incarnation))
    }

    /// Makes, stores and publishes a checkpoint of all durable entries. Returns the stored one if the log has not grown since. `None` if there is
    /// no signing key yet and `create_key` is not set.
    ///
    /// A freeze does not prevent checkpoints, because the log must be provable during an incident. The signing key signs nothing else.
    ///
    /// # Errors
    /// The errors of the store, of the KMS, and of the commit of a new signing key.
    pub async fn make_checkpoint(&self, create_key: bool) -> Result<Option<StoredCheckpoint>, VaultError> {
        let mut open = self.checkpoints.signing_key.lock().await;
        let Some((key, row)) = self.open_signing_key(&mut open, create_key).await? else { return Ok(None) };
        let origin = self.log_origin().await?;
        let stored = self.env.store.newest_checkpoint(&origin).await?;
        // After the signing key is open, because that writes an entry.
        let LogHead { size, root, state_revision, state_head } = self.env.store.log_head();
        let checkpoint = match stored {
            Some(stored) if stored.size == size => stored,
            _ => {
                let text = Checkpoint { origin: origin.clone(), size, root, state_revision, state_head }.text();
                let signature = with_wiped_stack(|| key.private.sign(Algorithm::Ed25519, text.as_bytes()))?;
                let mut note = SignedNote::new(text).map_err(|_| VaultError::Internal("a checkpoint is no valid note"))?;
                note.add_signature(&verifier_key(&row.record, &origin)?, signature);
                let checkpoint = StoredCheckpoint { origin, size, note: note.to_string(), at: self.env.now() };
                self.env.store.store_checkpoint(checkpoint.clone()).await?;
                checkpoint
            }
        };
        tell_made(&checkpoint);
        self.checkpoints.publisher.publish(&checkpoint.note, checkpoint.size).await;
        Ok(Some(checkpoint))
    }

    /// Begins a new incarnation of the log, because an operator accepted a store that does not continue the newest known checkpoint.
    ///
    /// # Errors
    /// The errors of the store and of the commit.
    pub async fn accept_rollback(&self, rollback: &Rollback) -> Result<(), VaultError> {
        let incarnation = self.env.store.state().await?.incarnation.max(rollback.incarnation()).saturating_add(1);
        let event = AuditEvent { reason: Some(rollback.to_string()), ..self.gate.system_event(Operation::AcceptRollback) };
        Ok(self.gate.record_change(Change::BeginIncarnation(incarnation), event).await?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285 million years")]
fn tell_made(checkpoint: &StoredCheckpoint) {
    metrics::gauge!("keyvault_audit_checkpoint_timestamp_seconds").set(checkpoint.at.seconds() as f64);
}
