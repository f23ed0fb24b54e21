//! The change itself. It needs the token of the form and the confirmation; the guard has checked the session and the origin.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State, rejection::FormRejection},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::html;
use serde_json::Value;

use super::{Action, Asked};
use crate::{
    cli::ui::{
        fields::field_text,
        form::Values,
        guard::refusal,
        layout::{Page, message},
        link,
        part::{problem, section},
        server::App,
    },
    client::ClientError,
};

/// Makes the call, and leads to the page of its result.
pub(in crate::cli::ui) async fn perform(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    form: Result<Form<Values>, FormRejection>,
) -> Response {
    let Some(action) = Action::find(&name) else {
        return (StatusCode::NOT_FOUND, message("No such change", "There is no change with this name.")).into_response();
    };
    let Ok(Form(values)) = form else {
        return refusal(StatusCode::BAD_REQUEST, "The form cannot be read. Open the page of the change again.");
    };
    if !values.get("form_token").is_some_and(|token| app.session.is_form_token(token)) {
        return refusal(StatusCode::FORBIDDEN, "The form has no valid token. Open the page of the change again.");
    }
    if values.get("confirmation") != Some("yes") {
        return refusal(StatusCode::BAD_REQUEST, "Nothing was done, because the answer was not yes.");
    }
    let asked = match action.ask(values) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, message("No such object", &error.to_string())).into_response(),
    };
    let done = match (action.call)(&asked) {
        Ok(call) => app.client.json(call).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(answer) => Redirect::to(&after(action, &asked, &answer)).into_response(),
        Err(error) => failed(&app, action, &asked, &error),
    }
}

/// The page of the result.
fn after(action: &Action, asked: &Asked, answer: &Value) -> String {
    let id = match field_text(answer, "id") {
        "" => &asked.id,
        id => id,
    };
    let unrecorded = answer.get("recorded").and_then(Value::as_bool) == Some(false);
    link::with_query(&action.result.page(id), [("done", action.name), ("unrecorded", if unrecorded { "yes" } else { "" })])
}

fn failed(app: &App, action: &Action, asked: &Asked, error: &ClientError) -> Response {
    let status = match error.decisive() {
        ClientError::Problem(problem) => StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_GATEWAY),
        ClientError::Usage(_) => StatusCode::BAD_REQUEST,
        ClientError::CannotConnect { .. } | ClientError::NoAnswer { .. } | ClientError::Unreadable { .. } | ClientError::NoneDid(_) => {
            StatusCode::BAD_GATEWAY
        }
    };
    let body =
        section("failed", "The vault did not do it", &html! { (problem(error)) p { a href=(action.target.page(&asked.id)) { "Back" } } });
    (status, Page { place: "", title: action.title, reload: None, body }.render(app)).into_response()
}
