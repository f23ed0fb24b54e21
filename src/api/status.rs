//! `/v1/status`: whether the vault works, and its faults.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::WrapperKeyId,
    vault::{Code, Fault, Reason, Status},
};

use super::{
    Api, Problem,
    extract::ApiRequest,
    problem::{IntoProblem as _, Problems},
};

/// The status of the vault.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusAnswer {
    /// Whether any use of a key can succeed.
    ready: bool,
    /// Whether there is a fault although calls succeed.
    degraded: bool,
    reasons: Vec<FaultAnswer>,
    version: String,
    schema: u32,
    policy_revision: String,
    #[schema(value_type = Option<String>)]
    active_wrapper: Option<WrapperKeyId>,
}

/// A fault.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
pub(super) struct FaultAnswer {
    code: Code,
    /// Of a wrapper key: the reason of its KMS.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// What has the fault, and what the vault waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<Fault> for FaultAnswer {
    fn from(Fault { code, reason, detail }: Fault) -> Self {
        Self { code, reason, detail }
    }
}

impl From<Status> for StatusAnswer {
    fn from(Status { ready, degraded, reasons, version, schema, policy_revision, active_wrapper }: Status) -> Self {
        let reasons = reasons.into_iter().map(FaultAnswer::from).collect();
        Self { ready, degraded, reasons, version, schema, policy_revision, active_wrapper }
    }
}

/// Show the status of the vault
#[utoipa::path(get, path = "/v1/status", operation_id = "vault.status", tag = "vault", responses((status = 200, body = StatusAnswer, description = "The status"), Problems))]
pub(super) async fn status(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<StatusAnswer>, Problem> {
    Ok(Json(api.vault.show_status(&ask.call).await.or_problem(&ask.call)?.into_value().into()))
}
