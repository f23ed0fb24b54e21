//! `/`: whether the vault is ready, its faults, and who the caller is.

use std::sync::Arc;

use axum::extract::{Query, State};
use maud::{Markup, html};
use serde_json::Value;

use crate::cli::{
    html::shown,
    ui::{
        actions::{self, Target},
        fields::{Kind, Shown, facts, field, field_text, items, list},
        form::Values,
        layout::{Html, Page},
        link,
        part::part,
        server::App,
    },
};

const STATUS: &[Shown] = &[
    field("Ready", "ready", Kind::Word),
    field("Degraded", "degraded", Kind::Word),
    field("Active wrapper key", "active_wrapper", Kind::Link(link::wrapper_key)),
    field("Version", "version", Kind::Word),
    field("Schema of the store", "schema", Kind::Count),
    field("Policy revision", "policy_revision", Kind::Code),
];

const FAULTS: &[Shown] = &[
    field("Code", "code", Kind::Word),
    field("Reason", "reason", Kind::Word),
    field("What, and what the vault waits for", "detail", Kind::Text),
];

const IDENTITY: &[Shown] = &[field("Principal", "principal", Kind::Code), field("Certificate (SHA-256)", "certificate", Kind::Code)];

/// The grants of a principal.
pub(super) const GRANTS: &[Shown] = &[field("Role", "role", Kind::Word), field("Nodes (* is all)", "nodes", Kind::Text)];

/// The page.
pub(in crate::cli::ui) async fn page(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let status = part("status", "Status", app.client.get("/v1/status").await, |status| show(&app, status));
    let identity = part("identity", "Your identity", app.client.get("/v1/whoami").await, |identity| {
        html! {
            (facts("The principal of your certificate", IDENTITY, identity))
            (list("Your grants", GRANTS, items(identity, "grants"), "No grant: nothing is permitted but reading the status."))
        }
    });
    let body = html! { (actions::outcome(&values)) (status) (identity) };
    Page { place: "/", title: "Health", reload: None, body }.render(&app)
}

fn show(app: &App, status: &Value) -> Markup {
    let is = |name: &str| status.get(name).and_then(Value::as_bool) == Some(true);
    let (class, verdict) = match (is("ready"), is("degraded")) {
        (true, false) => ("good", "The vault is ready."),
        (true, true) => ("warn", "The vault is ready, with faults."),
        (false, _) => ("bad", "The vault is not ready: no use of a key can succeed."),
    };
    html! {
        p class={ "verdict " (class) } { strong { (verdict) } " Version " (shown(field_text(status, "version"))) "." }
        (list("Faults", FAULTS, items(status, "reasons"), "No faults."))
        (facts("Details", STATUS, status))
        (actions::links(app, Target::Vault, "", status))
    }
}
