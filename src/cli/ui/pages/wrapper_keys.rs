//! `/wrapper-keys`: the keys in the KMS, how many keys each wraps, and what the KMS reports about one.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use serde_json::Value;

use super::ROWS;
use crate::{
    cli::ui::{
        actions::{self, Target},
        fields::{Kind, Shown, facts, field, items, list as table},
        form::{Values, paging},
        layout::{Html, Page},
        link,
        part::{part, subsection},
        server::App,
    },
    client::{Call, percent_encoded},
};

const LISTED: &[Shown] = &[
    field("Id", "id", Kind::Link(link::wrapper_key)),
    field("Name", "name", Kind::Text),
    field("Provider", "provider", Kind::Word),
    field("State", "state", Kind::Word),
    field("Health", "health", Kind::Word),
    field("Keys", "keys", Kind::Count),
    field("Without a verified wrap", "left", Kind::Count),
    field("Regions", "regions", Kind::Text),
    field("Registered", "created_at", Kind::Time),
];

/// The facts about one wrapper key.
const FACTS: &[Shown] = &[
    field("Id", "id", Kind::Code),
    field("Name", "name", Kind::Text),
    field("Provider", "provider", Kind::Word),
    field("State", "state", Kind::Word),
    field("Health", "health", Kind::Word),
    field("Fault", "fault", Kind::Text),
    field("What to do", "fault_remedy", Kind::Text),
    field("Keys with a wrap under it", "keys", Kind::Count),
    field("Keys without a verified wrap", "left", Kind::Count),
    field("Incomplete", "incomplete", Kind::Text),
    field("Reference in the KMS", "reference", Kind::Code),
    field("Identity", "identity", Kind::Code),
    field("Regions, in their order", "regions", Kind::Text),
    field("Registered", "created_at", Kind::Time),
    field("Last used", "last_used_at", Kind::Time),
];

/// What somebody looks at before a change: the wrapper key is the right one.
pub(in crate::cli::ui) const BRIEF: &[Shown] = &[
    field("Id", "id", Kind::Code),
    field("Name", "name", Kind::Text),
    field("Provider", "provider", Kind::Word),
    field("Reference in the KMS", "reference", Kind::Code),
    field("State", "state", Kind::Word),
    field("Health", "health", Kind::Word),
    field("Keys with a wrap under it", "keys", Kind::Count),
];

const KMS: &[Shown] = &[
    field("Usable now", "usable", Kind::Word),
    field("Long-term keys older than the last rotation of the material", "long_term_keys_older", Kind::Count),
    field("Not reported, because", "reason", Kind::Text),
];

const KMS_ROTATION: &[Shown] = &[
    field("Automatic", "automatic", Kind::Word),
    field("Days between two", "period_days", Kind::Count),
    field("Next", "next_at", Kind::Time),
    field("Last", "last_at", Kind::Time),
    field("Kind of the last one", "last_kind", Kind::Word),
    field("On demand since", "on_demand_since", Kind::Time),
];

/// The list.
pub(in crate::cli::ui) async fn list(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let call = Call::get("/v1/wrapper-keys").query("limit", &ROWS.to_string()).query_if("cursor", values.get("cursor"));
    let found = part("wrapper-keys", "Wrapper keys", app.client.json(call).await, |page| {
        html! {
            (table("Oldest first. The active one wraps new keys", LISTED, items(page, "items"), "There is no wrapper key."))
            (paging("/wrapper-keys", &[], &values, page.get("next_cursor").and_then(Value::as_str)))
        }
    });
    Page { place: "/wrapper-keys", title: "Wrapper keys", reload: None, body: html! { (actions::outcome(&values)) (found) } }.render(&app)
}

/// One wrapper key.
pub(in crate::cli::ui) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, Query(values): Query<Values>) -> Html {
    let found = app.client.get(&format!("/v1/wrapper-keys/{}", percent_encoded(&id))).await;
    let body = html! {
        (actions::outcome(&values))
        (part("wrapper-key", "Attributes", found, |key| one(&app, &id, key)))
    };
    Page { place: "/wrapper-keys", title: "Wrapper key", reload: None, body }.render(&app)
}

fn one(app: &App, id: &str, key: &Value) -> Markup {
    let kms = key.get("kms").unwrap_or(&Value::Null);
    html! {
        (facts("The wrapper key in this vault", FACTS, key))
        @if kms.is_object() {
            (subsection("kms", "What the KMS reports now", &html! {
                (facts("The key in the KMS", KMS, kms))
                @if let Some(rotation) = kms.get("rotation") { (facts("Rotation of the key material by the KMS", KMS_ROTATION, rotation)) }
            }))
        }
        (subsection("more", "More about this wrapper key", &html! {
            ul { li { a href=(link::with_query("/audit", [("wrapper_key", id)])) { "Its entries in the audit log" } } }
        }))
        (actions::links(app, Target::WrapperKey, id, key))
    }
}
