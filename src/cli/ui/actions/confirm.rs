//! The page before a change: what must be chosen, then what would happen, to which object, and whether the vault would refuse it. It changes nothing.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::{Action, Asked, Target};
use crate::{
    cli::{
        html::shown,
        steps::Step,
        ui::{
            fields::{Shown, facts, field_text},
            form::{Values, input},
            layout::{Page, message},
            pages::{keys, wrapper_keys},
            part::{part, section},
            server::App,
        },
    },
    client::{Call, ClientError},
};

/// The page.
pub(in crate::cli::ui) async fn confirm(State(app): State<Arc<App>>, Path(name): Path<String>, Query(values): Query<Values>) -> Response {
    let Some(action) = Action::find(&name) else {
        return (StatusCode::NOT_FOUND, message("No such change", "There is no change with this name.")).into_response();
    };
    let asked = match action.ask(values) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, message("No such object", &error.to_string())).into_response(),
    };
    let chosen = action.fields.is_empty()
        || action.fields.iter().any(|field| asked.values.get(field.name).is_some())
        || asked.values.get("chosen").is_some();
    let body = if chosen { question(&app, action, &asked).await } else { choice(action, &asked) };
    Page { place: "", title: action.title, reload: None, body }.render(&app).into_response()
}

/// The form for what must be chosen.
fn choice(action: &Action, asked: &Asked) -> Markup {
    let path = format!("/actions/{}", action.name);
    let form = html! {
        form class="filters" method="get" action=(path) {
            input type="hidden" name="id" value=(asked.id);
            input type="hidden" name="chosen" value="yes";
            fieldset {
                legend { (action.title) }
                div class="fields" { @for field in action.fields { (input(field, &asked.values)) } }
                p class="buttons" { button type="submit" { "Continue" } }
            }
        }
        p class="note" { "Nothing is changed yet. The next page asks for a confirmation." }
    };
    section("choice", "What must be chosen", &form)
}

/// What would happen, and the form that makes it happen, unless the vault would refuse it.
async fn question(app: &App, action: &Action, asked: &Asked) -> Markup {
    let step = match (action.step)(asked) {
        Ok(step) => step,
        Err(error) => return html! { p class="verdict bad" { (shown(&error.to_string())) } },
    };
    let mut body = html! {};
    if let Some((path, fields)) = object(action.target, &asked.id) {
        body = part("object", "What it is about", app.client.get(&path).await, |object| facts("As it is now", fields, object));
    }
    let decision = decide(app, action, asked, &step).await;
    let ask = part("confirm", "Confirmation", decision, |decision| {
        html! {
            p { (shown(&step.effect)) }
            @match decision.get("code").and_then(Value::as_str) {
                Some(code) => {
                    p class="verdict bad" role="alert" {
                        strong { "The vault would refuse this with " (shown(code)) ": " } (shown(field_text(decision, "detail"))) ". Nothing was done."
                    }
                }
                None => { (form(app, action, asked, &step)) }
            }
        }
    });
    html! { (body) (ask) p { a href=(action.target.page(&asked.id)) { "Back, without a change" } } }
}

/// What is known about the object before the change.
fn object(target: Target, id: &str) -> Option<(String, &'static [Shown])> {
    match target {
        Target::Key => Some((format!("/v1/keys/{id}"), keys::BRIEF)),
        Target::WrapperKey => Some((format!("/v1/wrapper-keys/{id}"), wrapper_keys::BRIEF)),
        Target::Vault | Target::NewKey | Target::Rotation | Target::Reseal => None,
    }
}

/// What the vault says about the step, as `--dry-run` of the command line asks it.
async fn decide(app: &App, action: &Action, asked: &Asked, step: &Step) -> Result<Value, ClientError> {
    let mut question = Map::from_iter([("operation".to_owned(), json!(step.operation))]);
    match action.target {
        Target::Key => question.insert("key_id".into(), json!(asked.id)),
        Target::NewKey => question.insert("node".into(), json!(asked.values.get("node"))),
        Target::Vault | Target::WrapperKey | Target::Rotation | Target::Reseal => None,
    };
    let decision = app.client.json(Call::post("/v1/authorize").json(&question)?).await?;
    if action.name == "retire-wrapper-key" && decision.get("code").is_none_or(Value::is_null) {
        let path = format!("/v1/wrapper-keys/{}/retire", asked.id);
        app.client.json(Call::post(&path).query("dry_run", "true").json(&json!({}))?).await?;
    }
    Ok(decision)
}

fn form(app: &App, action: &Action, asked: &Asked, step: &Step) -> Markup {
    html! {
        form class="confirm" method="post" action={ "/actions/" (action.name) } {
            input type="hidden" name="form_token" value=(app.session.form_token());
            input type="hidden" name="id" value=(asked.id);
            @for field in action.fields {
                @if let Some(value) = asked.values.get(field.name) {
                    p { (field.label) ": " strong { (shown(value)) } }
                    input type="hidden" name=(field.name) value=(value);
                }
            }
            @if action.written {
                p {
                    label for="confirmation" { (shown(&step.question)) " Write yes: " }
                    input type="text" id="confirmation" name="confirmation" autocomplete="off" required pattern="yes" title="Write yes";
                }
            } @else {
                p { strong { (shown(&step.question)) } }
                input type="hidden" name="confirmation" value="yes";
            }
            button type="submit" { (action.title) }
        }
    }
}
