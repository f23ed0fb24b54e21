//! `/v1/audit/entries`: who used which key when. An entry is sent as the bytes that are stored and hashed.

use std::sync::Arc;

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome, Timestamp},
    vault::{EntryQuery, ItemPage, LoggedEntry, VaultError},
};

use crate::api::{
    Api, Problem,
    base64::Base64,
    extract::{ApiRequest, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// An entry in its stored bytes, with their hash as one more field at the end.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct AuditEntry(Box<RawValue>);

/// The rule for those who check the hash of an entry. `docs/operations.md` has a command for it.
const LEAF_RULE: &str = "An audit entry, with the hash of its stored bytes as the last field, `leaf`: the leaf hash of RFC 6962, \
    SHA-256(0x00 ‖ stored bytes), in base64. The stored bytes are this object as it was sent, without `,\"leaf\":\"…\"`. A program that has parsed the \
    object gets the same bytes if it removes `leaf` and encodes the other fields in the order in which they came, without spaces, in UTF-8.";

/// The entry's own schema with one more field. Derived, it would be the entry *and* an object with the field, which contradict each
/// other, since an entry has no unknown fields.
impl PartialSchema for AuditEntry {
    fn schema() -> RefOr<Schema> {
        match Entry::schema() {
            RefOr::T(Schema::Object(mut entry)) => {
                entry.description = Some(LEAF_RULE.into());
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

impl TryFrom<LoggedEntry> for AuditEntry {
    type Error = VaultError;

    fn try_from(LoggedEntry { entry: _, bytes, leaf }: LoggedEntry) -> Result<Self, VaultError> {
        let damaged = || VaultError::Internal("an entry in the store is not an object");
        let text = String::from_utf8(bytes).ok();
        let Some(fields) = text.as_deref().and_then(|text| text.strip_suffix('}')) else { return Err(damaged()) };
        let text = format!("{fields},\"leaf\":\"{}\"}}", STANDARD.encode(leaf));
        RawValue::from_string(text).map(Self).map_err(|_| damaged())
    }
}

/// The `after` of a query: the sequence number of an entry.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::api) struct Sequence(u64);

impl TryFrom<String> for Sequence {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number = text.parse().ok().filter(|number| *number < 1 << 62);
        number.map(Self).ok_or("after: supply the sequence number of an entry")
    }
}

/// Which entries to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct EntriesQuery {
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
    /// Only entries after this sequence number: the `sequence` of the last entry that the caller has. Unlike a cursor, it is known on the last
    /// page too, so that a program can continue there later.
    #[param(value_type = Option<u64>, minimum = 0)]
    after: Option<Sequence>,
    /// The `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Maximum number of items, 1 to 1000. Default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Query the log
///
/// Oldest first. Auditors of some nodes see the entries of those nodes. Each entry is sent in its stored bytes, so that its hash can be
/// checked: the schema `AuditEntry` has the rule. A page can have fewer entries than requested, or none, and a `next_cursor` all the same,
/// because a query takes a bounded time.
#[utoipa::path(get, path = "/v1/audit/entries", operation_id = "audit.query", tag = "audit", params(EntriesQuery), responses((status = 200, body = List<AuditEntry>, description = "A page of audit entries"), Problems))]
pub(in crate::api) async fn entries(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, EntriesQuery>,
) -> Result<Json<List<AuditEntry>>, Problem> {
    let EntriesQuery { key_id, node, principal, operation, outcome, from, to, after, cursor, limit } = ask.query;
    let query = EntryQuery { key: key_id, node, principal, operation, outcome, from, to };
    let mut page = page_request(cursor, limit);
    // The position of an entry in the list is its sequence number.
    page.after = page.after.max(after.map_or(0, |Sequence(number)| number));
    let page = api.vault.query_audit(&ask.call, query, page).await.or_problem(&ask.call)?.into_value();
    let items: Result<Vec<AuditEntry>, VaultError> = page.items.into_iter().map(AuditEntry::try_from).collect();
    Ok(Json(List::of(ItemPage { items: items.or_problem(&ask.call)?, next: page.next })))
}
