//! The document of a page: a title, the navigation, one main part. It has no script and no inline style, and every text is escaped.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{part::section, server::App};
use crate::cli::html::shown;

/// The pages in the navigation.
const PAGES: &[(&str, &str)] = &[
    ("/", "Health"),
    ("/keys", "Keys"),
    ("/wrapper-keys", "Wrapper keys"),
    ("/jobs", "Rotations"),
    ("/audit", "Audit log"),
    ("/access", "Access"),
    ("/docs", "API"),
];

/// A page of the vault.
pub(super) struct Page<'a> {
    /// The page of the navigation that it belongs to.
    pub(super) place: &'static str,
    /// The headline.
    pub(super) title: &'a str,
    /// Seconds after which a browser loads it again.
    pub(super) reload: Option<u32>,
    /// The parts.
    pub(super) body: Markup,
}

/// HTML as an answer.
pub(super) struct Html(String);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], self.0).into_response()
    }
}

impl Page<'_> {
    /// The document.
    pub(super) fn render(self, app: &App) -> Html {
        let Self { place, title, reload, body } = self;
        let content = html! {
            a class="skip" href="#content" { "Skip to the content" }
            header {
                p class="vault" { "Canton Key Vault " code { (shown(&app.client.endpoints().urls())) }
                    span class="mode" { @if app.allow_actions { "changes allowed" } @else { "read only" } } }
                nav aria-label="Pages" {
                    ul { @for (path, name) in PAGES { li { a href=(path) aria-current=[(*path == place).then_some("page")] { (name) } } } }
                }
            }
            main id="content" tabindex="-1" {
                h1 { (shown(title)) }
                (body)
            }
            footer { "Every page makes calls with your certificate. They are in the audit log. Times are UTC." }
        };
        document(title, reload, &content)
    }
}

/// A page without anything of the vault.
pub(super) fn message(title: &str, text: &str) -> Html {
    let content = html! { main id="content" { h1 { (title) } (section("message", "Why", &html! { p { (text) } p { a href="/" { "Try again" } } })) } };
    document(title, None, &content)
}

fn document(title: &str, reload: Option<u32>, content: &Markup) -> Html {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = reload { meta http-equiv="refresh" content=(seconds); }
                title { (shown(title)) " · Canton Key Vault" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/docs/icon.svg" type="image/svg+xml";
            }
            body { (content) }
        }
    };
    Html(document.into_string())
}
