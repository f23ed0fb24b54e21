//! `/access`: whether a principal may do something and why, and who was allowed to use a key at a time.

use std::sync::Arc;

use axum::extract::{Query, State};
use maud::{Markup, html};
use serde_json::{Map, Value};

use crate::{
    cli::{
        html::shown,
        ui::{
            fields::{Kind, Shown, facts, field, field_text, items, list},
            form::{self, Field, Values, filters},
            layout::{Html, Page},
            link,
            part::{part, section},
            server::App,
        },
        value_parsers::ClosedSet,
    },
    client::{Call, ClientError},
    domain::Operation,
};

const QUESTION: &[Field] = &[
    Field { name: "principal", label: "Principal (you, if empty)", kind: form::Kind::Text("spiffe://…") },
    Field { name: "operation", label: "Operation", kind: form::Kind::OneOf(Operation::all) },
    Field { name: "key_id", label: "Key id", kind: form::Kind::Text("1220…") },
    Field { name: "node", label: "Node, if there is no key", kind: form::Kind::Text("participant1") },
];

const HISTORY: &[Field] = &[
    Field { name: "key", label: "Key: name, id or its beginning", kind: form::Kind::Required("orders") },
    Field { name: "at", label: "At (time or date)", kind: form::Kind::Required("2026-01-31") },
    Field { name: "window", label: "Uses before and after", kind: form::Kind::Text("1d") },
];

const DECISION: &[Shown] = &[
    field("Principal", "principal", Kind::Code),
    field("Operation", "operation", Kind::Word),
    field("Permitted by the policy", "permitted_by_policy", Kind::Word),
    field("State of the key", "key_state", Kind::Word),
    field("Would be refused with", "code", Kind::Word),
    field("Policy revision", "policy_revision", Kind::Code),
];

const THEN: &[Shown] = &[
    field("Key", "key_id", Kind::Link(link::key)),
    field("Node", "node", Kind::Text),
    field("State of the key", "key_state", Kind::Word),
    field("Uses counted from", "from", Kind::Word),
    field("to, exclusive", "to", Kind::Word),
];

const ALLOWED: &[Shown] = &[
    field("Principal", "principal", Kind::Code),
    field("Role", "role", Kind::Word),
    field("Permits", "operations", Kind::Text),
    field("Nodes (* is all)", "nodes", Kind::Text),
];

const USED: &[Shown] = &[
    field("Principal", "principal", Kind::Code),
    field("Operation", "operation", Kind::Word),
    field("Outcome", "outcome", Kind::Word),
    field("Calls", "calls", Kind::Count),
    field("First", "first_at", Kind::Time),
    field("Last", "last_at", Kind::Time),
];

/// The page: two questions, each answered if it was asked.
pub(in crate::cli::ui) async fn page(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let decision = if values.get("operation").is_some() {
        part("decision", "Answer", ask(&app, &values).await, decision)
    } else {
        html! {}
    };
    let history = if values.get("key").is_some() && values.get("at").is_some() {
        let call = values.add_to(Call::get("/v1/audit/access"), HISTORY);
        part("history-answer", "Answer", app.client.json(call).await, history)
    } else {
        html! {}
    };
    let body = html! {
        (section("may", "May a principal do it, and why?", &html! {
            p { "The vault decides as it would decide the call, and performs nothing. Only an auditor may ask about others." }
            (filters("/access", "Who, and what", "Ask", QUESTION, &values))
            (decision)
        }))
        (section("history", "Who was allowed to use a key?", &html! {
            p { "By the policy that was in force at that time, as the log states it. For auditors." }
            (filters("/access", "Which key, and when", "Ask", HISTORY, &values))
            (history)
        }))
    };
    Page { place: "/access", title: "Access", reload: None, body }.render(&app)
}

async fn ask(app: &App, values: &Values) -> Result<Value, ClientError> {
    let question: Map<String, Value> = values.of(QUESTION).map(|(name, value)| (name.to_owned(), value.into())).collect();
    app.client.json(Call::post("/v1/authorize").json(&question)?).await
}

fn decision(answer: &Value) -> Markup {
    let permitted = answer.get("permitted_by_policy").and_then(Value::as_bool) == Some(true);
    let refused = answer.get("code").is_some_and(|code| !code.is_null());
    let (class, verdict) = match (permitted, refused) {
        (true, false) => ("good", "Yes: the grants below permit it."),
        (true, true) => ("warn", "No: the policy permits it, but the vault would refuse it now."),
        (false, _) => ("bad", "No: the policy does not permit it."),
    };
    html! {
        p class={ "verdict " (class) } { strong { (verdict) } " " (shown(field_text(answer, "detail"))) }
        (facts("The decision", DECISION, answer))
        (list("The grants of the principal", super::health::GRANTS, items(answer, "grants"), "The principal has no grant."))
    }
}

fn history(answer: &Value) -> Markup {
    html! {
        (facts("The key at that time", THEN, answer))
        @if answer.get("allowed").is_some() {
            (list("Who was allowed to use it", ALLOWED, items(answer, "allowed"), "Nobody."))
        } @else {
            p { "The grants of that time are not known, because the log does not have them." }
        }
        (list("Who used it, or tried to", USED, items(answer, "used"), "Nobody on these days."))
        @if answer.get("complete").and_then(Value::as_bool) == Some(false) { p class="note" { "Not all entries are counted yet. Ask again later." } }
    }
}
