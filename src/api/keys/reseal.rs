//! `/v1/keys/{id}/reseal` and `/v1/keys/reseals`: the re-seal of one key, and jobs that re-seal all keys.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};

use super::Key;
use crate::{
    api::{
        Api, Problem,
        extract::{ApiRequest, Nothing},
        jobs::{self, JobResponse, JobsQuery},
        pagination::List,
        problem::{IntoProblem as _, Problems},
    },
    domain::{JobId, JobKind, KeyId},
};

/// Re-seal a key
///
/// Gives the key a new data key, for when the old one may have leaked. The private key and its id stay the same.
#[utoipa::path(post, path = "/v1/keys/{id}/reseal", operation_id = "keys.reseal", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn reseal(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.reseal_key(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// Re-seal all keys
///
/// As a job. Quarantined keys are skipped, and named in its errors.
#[utoipa::path(post, path = "/v1/keys/reseals", operation_id = "reseals.start", tag = "lifecycle", responses((status = 202, body = JobResponse, description = "The job that was started"), Problems))]
pub(in crate::api) async fn start(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    let answer = api.vault.start_reseal(&ask.call).await.or_problem(&ask.call)?;
    Ok((StatusCode::ACCEPTED, Json(answer.into_value().into())))
}

/// List re-seals of all keys
#[utoipa::path(get, path = "/v1/keys/reseals", operation_id = "reseals.list", tag = "lifecycle", params(JobsQuery), responses((status = 200, body = List<JobResponse>, description = "A page of jobs"), Problems))]
pub(in crate::api) async fn list(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, JobsQuery>,
) -> Result<Json<List<JobResponse>>, Problem> {
    jobs::list(&api, ask, JobKind::Reseal).await
}

/// Show a re-seal of all keys
#[utoipa::path(get, path = "/v1/keys/reseals/{id}", operation_id = "reseals.show", tag = "lifecycle", params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobResponse, description = "The job"), Problems))]
pub(in crate::api) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    jobs::show(&api, ask, JobKind::Reseal).await
}

/// Abort a re-seal of all keys
#[utoipa::path(post, path = "/v1/keys/reseals/{id}/abort", operation_id = "reseals.abort", tag = "lifecycle", params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobResponse, description = "The job"), Problems))]
pub(in crate::api) async fn abort(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    jobs::abort(&api, ask, JobKind::Reseal).await
}
