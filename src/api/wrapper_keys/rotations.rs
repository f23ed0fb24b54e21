//! `/v1/wrapper-keys/rotations`: rotations to another wrapper key.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    api::{
        Api, Problem,
        extract::{ApiRequest, Nothing},
        jobs::{self, JobResponse, JobsQuery},
        pagination::List,
        problem::{IntoProblem as _, Problems},
    },
    domain::{JobId, JobKind, WrapperKeyId},
};

/// The target of the rotation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct StartRotation {
    /// A registered wrapper key, which becomes active.
    #[schema(value_type = String)]
    to: WrapperKeyId,
}

/// Start a rotation
///
/// The vault checks the wrapper key and makes it active for new keys at once. A job then gives every key a verified wrap under it. No
/// private key is opened. The job continues after a restart. An abort keeps what is done; to go back, start another rotation. A rotation to
/// the wrapper key that is active already processes the keys that an earlier rotation left.
#[utoipa::path(post, path = "/v1/wrapper-keys/rotations", operation_id = "rotations.start", tag = "wrapper-keys", request_body = StartRotation, responses((status = 202, body = JobResponse, description = "The job that was started"), Problems))]
pub(in crate::api) async fn start(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, StartRotation>,
) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    let answer = api.vault.start_rotation(&ask.call, ask.body.to).await.or_problem(&ask.call)?;
    Ok((StatusCode::ACCEPTED, Json(answer.into_value().into())))
}

/// List rotations
#[utoipa::path(get, path = "/v1/wrapper-keys/rotations", operation_id = "rotations.list", tag = "wrapper-keys", params(JobsQuery), responses((status = 200, body = List<JobResponse>, description = "A page of jobs"), Problems))]
pub(in crate::api) async fn list(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, JobsQuery>,
) -> Result<Json<List<JobResponse>>, Problem> {
    jobs::list(&api, ask, JobKind::Rotation).await
}

/// Show a rotation
#[utoipa::path(get, path = "/v1/wrapper-keys/rotations/{id}", operation_id = "rotations.show", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobResponse, description = "The job"), Problems))]
pub(in crate::api) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    jobs::show(&api, ask, JobKind::Rotation).await
}

/// Abort a rotation
///
/// What is done stays done, and every key opens as before. To go back, start a rotation to `from`.
#[utoipa::path(post, path = "/v1/wrapper-keys/rotations/{id}/abort", operation_id = "rotations.abort", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobResponse, description = "The job"), Problems))]
pub(in crate::api) async fn abort(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    jobs::abort(&api, ask, JobKind::Rotation).await
}
