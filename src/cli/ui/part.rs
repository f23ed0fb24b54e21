//! A part of a page: what one request to the vault gave, or why it failed. A part that fails leaves the others as they are.

use maud::{Markup, html};
use serde_json::Value;

use crate::{cli::html::shown, client::ClientError};

/// A part with its headline.
pub(super) fn part(id: &str, title: &str, fetched: Result<Value, ClientError>, show: impl FnOnce(&Value) -> Markup) -> Markup {
    let content = match fetched {
        Ok(answer) => show(&answer),
        Err(error) => problem(&error),
    };
    section(id, title, &content)
}

/// A headline and its content.
pub(super) fn section(id: &str, title: &str, content: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (shown(title)) }
            (content)
        }
    }
}

/// A headline below that of a part, and its content.
pub(super) fn subsection(id: &str, title: &str, content: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            h3 id={ (id) "-title" } { (shown(title)) }
            (content)
        }
    }
}

/// Why a call failed, and what to do.
pub(super) fn problem(error: &ClientError) -> Markup {
    html! {
        div class="problem" role="alert" {
            @match error {
                ClientError::Problem(problem) => {
                    p { strong { (shown(&problem.code)) } " " (shown(&problem.detail)) }
                    @if let Some(remedy) = &problem.remedy { p { "To do: " (shown(remedy)) } }
                    p class="note" {
                        @if problem.retryable { "The same call may succeed later." } @else { "The same call would fail again." }
                        @if let Some(id) = &problem.request_id { " Request id: " code { (shown(id)) } }
                    }
                }
                other => { p { (shown(&other.to_string())) } }
            }
        }
    }
}
