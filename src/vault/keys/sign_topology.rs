//! `sign-topology`: a signature over topology transactions that the vault has decoded. The vault computes the hash itself, and the audit entry
//! says what was signed.

use sha2::{Digest, Sha256};

use crate::{
    domain::{Algorithm, AuditEvent, KeyId, MappingKinds, Operation},
    topology::{CantonHash, TopologyTransaction, combined_hash},
};

use super::{
    sign::Signature,
    use_key::{KeyOperationResult, KeyUse},
};
use crate::vault::{AuditedResult, CallContext, Vault, VaultError};

/// Maximum number of transactions that one signature covers.
pub const MAX_TRANSACTIONS: usize = 16;

/// A signature over topology transactions.
#[derive(Debug)]
pub struct TopologySigned {
    /// The signature.
    pub signature: Signature,
    /// The algorithm: the one of the key.
    pub algorithm: Algorithm,
    /// What was signed: the hash of the transaction, or the combined hash of several.
    pub hash: CantonHash,
    /// The transactions.
    pub transactions: Vec<TopologyTransaction>,
}

impl Vault {
    /// Decodes 1 to 16 prepared transactions and signs their combined hash, or the hash of the only one unless `combined`.
    ///
    /// # Errors
    /// `InvalidRequest` for another number, `InvalidTopology` if one cannot be shown completely, `TopologyOnly` if the key may not sign these
    /// mappings, otherwise as [`Vault::sign`].
    pub async fn sign_topology(
        &self,
        call: &CallContext,
        id: KeyId,
        prepared: Vec<Vec<u8>>,
        combined: bool,
    ) -> Result<AuditedResult<TopologySigned>, VaultError> {
        let event = AuditEvent { key: Some(id), ..self.gate.event(call, Operation::SignTopology) };
        let transactions = match self.decode_all(call, prepared).await {
            Ok(transactions) => transactions,
            Err(error) => return self.gate.refuse(event, error).await,
        };
        let hashes: Vec<CantonHash> = transactions.iter().map(TopologyTransaction::hash).collect();
        let hash = match hashes.as_slice() {
            [one] if !combined => *one,
            several => combined_hash(several),
        };
        let kinds: MappingKinds = transactions.iter().map(|transaction| transaction.mapping.kind()).collect();
        let summary = transactions.iter().map(TopologyTransaction::summary).collect::<Vec<_>>().join("; ");
        let event = AuditEvent { subject: Some(summary), digest: Some(Sha256::digest(hash.as_bytes()).into()), ..event };
        self.use_key(event, id, KeyUse::SignTopology(kinds), move |key, scheme| {
            let algorithm = *scheme.algorithms().first().ok_or(VaultError::Internal("a scheme without an algorithm"))?;
            let no_signing_key = || VaultError::InvalidAttributes("only a signing key signs topology transactions".into());
            let format = scheme.signature_format().ok_or_else(no_signing_key)?;
            let bytes = key.private.sign(algorithm, hash.as_bytes())?;
            let signature = Signature { bytes, format };
            let value = TopologySigned { signature, algorithm, hash, transactions: transactions.clone() };
            Ok(KeyOperationResult { value, digest: None })
        })
        .await
    }

    async fn decode_all(&self, call: &CallContext, prepared: Vec<Vec<u8>>) -> Result<Vec<TopologyTransaction>, VaultError> {
        if !(1..=MAX_TRANSACTIONS).contains(&prepared.len()) {
            return Err(VaultError::InvalidRequest(format!("transactions: supply 1 to {MAX_TRANSACTIONS}")));
        }
        self.decode_in_share(&call.principal, prepared).await
    }
}
