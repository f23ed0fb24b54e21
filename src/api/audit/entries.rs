//! `/v1/audit/entries` and `/v1/audit/export`: who used which key when. An entry is sent as the bytes that are stored and hashed.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome},
    vault::{CallContext, EntryQuery, Export, ItemPage, KeySelector, LoggedEntry, Order, VaultError},
};

use super::filters::{Age, CertificateDigest, EntryOrder, Job, Sequence, TimeOrDate, WrapperKey};
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

/// Declares the query of a call that selects entries: the filters, and what only this call has.
macro_rules! entries_query {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Deserialize, IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(in crate::api) struct $name {
            #[param(value_type = Option<String>)]
            key_id: Option<KeyId>,
            /// A key by its name, or by the beginning of its id. It must name one key only.
            #[param(nullable = false, min_length = 1, max_length = 300)]
            key: Option<String>,
            #[param(value_type = Option<String>)]
            node: Option<NodeName>,
            #[param(nullable = false)]
            principal: Option<String>,
            /// SHA-256 of the client certificate, in hex. Colons are allowed.
            #[param(value_type = Option<String>)]
            certificate: Option<CertificateDigest>,
            operation: Option<Operation>,
            outcome: Option<Outcome>,
            /// The request id of the call, or one that a KMS assigned to a call that the vault made for it.
            #[param(nullable = false)]
            request_id: Option<String>,
            /// The W3C trace id of the caller, 32 hex digits.
            #[param(nullable = false)]
            trace_id: Option<String>,
            /// Entries that name this job.
            #[param(value_type = Option<String>)]
            job: Option<Job>,
            /// Entries that name this wrapper key.
            #[param(value_type = Option<String>)]
            wrapper_key: Option<WrapperKey>,
            /// Not before this time: RFC 3339, or a date, which is its beginning in UTC.
            #[param(value_type = Option<String>)]
            from: Option<TimeOrDate>,
            /// Before this time: RFC 3339, or a date, which is its beginning in UTC.
            #[param(value_type = Option<String>)]
            to: Option<TimeOrDate>,
            /// Not older than this, by the clock of the vault: a number with `s`, `m`, `h`, `d` or `w`, such as `1d`.
            #[param(value_type = Option<String>)]
            since: Option<Age>,
            /// Only entries after this sequence number: the `sequence` of the last entry that the caller has. Unlike a cursor, it is known on the last
            /// page too, so that a program can continue there later.
            #[param(value_type = Option<u64>, minimum = 0)]
            after: Option<Sequence>,
            $($(#[$fmeta])* $field: $type,)*
        }

        impl $name {
            /// The filters, and the order oldest first.
            ///
            /// # Errors
            /// `InvalidRequest` if both `key` and `key_id` are given.
            fn filters(&mut self) -> Result<EntryQuery, VaultError> {
                let key = match (self.key_id, self.key.take()) {
                    (Some(_), Some(_)) => return Err(VaultError::InvalidRequest("key: supply either key or key_id".into())),
                    (Some(id), None) => Some(KeySelector::Id(id)),
                    (None, text) => text.map(KeySelector::Text),
                };
                Ok(EntryQuery {
                    key,
                    node: self.node.take(),
                    principal: self.principal.take(),
                    certificate: self.certificate.map(|CertificateDigest(digest)| digest),
                    operation: self.operation,
                    outcome: self.outcome,
                    request_id: self.request_id.take(),
                    trace_id: self.trace_id.take(),
                    job: self.job.map(|Job(id)| id),
                    wrapper_key: self.wrapper_key.map(|WrapperKey(id)| id),
                    from: self.from.map(|TimeOrDate(time)| time),
                    to: self.to.map(|TimeOrDate(time)| time),
                    since: self.since.map(|Age(age)| age),
                    after: self.after.map_or(0, |Sequence(number)| number),
                    order: Order::Oldest,
                })
            }
        }
    };
}

entries_query!(
    /// Which entries to list.
    EntriesQuery {
        /// Which entries come first: `oldest` (default) or `newest`.
        #[param(value_type = Option<String>, pattern = "^(oldest|newest)$")]
        order: Option<EntryOrder>,
        /// The `next_cursor` of the previous page.
        #[param(value_type = Option<String>)]
        cursor: Option<Cursor>,
        /// Maximum number of items, 1 to 1000. Default 100.
        #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
        limit: Option<PageLimit>,
    }
);

entries_query!(
    /// Which entries to export.
    ExportQuery {}
);

/// A page of audit entries.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct AuditEntryList {
    /// The items, in the order of the query.
    items: Vec<AuditEntry>,
    /// The cursor of the next page. `null` on the last page.
    next_cursor: Option<String>,
    /// The entries up to this one were archived and removed, except state changes. Absent if none of those that were asked for were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    removed_through: Option<u64>,
}

/// Query the log
///
/// Auditors of some nodes see the entries of those nodes. Each entry is sent in its stored bytes, so that its hash can be
/// checked: the schema `AuditEntry` has the rule. A page can have fewer entries than requested, or none, and a `next_cursor` all the same,
/// because a query takes a bounded time.
#[utoipa::path(get, path = "/v1/audit/entries", operation_id = "audit.query", tag = "audit", params(EntriesQuery), responses((status = 200, body = AuditEntryList, description = "A page of audit entries"), Problems))]
pub(in crate::api) async fn entries(
    State(api): State<Arc<Api>>,
    mut ask: ApiRequest<Nothing, EntriesQuery>,
) -> Result<Json<AuditEntryList>, Problem> {
    let filters = match ask.query.filters() {
        Ok(filters) => filters,
        Err(error) => return Err(refused(&api, &ask.call, Operation::QueryAudit, error).await),
    };
    let order = ask.query.order.map_or(Order::Oldest, |EntryOrder(order)| order);
    // The position of an entry in the list is its sequence number.
    let page = page_request(ask.query.cursor, ask.query.limit);
    let after = filters.after;
    let page = api.vault.query_audit(&ask.call, EntryQuery { order, ..filters }, page).await.or_problem(&ask.call)?.into_value();
    let items: Result<Vec<AuditEntry>, VaultError> = page.items.into_iter().map(AuditEntry::try_from).collect();
    let List { items, next_cursor } = List::of(ItemPage { items: items.or_problem(&ask.call)?, next: page.next });
    let removed_through = Some(api.vault.removed_through()).filter(|removed| *removed > after);
    Ok(Json(AuditEntryList { items, next_cursor, removed_through }))
}

/// Export the log
///
/// A stream of JSON lines, oldest entry first, with one audit entry for the whole call. The first line is a header: the origin of the log, a
/// checkpoint, and the roots of the complete subtrees of the entries before. Each entry follows in its stored bytes. If entries are left out, by a filter
/// or because the caller sees some nodes only, each entry is followed by its inclusion proof in the tree of the checkpoint. The last line is
/// `{"end":{"last":…,"entries":…}}`; without it, the export is not complete, and `after` resumes it.
#[utoipa::path(get, path = "/v1/audit/export", operation_id = "audit.export", tag = "audit", params(ExportQuery), responses((status = 200, body = String, content_type = "application/x-ndjson", description = "The entries, one on each line"), Problems))]
pub(in crate::api) async fn export(State(api): State<Arc<Api>>, mut ask: ApiRequest<Nothing, ExportQuery>) -> Result<Response, Problem> {
    let filters = match ask.query.filters() {
        Ok(filters) => filters,
        Err(error) => return Err(refused(&api, &ask.call, Operation::ExportAudit, error).await),
    };
    let export = Box::pin(api.vault.export_audit(&ask.call, filters)).await.or_problem(&ask.call)?.into_value();
    // The stream holds the place of the call until its end was sent.
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], streamed(export, ask)).into_response())
}

/// The parts of an export as the body of an answer. Each part is made when the connection has room for it.
fn streamed(export: Export, ask: ApiRequest<Nothing, ExportQuery>) -> Body {
    let parts = stream::try_unfold((export, ask), |(mut export, ask)| async move {
        match export.next().await {
            Ok(part) => Ok(part.map(|part| (part, (export, ask)))),
            Err(error) => {
                tracing::warn!(%error, request_id = &*ask.call.request_id, "an export of the audit log ended before its end");
                Err(error)
            }
        }
    });
    Body::from_stream(parts)
}

async fn refused(api: &Api, call: &CallContext, operation: Operation, error: VaultError) -> Problem {
    Problem::of(&api.vault.reject(call, operation, None, error).await, &call.request_id)
}
