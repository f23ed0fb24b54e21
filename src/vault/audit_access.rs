//! Who was allowed to use a key at a time, and who used it: from the grants that the log states and from its entries.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::{
    domain::{Dimension, Grant, Hex, KeyId, NodeName, Operation, Policy, Timestamp, grants_in},
    storage::{EntryFilter, Order, PageRequest, StoredEntry, Totals, TotalsQuery},
};

use super::{AuditedResult, CallContext, KeySelector, Vault, VaultError, audit_gate::Completed};

/// The digest of a policy, which the log states when it comes into force.
pub(super) fn policy_digest(policy: &Policy) -> ([u8; 32], String) {
    let text = policy.text();
    (Sha256::digest(&text).into(), text)
}

/// A policy that was in force.
#[derive(Debug)]
pub struct PolicyInForce {
    /// Its revision, as in the entries.
    pub revision: String,
    /// SHA-256 of its text. `None` if an earlier version of the program wrote the entry.
    pub digest: Option<String>,
    /// The entry with which it came into force.
    pub sequence: u64,
    /// The time of that entry.
    pub since: Timestamp,
    /// The grants that permitted the use of the key. `None` if the text of the policy is not known.
    pub grants: Option<Vec<Grant>>,
}

/// Who may use a key, and who did.
#[derive(Debug)]
pub struct KeyAccess {
    /// The key.
    pub key: KeyId,
    /// Its node.
    pub node: NodeName,
    /// The policy at that time. `None` before the first start of the vault.
    pub policy: Option<PolicyInForce>,
    /// The state of the key after its newest change before that time, as the log states it.
    pub key_state: Option<String>,
    /// From this day, in days since 1970-01-01, inclusive: the days that are counted.
    pub from: i64,
    /// Up to this day, exclusive.
    pub to: i64,
    /// The uses on these days, by principal, certificate, operation and outcome.
    pub uses: Totals,
}

impl Vault {
    /// Shows who was allowed to use a key at `at`, and who used it on the days of `at - window` to `at + window`.
    ///
    /// # Errors
    /// `InvalidRequest` if the key is not clear; `KeyNotFound`; `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn show_access(
        &self,
        call: &CallContext,
        key: KeySelector,
        at: Timestamp,
        window: Duration,
    ) -> Result<AuditedResult<KeyAccess>, VaultError> {
        let mut event = self.gate.event(call, Operation::ShowAccess);
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let key = self.select_key(&key, permit.nodes()).await?;
            let stored = self.env.store.key(key).await?.map(|stored| stored.record.attributes.node);
            let node = stored.filter(|node| permit.nodes().includes(node)).ok_or(VaultError::KeyNotFound(key))?;
            (event.key, event.node) = (Some(key), Some(node.clone()));
            let policy = self.policy_at(at, &node).await?;
            let key_state = self.env.store.key_state_at(key, at).await?.map(|lifecycle| lifecycle.to_string());
            let micros = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
            let day = |micros: i64| micros.div_euclid(24 * 3600 * 1_000_000);
            let (from, to) = (day(at.micros().saturating_sub(micros)), day(at.micros().saturating_add(micros)).saturating_add(1));
            let uses = TotalsQuery {
                nodes: permit.nodes().clone(),
                by: vec![Dimension::Principal, Dimension::Certificate, Dimension::Operation, Dimension::Outcome],
                principal: None,
                certificate: None,
                node: None,
                key: Some(key),
                operation: None,
                outcome: None,
                from: Some(from),
                to: Some(to),
            };
            let mut uses = self.env.store.totals(uses).await?;
            // The third value is the operation.
            let is_use = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok()).is_some_and(Operation::uses_key);
            uses.groups.retain(|group| group.values.get(2).is_some_and(is_use));
            Ok(Completed::read(permit, KeyAccess { key, node, policy, key_state, from, to, uses }))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// The policy that the newest start or reload up to this time brought into force, and its grants to use keys of the node.
    async fn policy_at(&self, at: Timestamp, node: &NodeName) -> Result<Option<PolicyInForce>, VaultError> {
        let mut newest: Option<StoredEntry> = None;
        for operation in [Operation::Start, Operation::Reload] {
            let found = self.newest(EntryFilter { operation: Some(operation), ..EntryFilter::all() }, at).await?;
            newest = newest.into_iter().chain(found).max_by_key(|stored| stored.entry.sequence);
        }
        let Some(StoredEntry { entry, .. }) = newest else { return Ok(None) };
        let mut grants = None;
        if let Some(digest) = &entry.digest {
            let text = self.env.store.policy_text(digest).await?;
            // The entry authenticates the text, which has no other protection.
            let text = text.filter(|text| Hex(&Sha256::digest(text)).to_string() == *digest);
            grants = text.as_deref().and_then(grants_in);
        }
        let uses = |grant: &Grant| grant.nodes.includes(node) && grant.role.operations().iter().any(|operation| operation.uses_key());
        let grants = grants.map(|grants| grants.into_iter().filter(uses).collect());
        let (revision, sequence, since) = (entry.policy_revision, entry.sequence, entry.at);
        Ok(Some(PolicyInForce { revision, digest: entry.digest, sequence, since, grants }))
    }

    /// The newest entry up to this time.
    async fn newest(&self, filter: EntryFilter, at: Timestamp) -> Result<Option<StoredEntry>, VaultError> {
        let to = Some(Timestamp::from_micros(at.micros().saturating_add(1)));
        let filter = EntryFilter { to, order: Order::Newest, ..filter };
        let mut after = 0;
        loop {
            let mut page = self.env.store.entries(&filter, PageRequest { after, limit: 1 }).await?;
            match (page.entries.pop(), page.stopped_at) {
                (None, Some(position)) => after = position,
                (found, _) => return Ok(found),
            }
        }
    }
}
