//! What auditors ask for: the newest checkpoint, the keys that verify checkpoints, and proofs.

use crate::{
    audit::leaf_hash,
    domain::{KeyState, Operation, Timestamp},
    storage::{StoredCheckpoint, TreeQuery},
};

use super::{compare::checkpoint_keys, signing_key::verifier_key};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// A key that verifies checkpoints.
#[derive(Debug)]
pub struct VerifierKeyView {
    /// The verifier key, as C2SP signed notes have it.
    pub verifier_key: String,
    /// The state of the signing key.
    pub state: KeyState,
    /// When the signing key was created.
    pub created_at: Timestamp,
}

/// A proof: the number of entries of its tree, and hashes.
#[derive(Debug)]
pub struct Proof {
    /// The number of entries.
    pub size: u64,
    /// The root of the tree of these entries.
    pub root: [u8; 32],
    /// The hashes, in the order of RFC 6962.
    pub hashes: Vec<[u8; 32]>,
}

/// The proof that an entry is in the log.
#[derive(Debug)]
pub struct InclusionProof {
    /// The leaf hash of the entry, from its stored bytes.
    pub leaf: [u8; 32],
    /// The proof.
    pub proof: Proof,
}

impl Vault {
    /// The newest stored checkpoint.
    ///
    /// # Errors
    /// `NotFound` before the first one; `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn show_checkpoint(&self, call: &CallContext) -> Result<AuditedResult<StoredCheckpoint>, VaultError> {
        let event = self.gate.event(call, Operation::ShowCheckpoint);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let origin = self.log_origin().await?;
            let newest = self.env.store.newest_checkpoint(&origin).await?.ok_or(VaultError::NotFound("checkpoint"))?;
            Ok(Completed::read(permit, newest))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// Makes a checkpoint now. It covers the entry of this call.
    ///
    /// # Errors
    /// `Forbidden`; the errors of the KMS, the store and the audit log.
    pub async fn request_checkpoint(&self, call: &CallContext) -> Result<StoredCheckpoint, VaultError> {
        let event = self.gate.event(call, Operation::MakeCheckpoint);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            Ok(Completed::read(permit, ()))
        };
        let result = result.await;
        self.gate.conclude(event, result).await?;
        self.make_checkpoint(true).await?.ok_or(VaultError::NotFound("checkpoint"))
    }

    /// The keys that verify checkpoints of this log, oldest first.
    ///
    /// # Errors
    /// `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn verifier_keys(&self, call: &CallContext) -> Result<AuditedResult<Vec<VerifierKeyView>>, VaultError> {
        let event = self.gate.event(call, Operation::ListVerifierKeys);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let origin = self.log_origin().await?;
            let keys = checkpoint_keys(self.env.store.as_ref()).await?;
            let view = |(_, record): &(_, crate::domain::KeyRecord)| {
                let verifier_key = verifier_key(record, &origin)?.to_string();
                Ok(VerifierKeyView { verifier_key, state: record.lifecycle.state(), created_at: record.created_at })
            };
            Ok(Completed::read(permit, keys.iter().map(view).collect::<Result<Vec<_>, VaultError>>()?))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// The proof that the log of `size` entries contains the entry with this sequence number. Without `size`, that of the newest checkpoint.
    ///
    /// # Errors
    /// `InvalidRequest` if there is no such entry in that log; otherwise as [`Vault::show_checkpoint`].
    pub async fn prove_inclusion(
        &self,
        call: &CallContext,
        sequence: u64,
        size: Option<u64>,
    ) -> Result<AuditedResult<InclusionProof>, VaultError> {
        let event = self.gate.event(call, Operation::ProveInclusion);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let size = self.proven_size(size).await?;
            let leaf = sequence.checked_sub(1).filter(|leaf| *leaf < size);
            let leaf =
                leaf.ok_or_else(|| VaultError::InvalidRequest(format!("sequence: the log of {size} entries has the entries 1 to {size}")))?;
            let proof = self.proof(size, TreeQuery::Inclusion { leaf, size }).await?;
            let leaf = if self.not_removed(leaf).is_ok() {
                let bytes = self.env.store.entry_bytes(leaf, 1).await?;
                bytes.first().map(|bytes| leaf_hash(bytes))
            } else {
                // The bytes may be in an archive. Their hash is here.
                self.env.store.tree(TreeQuery::Hashes { level: 0, from: leaf, count: 1 }).await?.first().copied()
            };
            let leaf = leaf.ok_or(VaultError::NotFound("entry"))?;
            Ok(Completed::read(permit, InclusionProof { leaf, proof }))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// The proof that the log of `size` entries begins with that of `from` entries. Without `size`, that of the newest checkpoint.
    ///
    /// # Errors
    /// `InvalidRequest` if `from` is larger than `size`; otherwise as [`Vault::show_checkpoint`].
    pub async fn prove_consistency(&self, call: &CallContext, from: u64, size: Option<u64>) -> Result<AuditedResult<Proof>, VaultError> {
        let event = self.gate.event(call, Operation::ProveConsistency);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let size = self.proven_size(size).await?;
            if from > size {
                return Err(VaultError::InvalidRequest(format!("from: the log that is proven has {size} entries")));
            }
            Ok(Completed::read(permit, self.proof(size, TreeQuery::Consistency { old: from, size }).await?))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    async fn proof(&self, size: u64, query: TreeQuery) -> Result<Proof, VaultError> {
        let root = self.env.store.tree(TreeQuery::Root { size }).await?.first().copied();
        let hashes = self.env.store.tree(query).await?;
        Ok(Proof { size, root: root.ok_or(VaultError::Internal("a tree has no root"))?, hashes })
    }

    /// The requested number of entries, which the log must have, or that of the newest checkpoint.
    async fn proven_size(&self, requested: Option<u64>) -> Result<u64, VaultError> {
        let durable = self.env.store.log_head().size;
        match requested {
            Some(size) if size <= durable => Ok(size),
            Some(_) => Err(VaultError::InvalidRequest(format!("size: the log has {durable} entries"))),
            None => {
                let origin = self.log_origin().await?;
                let newest = self.env.store.newest_checkpoint(&origin).await?;
                Ok(newest.ok_or(VaultError::NotFound("checkpoint"))?.size)
            }
        }
    }
}
