//! `topology.decode`: shows what a prepared topology transaction does, with the names of the keys that the caller may see.

use crate::{
    domain::{AuditEvent, KeyId, Operation, Principal},
    topology::{KnownKey, TopologyTransaction},
};

use super::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed, authorize::may_see, heavy_work::Heavy};

/// A decoded transaction, and the keys in it that the vault holds and the caller may see.
#[derive(Debug)]
pub struct DecodedTopology {
    /// The transaction.
    pub transaction: TopologyTransaction,
    /// The keys.
    pub known: Vec<KnownKey>,
}

/// Keys that are looked up for one transaction. A mapping has at most 20 keys, and a namespace more.
const MAX_LOOKUPS: usize = 32;

/// Bytes that are decoded in place. The transactions of Canton's console are shorter, unless they have many keys.
const SHORT: usize = 1024;

impl Vault {
    /// Decodes a prepared transaction.
    ///
    /// # Errors
    /// `InvalidTopology`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn decode_topology(&self, call: &CallContext, prepared: &[u8]) -> Result<AuditedResult<DecodedTopology>, VaultError> {
        let mut event = self.gate.event(call, Operation::DecodeTopology);
        let result = self.try_decode_topology(&mut event, call, prepared).await;
        self.gate.conclude(event, result).await
    }

    async fn try_decode_topology(
        &self,
        event: &mut AuditEvent,
        call: &CallContext,
        prepared: &[u8],
    ) -> Result<Completed<DecodedTopology>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        let transaction = self.decode_in_share(&call.principal, vec![prepared.to_vec()]).await?;
        let transaction = transaction.into_iter().next().ok_or(VaultError::Internal("a transaction was not decoded"))?;
        event.subject = Some(transaction.hash().to_string());
        let known = self.known_keys(call, &transaction).await?;
        Ok(Completed::read(permit, DecodedTopology { transaction, known }))
    }

    /// Decodes transactions: short ones in place, long ones on a blocking thread within the share of the principal, because each key in them is
    /// checked.
    ///
    /// # Errors
    /// `InvalidTopology`, `TooMany`.
    pub(super) async fn decode_in_share(
        &self,
        principal: &Principal,
        prepared: Vec<Vec<u8>>,
    ) -> Result<Vec<TopologyTransaction>, VaultError> {
        let short = prepared.iter().map(Vec::len).sum::<usize>() <= SHORT;
        let decode = move || {
            let decoded = prepared.iter().map(|bytes| TopologyTransaction::decode(bytes));
            decoded.collect::<Result<_, _>>().map_err(|error| VaultError::InvalidTopology(error.to_string()))
        };
        if short { decode() } else { self.limits.heavy(principal, Heavy::Computation, decode).await }
    }

    /// The keys of a transaction that the vault holds and the caller may see.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn known_keys(&self, call: &CallContext, transaction: &TopologyTransaction) -> Result<Vec<KnownKey>, VaultError> {
        let policy = self.gate.policy();
        let mut known: Vec<KnownKey> = Vec::new();
        for fingerprint in transaction.fingerprints().into_iter().take(MAX_LOOKUPS) {
            let Some(stored) = self.env.store.key(KeyId::Pair(fingerprint)).await? else { continue };
            if may_see(&policy, &call.principal, &stored) {
                let name = stored.record.name.as_ref().map_or_else(|| stored.record.attributes.node.to_string(), ToString::to_string);
                known.push(KnownKey { fingerprint, name });
            }
        }
        Ok(known)
    }
}
