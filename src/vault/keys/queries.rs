//! Looking without changing: the inventory, one key, the log, wrapper keys. Reads are entries too.

use std::sync::Arc;

use crate::{
    audit::Entry,
    domain::{AuditEvent, Class, KeyId, KeyRecord, KeyState, NodeName, Operation, Outcome, Purpose, Timestamp},
    storage::{EntryFilter, KeyFilter, Page, Positioned, StoredEntry},
};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::commit::Completed};

/// Which keys to list.
#[derive(Debug, Default)]
pub struct KeyQuery {
    /// On this node.
    pub node: Option<NodeName>,
    /// For this.
    pub purpose: Option<Purpose>,
    /// In this state.
    pub state: Option<KeyState>,
    /// Of this class.
    pub class: Option<Class>,
    /// Created before.
    pub created_before: Option<Timestamp>,
}

/// Which entries to list; `from` inclusive, `to` exclusive.
#[derive(Debug, Default)]
pub struct EntryQuery {
    /// About this key.
    pub key: Option<KeyId>,
    /// On this node.
    pub node: Option<NodeName>,
    /// By this principal.
    pub principal: Option<String>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// Where to continue a list, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// After this position; 0 begins.
    pub after: u64,
    /// At most so many.
    pub limit: u32,
}

/// A part of a list.
#[derive(Debug)]
pub struct ItemPage<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// Where the next part begins, if there may be one.
    pub next: Option<u64>,
}

/// An entry of the log, with the leaf hash of its stored bytes.
#[derive(Debug)]
pub struct LoggedEntry {
    /// The entry.
    pub entry: Entry,
    /// RFC 6962 leaf hash.
    pub leaf: [u8; 32],
}

impl Vault {
    /// Lists the keys on nodes that the caller may see.
    ///
    /// # Errors
    /// The gate's, the store's, or the log's.
    pub async fn list_keys(
        self: &Arc<Self>,
        call: &CallContext,
        query: KeyQuery,
        cursor: PageRequest,
    ) -> Result<AuditedResult<ItemPage<KeyRecord>>, VaultError> {
        let event = AuditEvent { node: query.node.clone(), ..self.event(call, Operation::ListKeys) };
        let done = self.try_list(&event, query, cursor).await;
        self.conclude(event, done).await
    }

    async fn try_list(
        &self,
        event: &AuditEvent,
        query: KeyQuery,
        cursor: PageRequest,
    ) -> Result<Completed<ItemPage<KeyRecord>>, VaultError> {
        let permit = self.permit_inventory(event)?;
        let KeyQuery { node, purpose, state, class, created_before } = query;
        let filter = KeyFilter { nodes: permit.nodes().clone(), node, purpose, state, class, created_before };
        let found = self.store.keys(&filter, page(cursor)).await?;
        Ok(Completed::read(permit, part(found, cursor)))
    }

    /// Shows one key.
    ///
    /// # Errors
    /// `KeyNotFound`, else as [`Vault::list_keys`].
    pub async fn show_key(self: &Arc<Self>, call: &CallContext, id: KeyId) -> Result<AuditedResult<KeyRecord>, VaultError> {
        let mut event = self.event(call, Operation::ShowKey);
        let done = self.permit_key(&mut event, id).await.map(|(permit, stored)| Completed::read(permit, stored.record));
        self.conclude(event, done).await
    }

    /// Lists entries of the log, on nodes that the caller may see.
    ///
    /// # Errors
    /// As [`Vault::list_keys`].
    pub async fn query_audit(
        self: &Arc<Self>,
        call: &CallContext,
        query: EntryQuery,
        cursor: PageRequest,
    ) -> Result<AuditedResult<ItemPage<LoggedEntry>>, VaultError> {
        let event = self.event(call, Operation::QueryAudit);
        let done = self.try_query(&event, query, cursor).await;
        self.conclude(event, done).await
    }

    async fn try_query(
        &self,
        event: &AuditEvent,
        query: EntryQuery,
        cursor: PageRequest,
    ) -> Result<Completed<ItemPage<LoggedEntry>>, VaultError> {
        let permit = self.permit_inventory(event)?;
        let EntryQuery { key, node, principal, operation, outcome, from, to } = query;
        let filter = EntryFilter { nodes: permit.nodes().clone(), key, node, principal, operation, outcome, from, to };
        let found = self.store.entries(&filter, page(cursor)).await?;
        let logged = |StoredEntry { entry, leaf, .. }| Positioned { position: entry.sequence, item: LoggedEntry { entry, leaf } };
        let found = found.into_iter().map(logged).collect();
        Ok(Completed::read(permit, part(found, cursor)))
    }
}

/// One more than asked for tells whether there is more.
pub(in crate::vault) const fn page(cursor: PageRequest) -> Page {
    Page { after: cursor.after, limit: cursor.limit.saturating_add(1) }
}

pub(in crate::vault) fn part<T>(mut found: Vec<Positioned<T>>, cursor: PageRequest) -> ItemPage<T> {
    let limit = cursor.limit as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.position);
    ItemPage { items: found.into_iter().map(|found| found.item).collect(), next }
}
