//! `/v1/status`: whether the vault works, and its faults.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Timestamp, WrapperKeyId},
    vault::{Code, Fault, Lease, Reason, Replica, Status},
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
    /// The processes that share the store. Absent if the store belongs to one process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<ReplicaAnswer>,
}

/// A process that shares the store.
#[derive(Serialize, ToSchema)]
#[schema(as = Replica)]
pub(super) struct ReplicaAnswer {
    /// The instance: the name of its log.
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// When it was last alive, by the clock of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    seen_at: Option<Timestamp>,
    /// Whether it is alive.
    live: bool,
    /// The background tasks that it runs for all: `sweep`, `destruction`.
    tasks: Vec<&'static str>,
}

impl From<Replica> for ReplicaAnswer {
    fn from(Replica { instance, version, seen_at, live, leases }: Replica) -> Self {
        Self { instance, version, seen_at, live, tasks: leases.into_iter().map(Lease::as_str).collect() }
    }
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
    fn from(Status { ready, degraded, reasons, version, schema, policy_revision, active_wrapper, replicas }: Status) -> Self {
        let reasons = reasons.into_iter().map(FaultAnswer::from).collect();
        Self {
            ready,
            degraded,
            reasons,
            version,
            schema,
            policy_revision,
            active_wrapper,
            replicas: replicas.into_iter().map(Into::into).collect(),
        }
    }
}

/// Show the status of the vault
#[utoipa::path(get, path = "/v1/status", operation_id = "vault.status", tag = "vault", responses((status = 200, body = StatusAnswer, description = "The status"), Problems))]
pub(super) async fn status(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<StatusAnswer>, Problem> {
    Ok(Json(api.vault.show_status(&ask.call).await.or_problem(&ask.call)?.into_value().into()))
}
