//! The operations listener: `/healthz` depends on nothing else, `/readyz` is 503 when no use of a key can succeed, `/metrics`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use crate::vault::Vault;

use super::status::FaultAnswer;

/// The answer of `/metrics`, made for each request.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The router of the operations listener.
pub fn router(vault: Arc<Vault>, metrics: RenderMetrics) -> Router {
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready).with_state(vault))
        .route("/metrics", get(move || std::future::ready(metrics())))
}

async fn ready(State(vault): State<Arc<Vault>>) -> (StatusCode, Json<Value>) {
    let status = vault.status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reasons: Vec<FaultAnswer> = status.reasons.into_iter().map(FaultAnswer::from).collect();
    (code, Json(json!({ "ready": status.ready, "degraded": status.degraded, "reasons": reasons })))
}
