//! The routes of the pages. Each request passes the guard first; a body is short.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Query, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, SET_COOKIE},
    },
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};

use super::{
    actions,
    form::Values,
    guard::{guard, refusal},
    layout,
    pages::{access, audit, charts, health, jobs, keys, wrapper_keys},
    session::Session,
};
use crate::{api, cli::html::LEGEND, client::Client};

/// The longest form, in bytes.
const LONGEST_FORM: usize = 16 << 10;

const STYLE: &str = include_str!("style.css");

/// What every page needs.
pub(super) struct App {
    /// The client of the vault, with the certificate of the user.
    pub(super) client: Client,
    /// The secrets of the session.
    pub(super) session: Session,
    /// Whether changes are offered.
    pub(super) allow_actions: bool,
}

/// All pages, behind the guard.
pub(super) fn router(app: App) -> Router {
    let app = Arc::new(app);
    let reading = Router::new()
        .route("/", get(health::page))
        .route("/keys", get(keys::list))
        .route("/keys/{id}", get(keys::show))
        .route("/wrapper-keys", get(wrapper_keys::list))
        .route("/wrapper-keys/{id}", get(wrapper_keys::show))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{kind}/{id}", get(jobs::show))
        .route("/audit", get(audit::list))
        .route("/audit/charts", get(charts::page))
        .route("/audit/{sequence}", get(audit::show))
        .route("/access", get(access::page))
        .route("/login", get(login))
        .route("/style.css", get(async || ([(CONTENT_TYPE, "text/css; charset=utf-8")], format!("{STYLE}{LEGEND}"))))
        .merge(api::documentation_pages());
    // Without the option the changes have no route at all.
    let all = if app.allow_actions { reading.route("/actions/{name}", get(actions::confirm).post(actions::perform)) } else { reading };
    all.fallback(async || (StatusCode::NOT_FOUND, layout::message("No such page", "There is no page at this address.")))
        .layer(DefaultBodyLimit::max(LONGEST_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Exchanges the token of the first URL for the cookie of the session. The redirect takes the token out of the address line.
async fn login(State(app): State<Arc<App>>, headers: axum::http::HeaderMap, Query(values): Query<Values>) -> Response {
    let cookies = headers.get_all(axum::http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut answer = Redirect::to("/").into_response();
    if cookies.into_iter().any(|cookies| app.session.has_cookie(cookies)) {
        return answer;
    }
    let cookie = values.get("token").and_then(|token| app.session.begin(token)).and_then(|cookie| HeaderValue::try_from(cookie).ok());
    let Some(mut cookie) = cookie else {
        let reason =
            "The token of this URL is not valid, or it was used. It works once, in one browser: start the command again for another URL.";
        return refusal(StatusCode::FORBIDDEN, reason);
    };
    cookie.set_sensitive(true);
    answer.headers_mut().insert(SET_COOKIE, cookie);
    answer
}
