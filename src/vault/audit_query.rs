//! Queries of the audit log.

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome, Timestamp},
    storage::{EntryFilter, EntryPage, Positioned, StoredEntry},
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
    pub key: Option<KeyId>,
    /// The node.
    pub node: Option<NodeName>,
    /// The principal.
    pub principal: Option<String>,
    /// The operation.
    pub operation: Option<Operation>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// From this time, inclusive.
    pub from: Option<Timestamp>,
    /// Up to this time, exclusive.
    pub to: Option<Timestamp>,
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
    /// `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn query_audit(
        &self,
        call: &CallContext,
        query: EntryQuery,
        page: PageRequest,
    ) -> Result<AuditedResult<ItemPage<LoggedEntry>>, VaultError> {
        let event = self.gate.event(call, Operation::QueryAudit);
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let EntryQuery { key, node, principal, operation, outcome, from, to } = query;
            let filter = EntryFilter { nodes: permit.nodes().clone(), key, node, principal, operation, outcome, from, to };
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
}
