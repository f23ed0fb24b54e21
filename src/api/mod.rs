//! The HTTP API: routes, identity, problem documents. It parses requests, calls the vault and encodes its answers.

mod audit;
mod authorization;
mod base64;
mod docs;
mod extract;
mod freeze;
mod jobs;
mod keys;
pub mod ops;
mod pagination;
mod place;
mod problem;
mod request_span;
mod routes;
mod status;
mod topology;
mod trace;
mod wrapper_keys;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware,
};

use crate::{
    crypto::Random,
    mtls::Trust,
    traces::Tracer,
    vault::{OperationHistograms, Vault, VaultError},
};

use self::routes::Operations;

pub use self::{
    audit::entries::AuditEntry,
    docs::documentation_pages,
    extract::BODY_LIMIT,
    keys::{
        Key, KeyWrap,
        operations::{CIPHERTEXT_LIMIT, EncryptAnswer, MESSAGE_LIMIT, SignAnswer},
        sign_batch::{BATCH_LIMIT, SignBatchAnswer},
    },
    pagination::{List, MAX_LIMIT},
    problem::{CODES, CodeInfo, Problem, documentation},
    routes::{openapi, routes},
    wrapper_keys::WrapperKeyResponse,
};

/// The state of every handler.
pub(crate) struct Api {
    vault: Arc<Vault>,
    trust: Arc<Trust>,
    random: Arc<dyn Random>,
    /// `None`: no call is traced.
    tracer: Option<Arc<Tracer>>,
    operations: Operations,
    request_seconds: OperationHistograms,
}

/// The router of the API listener. Every request passes the connection limits and the identity check first.
pub fn router(vault: Arc<Vault>, trust: Arc<Trust>, random: Arc<dyn Random>, tracer: Option<Arc<Tracer>>) -> Router {
    let request_seconds = OperationHistograms::new(trace::CLASSES.len());
    let api = Arc::new(Api { vault, trust, random, tracer, operations: Operations::new(), request_seconds });
    routes::router()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), trace::trace))
        .with_state(api)
}

async fn no_route(State(api): State<Arc<Api>>, request: Request) -> Problem {
    extract::unroutable(&api, request, VaultError::NoSuchRoute).await
}

async fn no_method(State(api): State<Arc<Api>>, request: Request) -> Problem {
    extract::unroutable(&api, request, VaultError::MethodNotAllowed).await
}
