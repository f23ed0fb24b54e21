//! Queries of the audit log.

use std::time::Duration;

use crate::{
    audit::Entry,
    domain::{CertificateId, JobId, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp, WrapperKeyId},
    storage::{EntryFilter, EntryPage, Order, Positioned, StoredEntry},
};

use super::{
    AuditedResult, CallContext, ItemPage, PageRequest, Vault, VaultError,
    audit_gate::Completed,
    pagination::{item_page, one_more},
};

/// Filters of a list of audit entries. All given filters must match.
#[derive(Debug, Default)]
pub struct EntryQuery {
    /// The key.
    pub key: Option<KeySelector>,
    /// The node.
    pub node: Option<NodeName>,
    /// The principal.
    pub principal: Option<String>,
    /// The client certificate.
    pub certificate: Option<CertificateId>,
    /// The operation.
    pub operation: Option<Operation>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The request id of the call, or one that a KMS assigned to a call of the vault.
    pub request_id: Option<String>,
    /// The trace id of the caller.
    pub trace_id: Option<String>,
    /// A job that the entry names.
    pub job: Option<JobId>,
    /// A wrapper key that the entry names.
    pub wrapper_key: Option<WrapperKeyId>,
    /// From this time, inclusive.
    pub from: Option<Timestamp>,
    /// Up to this time, exclusive.
    pub to: Option<Timestamp>,
    /// Not older than this, by the clock of the vault. The later one of this and `from` counts.
    pub since: Option<Duration>,
    /// Only entries with a larger sequence number.
    pub after: u64,
    /// The order.
    pub order: Order,
}

/// A key as an auditor names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySelector {
    /// Its id.
    Id(KeyId),
    /// Its name, or the beginning of its id. It must name one key that the caller may see.
    Text(String),
}

/// An audit entry, its stored bytes, and their leaf hash.
#[derive(Debug)]
pub struct LoggedEntry {
    /// The entry.
    pub entry: Entry,
    /// The stored bytes: JSON. Only they are hashed.
    pub bytes: Vec<u8>,
    /// The leaf hash as in RFC 6962.
    pub leaf: [u8; 32],
}

impl Vault {
    /// Lists audit entries about the nodes that the caller may see. A page can have fewer entries than requested, or none, and a next page all
    /// the same, because a query takes a bounded time.
    ///
    /// # Errors
    /// `InvalidRequest` if the key is not clear; `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn query_audit(
        &self,
        call: &CallContext,
        query: EntryQuery,
        page: PageRequest,
    ) -> Result<AuditedResult<ItemPage<LoggedEntry>>, VaultError> {
        let event = self.gate.event(call, Operation::QueryAudit);
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let filter = self.entry_filter(query, permit.nodes()).await?;
            let EntryPage { entries, stopped_at } = self.env.store.entries(&filter, one_more(page)).await?;
            let logged =
                |StoredEntry { entry, bytes, leaf }| Positioned { position: entry.sequence, item: LoggedEntry { entry, bytes, leaf } };
            let page = item_page(entries.into_iter().map(logged).collect(), page);
            // The part of a page that was found in time goes on after the last entry looked at.
            Ok(Completed::read(permit, ItemPage { next: page.next.or(stopped_at), ..page }))
        };
        let result = result.await;
        self.gate.conclude(event, result).await
    }

    /// The filter of a query by a caller that may see these nodes.
    ///
    /// # Errors
    /// `InvalidRequest` if the key is not clear; `StorageUnavailable`.
    pub(super) async fn entry_filter(&self, query: EntryQuery, nodes: &NodeScope) -> Result<EntryFilter, VaultError> {
        let EntryQuery {
            key,
            node,
            principal,
            certificate,
            operation,
            outcome,
            request_id,
            trace_id,
            job,
            wrapper_key,
            from,
            to,
            since,
            after,
            order,
        } = query;
        let key = match key {
            Some(selector) => Some(self.select_key(&selector, nodes).await?),
            None => None,
        };
        let since = since.map(|age| {
            let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            Timestamp::from_micros(self.env.now().micros().saturating_sub(micros))
        });
        Ok(EntryFilter {
            nodes: nodes.clone(),
            key,
            node,
            principal,
            certificate,
            operation,
            outcome,
            request_id,
            trace_id,
            job,
            wrapper_key,
            from: from.max(since),
            to,
            after,
            last: None,
            order,
        })
    }

    /// The id of a key that an auditor names.
    ///
    /// # Errors
    /// `InvalidRequest` if the text names no key or more than one; `StorageUnavailable`.
    pub(super) async fn select_key(&self, selector: &KeySelector, nodes: &NodeScope) -> Result<KeyId, VaultError> {
        let text = match selector {
            KeySelector::Id(id) => return Ok(*id),
            KeySelector::Text(text) => text,
        };
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        match self.env.store.find_keys(text, nodes, 2).await?.as_slice() {
            [id] => Ok(*id),
            [] => Err(VaultError::InvalidRequest("key: no key has this name or an id that begins so. Supply the id".into())),
            _ => Err(VaultError::InvalidRequest("key: more than one key has this name or an id that begins so. Supply the id".into())),
        }
    }
}
