//! `/v1/audit/entries`: who used which key when.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome, Timestamp},
    vault::{EntryQuery, LoggedEntry},
};

use super::{
    Api, Problem,
    base64::Base64,
    extract::{ApiRequest, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// An entry, and the hash of its stored bytes.
#[derive(Debug, Serialize)]
pub struct AuditEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// RFC 6962 leaf hash of the stored bytes.
    pub leaf: Base64,
}

/// The entry's own schema with one more field. Derived, it would be the entry *and* an object with the field, which contradict each
/// other, since an entry has no unknown fields.
impl PartialSchema for AuditEntry {
    fn schema() -> RefOr<Schema> {
        match Entry::schema() {
            RefOr::T(Schema::Object(mut entry)) => {
                entry.properties.insert("leaf".into(), Base64::schema());
                entry.required.push("leaf".into());
                RefOr::T(Schema::Object(entry))
            }
            other => other,
        }
    }
}

impl ToSchema for AuditEntry {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Entry::schemas(schemas);
    }
}

impl From<LoggedEntry> for AuditEntry {
    fn from(LoggedEntry { entry, leaf }: LoggedEntry) -> Self {
        Self { entry, leaf: Base64(leaf.to_vec()) }
    }
}

/// Which entries to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EntriesQuery {
    #[param(value_type = Option<String>)]
    key_id: Option<KeyId>,
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    #[param(nullable = false)]
    principal: Option<String>,
    operation: Option<Operation>,
    outcome: Option<Outcome>,
    /// Not before this time, RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before this time, RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Maximum number of items, 1 to 1000. Default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Query the log
///
/// Oldest first. Auditors of some nodes see the entries of those nodes.
#[utoipa::path(get, path = "/v1/audit/entries", operation_id = "audit.query", tag = "audit", params(EntriesQuery), responses((status = 200, body = List<AuditEntry>, description = "A page of audit entries"), Problems))]
pub(super) async fn entries(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, EntriesQuery>,
) -> Result<Json<List<AuditEntry>>, Problem> {
    let EntriesQuery { key_id, node, principal, operation, outcome, from, to, cursor, limit } = ask.query;
    let query = EntryQuery { key: key_id, node, principal, operation, outcome, from, to };
    let page = api.vault.query_audit(&ask.call, query, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}
