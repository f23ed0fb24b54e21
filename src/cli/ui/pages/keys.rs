//! `/keys`: the keys that the caller may see, and one key with its wraps.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use serde_json::Value;

use super::ROWS;
use crate::{
    cli::{
        ui::{
            actions::{self, Target},
            fields::{Kind, Shown, facts, field, field_text, items, list as table},
            form::{self, Field, Values, filters, paging},
            layout::{Html, Page},
            link,
            part::{part, subsection},
            server::App,
        },
        value_parsers::ClosedSet,
    },
    client::{Call, percent_encoded},
    domain::{Class, KeyState, Purpose},
};

const FILTERS: &[Field] = &[
    Field { name: "node", label: "Node", kind: form::Kind::Text("participant1") },
    Field { name: "purpose", label: "Purpose", kind: form::Kind::Choice(Purpose::all) },
    Field { name: "state", label: "State", kind: form::Kind::Choice(KeyState::all) },
    Field { name: "class", label: "Class", kind: form::Kind::Choice(Class::all) },
    Field { name: "created_before", label: "Created before", kind: form::Kind::Text("2026-01-31T12:00:00Z") },
];

const LISTED: &[Shown] = &[
    field("Id", "id", Kind::Link(link::key)),
    field("Name", "name", Kind::Text),
    field("Node", "node", Kind::Text),
    field("Purpose", "purpose", Kind::Word),
    field("Spec", "spec", Kind::Word),
    field("Class", "class", Kind::Word),
    field("State", "state", Kind::Word),
    field("Created", "created_at", Kind::Time),
];

/// The facts about one key.
const FACTS: &[Shown] = &[
    field("Id", "id", Kind::Code),
    field("Name", "name", Kind::Text),
    field("Node", "node", Kind::Text),
    field("Purpose", "purpose", Kind::Word),
    field("Spec", "spec", Kind::Word),
    field("Usage", "usage", Kind::Text),
    field("Class", "class", Kind::Word),
    field("State", "state", Kind::Word),
    field("Origin", "origin", Kind::Word),
    field("Exportable", "exportable", Kind::Word),
    field("Topology transactions only", "topology_only", Kind::Word),
    field("Mappings that it may sign", "topology_mappings", Kind::Text),
    field("Created", "created_at", Kind::Time),
    field("State changes", "revision", Kind::Count),
    field("Data keys so far", "generation", Kind::Count),
    field("Successor", "successor", Kind::Link(link::key)),
    field("Predecessor", "predecessor", Kind::Link(link::key)),
    field("Destroyed at", "delete_at", Kind::Time),
    field("Public key (DER, base64)", "public_key", Kind::Code),
];

/// What somebody looks at before a change: the key is the right one.
pub(in crate::cli::ui) const BRIEF: &[Shown] = &[
    field("Id", "id", Kind::Code),
    field("Name", "name", Kind::Text),
    field("Node", "node", Kind::Text),
    field("Purpose", "purpose", Kind::Word),
    field("Spec", "spec", Kind::Word),
    field("Class", "class", Kind::Word),
    field("State", "state", Kind::Word),
    field("Successor", "successor", Kind::Link(link::key)),
];

const WRAPS: &[Shown] = &[
    field("Wrapper key", "wrapper_key", Kind::Link(link::wrapper_key)),
    field("Made", "created_at", Kind::Time),
    field("Last verified", "verified_at", Kind::Time),
    field("Quarantined", "quarantined", Kind::Word),
];

/// The list.
pub(in crate::cli::ui) async fn list(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let call = values.add_to(Call::get("/v1/keys").query("limit", &ROWS.to_string()), FILTERS).query_if("cursor", values.get("cursor"));
    let found = part("keys", "Keys", app.client.json(call).await, |page| {
        html! {
            (table("Oldest first", LISTED, items(page, "items"), "No key fits, or you may see none."))
            (paging("/keys", FILTERS, &values, page.get("next_cursor").and_then(Value::as_str)))
        }
    });
    let body = html! {
        (actions::outcome(&values))
        (filters("/keys", "Which keys", "Show", FILTERS, &values))
        (found)
        (actions::links(&app, Target::NewKey, "", &Value::Null))
    };
    Page { place: "/keys", title: "Keys", reload: None, body }.render(&app)
}

/// One key.
pub(in crate::cli::ui) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, Query(values): Query<Values>) -> Html {
    let found = app.client.get(&format!("/v1/keys/{}", percent_encoded(&id))).await;
    let body = html! {
        (actions::outcome(&values))
        (part("key", "Attributes", found, |key| one(&app, &id, key)))
    };
    Page { place: "/keys", title: "Key", reload: None, body }.render(&app)
}

fn one(app: &App, id: &str, key: &Value) -> Markup {
    let node = field_text(key, "node");
    html! {
        (facts("The key, without its secret", FACTS, key))
        (subsection("wraps", "Wraps of its data key", &table("Each wrap opens the key alone", WRAPS, items(key, "wraps"), "No wrap.")))
        (subsection("more", "More about this key", &html! {
            ul {
                li { a href=(link::with_query("/audit", [("key", id)])) { "Its entries in the audit log" } }
                li { a href=(link::with_query("/audit/charts", [("key", id)])) { "Charts of its use" } }
                li { a href=(link::with_query("/access", [("key_id", id), ("operation", "keys.sign")])) { "Who may use it" } }
                li { a href=(link::with_query("/keys", [("node", node)])) { "All keys of its node" } }
            }
        }))
        (actions::links(app, Target::Key, id, key))
    }
}
