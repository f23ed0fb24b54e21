//! `/audit`: the audit log with filters, newest first, and one entry with all its fields.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde_json::Value;

use super::ROWS;
use crate::{
    cli::{
        html::{self as tables, Cell, grouped},
        ui::{
            fields::{Kind, Shown, field, field_text, items, list as table, text},
            form::{self, Field, Values, filters, paging},
            layout::{Page, message},
            link,
            part::{part, section},
            server::App,
        },
        value_parsers::ClosedSet,
    },
    client::Call,
    domain::{Operation, Outcome},
};

/// Which entries come first.
fn orders() -> Vec<&'static str> {
    vec!["newest", "oldest"]
}

const FILTERS: &[Field] = &[
    Field { name: "key", label: "Key: name, id or its beginning", kind: form::Kind::Text("orders") },
    Field { name: "node", label: "Node", kind: form::Kind::Text("participant1") },
    Field { name: "principal", label: "Principal", kind: form::Kind::Text("spiffe://…") },
    Field { name: "operation", label: "Operation", kind: form::Kind::Choice(Operation::all) },
    Field { name: "outcome", label: "Outcome", kind: form::Kind::Choice(Outcome::all) },
    Field { name: "from", label: "From (time or date)", kind: form::Kind::Text("2026-01-31") },
    Field { name: "to", label: "Before (time or date)", kind: form::Kind::Text("2026-02-01") },
    Field { name: "since", label: "Not older than", kind: form::Kind::Text("1d") },
    Field { name: "certificate", label: "Certificate (SHA-256)", kind: form::Kind::Text("hex") },
    Field { name: "request_id", label: "Request id, ours or of the KMS", kind: form::Kind::Text("") },
    Field { name: "trace_id", label: "Trace id", kind: form::Kind::Text("") },
    Field { name: "job", label: "Job", kind: form::Kind::Text("job-…") },
    Field { name: "wrapper_key", label: "Wrapper key", kind: form::Kind::Text("wk-…") },
    Field { name: "order", label: "First", kind: form::Kind::OneOf(orders) },
];

const LISTED: &[Shown] = &[
    field("Entry", "sequence", Kind::Link(link::entry)),
    field("Time", "at", Kind::Time),
    field("Principal", "principal", Kind::Code),
    field("Operation", "operation", Kind::Word),
    field("Outcome", "outcome", Kind::Word),
    field("Reason", "reason", Kind::Text),
    field("Node", "node", Kind::Text),
    field("Key", "key_id", Kind::Link(link::key)),
];

/// The list.
pub(in crate::cli::ui) async fn list(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Response {
    let call = Call::get("/v1/audit/entries").query("limit", &ROWS.to_string()).query_if("cursor", values.get("cursor"));
    let call = values.add_to(call, FILTERS);
    let call = if values.get("order").is_none() { call.query("order", "newest") } else { call };
    let found = part("entries", "Entries", app.client.json(call).await, |page| {
        let next = page.get("next_cursor").and_then(Value::as_str);
        html! {
            (table("Entries of the log", LISTED, items(page, "items"), if next.is_some() { "None on this page; the search goes on." } else { "No entry fits." }))
            @if let Some(removed) = page.get("removed_through").and_then(Value::as_u64) {
                p class="note" { "The entries up to " (grouped(removed)) " were archived and removed, except state changes." }
            }
            (paging("/audit", FILTERS, &values, next))
        }
    });
    let charts = link::with_query("/audit/charts", values.of(super::charts::FILTERS));
    let body = html! {
        p { a href=(charts) { "Charts" } }
        (filters("/audit", "Which entries", "Show", FILTERS, &values))
        (found)
    };
    Page { place: "/audit", title: "Audit log", reload: None, body }.render(&app).into_response()
}

/// One entry.
pub(in crate::cli::ui) async fn show(State(app): State<Arc<App>>, Path(sequence): Path<u64>) -> Response {
    let Some(before) = sequence.checked_sub(1) else {
        return message("No such page", "Entries have numbers from 1.").into_response();
    };
    let call = Call::get("/v1/audit/entries").query("after", &before.to_string()).query("limit", "1");
    let found = part("entry", "Fields", app.client.json(call).await, |page| {
        let entry = items(page, "items").iter().find(|entry| entry.get("sequence").and_then(Value::as_u64) == Some(sequence));
        entry.map_or_else(|| html! { p { "You may not see this entry, it does not exist, or it was archived and removed." } }, entry_fields)
    });
    let (earlier, later) = (link::entry(&before.to_string()), link::entry(&sequence.saturating_add(1).to_string()));
    let body = html! {
        (found)
        (section("beside", "Beside it", &html! {
            ul {
                @if before > 0 { li { a href=(earlier) { "The entry before" } } }
                li { a href=(later) { "The entry after" } }
            }
        }))
    };
    Page { place: "/audit", title: &format!("Entry {}", grouped(sequence)), reload: None, body }.render(&app).into_response()
}

/// All fields of an entry, under their names in the log.
fn entry_fields(entry: &Value) -> Markup {
    let fields = entry.as_object().into_iter().flatten().map(|(name, value)| {
        let cell = match name.as_str() {
            "key_id" | "successor" => Cell::Link { text: text(value), href: link::key(&text(value)) },
            _ => Cell::Code(text(value)),
        };
        (name.as_str(), cell)
    });
    html! {
        (tables::facts("The entry, by the names of its fields", &fields.collect::<Vec<_>>()))
        p { a href=(link::with_query("/audit", [("principal", field_text(entry, "principal"))])) { "All entries of this principal" } }
    }
}
