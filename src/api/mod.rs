//! The HTTP API: routes, identity, problem documents. Encodes answers of the vault, and nothing else.

mod ask;
mod audit;
mod bytes;
mod docs;
mod keys;
pub mod ops;
mod page;
mod problem;
mod routes;
mod steps;
mod trace;
pub mod transport;
mod uses;
mod whole;
mod wrapper_keys;

use std::sync::Arc;

use axum::{
    Router,
    http::Method,
    middleware,
    response::{IntoResponse as _, Response},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    crypto::Random,
    vault::{Code, Vault},
};

use self::{
    routes::Operations,
    transport::{Admission, NotAdmitted, Trust, admit},
};

pub use self::{
    audit::AuditEntry,
    keys::{Key, KeyWrap},
    page::List,
    problem::{MEANINGS, Meaning, Problem, documentation},
    routes::openapi,
    uses::{EncryptAnswer, SignAnswer, SignatureFormat},
    wrapper_keys::WrapperKey,
};

/// What every handler has at hand.
pub(crate) struct Api {
    vault: Arc<Vault>,
    random: Arc<dyn Random>,
    operations: Operations,
}

/// The router of the API's listener: who may speak is asked first, on every request.
pub fn router(vault: Arc<Vault>, trust: Arc<Trust>, random: Arc<dyn Random>) -> Router {
    let api = Arc::new(Api { vault, random, operations: Operations::new() });
    let admission =
        Admission::new(trust, |reason: NotAdmitted| Problem::new(Code::Unauthenticated, reason.to_string(), "").into_response());
    routes::router()
        .fallback(|| std::future::ready(no_route()))
        .method_not_allowed_fallback(|method: Method| std::future::ready(no_method(&method)))
        .layer(middleware::from_fn_with_state(admission, admit))
        .layer(CatchPanicLayer::custom(trace::on_panic))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), trace::trace))
        .with_state(api)
}

fn no_route() -> Response {
    Problem::new(Code::NoSuchRoute, "there is no such path", "").into_response()
}

fn no_method(method: &Method) -> Response {
    Problem::new(Code::MethodNotAllowed, format!("this path does not take {method}"), "").into_response()
}
