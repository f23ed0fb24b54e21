//! The operations listener: `/healthz` depends on nothing else, `/readyz` is 503 when no use of a key can succeed, `/metrics`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

use crate::vault::Vault;

use super::status::FaultAnswer;

/// The router of the operations listener.
pub fn router(vault: Arc<Vault>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready).with_state(vault))
        .route("/metrics", get(move || std::future::ready(metrics.render())))
}

async fn ready(State(vault): State<Arc<Vault>>) -> (StatusCode, Json<Value>) {
    let status = vault.status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reasons: Vec<FaultAnswer> = status.reasons.into_iter().map(FaultAnswer::from).collect();
    (code, Json(json!({ "ready": status.ready, "degraded": status.degraded, "reasons": reasons })))
}
