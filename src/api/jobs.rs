//! `/v1/wrapper-keys/rotations`, `/v1/keys/reseals` and `/v1/keys/{id}/reseal`: jobs over all keys, and the re-seal of one key.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::{JobId, JobKind, JobState, KeyId, Timestamp, Work, WrapperKeyId};

use super::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    keys::Key,
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// A job over all keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobResponse {
    /// Its id.
    #[schema(value_type = String)]
    pub id: JobId,
    /// The kind of job.
    pub kind: JobKind,
    /// Of a rotation: the wrapper key that was active before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<WrapperKeyId>,
    /// Of a rotation: the wrapper key that is active since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub to: Option<WrapperKeyId>,
    /// The state. A running job continues after a restart.
    pub state: JobState,
    /// How many keys there are to process: now, or when the job ended.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
    /// How many failed and have not succeeded since.
    pub failed: u64,
    /// Why, for at most 20 of them.
    pub errors: Vec<JobErrorResponse>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// Why a job could not process one key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobError)]
pub(super) struct JobErrorResponse {
    /// Which key.
    #[schema(value_type = String)]
    pub key_id: KeyId,
    /// The problem code.
    pub code: String,
    /// A description for the operator.
    pub detail: String,
}

impl From<crate::domain::Job> for JobResponse {
    fn from(job: crate::domain::Job) -> Self {
        let crate::domain::Job { id, work, state, total, done, failed, errors, started_at, finished_at } = job;
        let (from, to) = match work {
            Work::Rotation { from, to } => (Some(from), Some(to)),
            Work::Reseal => (None, None),
        };
        let told = |crate::domain::JobError { key_id, code, detail }| JobErrorResponse { key_id, code, detail };
        let errors = errors.into_iter().map(told).collect();
        Self { id, kind: work.kind(), from, to, state, total, done, failed, errors, started_at, finished_at }
    }
}

/// The target of the rotation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartRotation {
    /// A registered wrapper key, which becomes active.
    #[schema(value_type = String)]
    to: WrapperKeyId,
}

/// Start a rotation
///
/// The vault checks the wrapper key and makes it active for new keys at once. A job then gives every key a verified wrap under it. No
/// private key is opened. The job continues after a restart. An abort keeps what is done; to go back, start another rotation. A rotation to
/// the wrapper key that is active already processes the keys that an earlier rotation left.
#[utoipa::path(post, path = "/v1/wrapper-keys/rotations", operation_id = "rotations.start", tag = "wrapper keys", request_body = StartRotation, responses((status = 202, body = JobResponse), Problems))]
pub(super) async fn start_rotation(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, StartRotation>,
) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    let answer = api.vault.start_rotation(&ask.call, ask.body.to).await.or_problem(&ask.call)?;
    Ok((StatusCode::ACCEPTED, Json(answer.into_value().into())))
}

/// The page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    /// The `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Maximum number of items, 1 to 1000. Default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// List rotations
#[utoipa::path(get, path = "/v1/wrapper-keys/rotations", operation_id = "rotations.list", tag = "wrapper keys", params(JobsQuery), responses((status = 200, body = List<JobResponse>), Problems))]
pub(super) async fn list_rotations(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, JobsQuery>,
) -> Result<Json<List<JobResponse>>, Problem> {
    list(&api, ask, JobKind::Rotation).await
}

/// Show a rotation
#[utoipa::path(get, path = "/v1/wrapper-keys/rotations/{id}", operation_id = "rotations.show", tag = "wrapper keys", params(("id" = String, Path)), responses((status = 200, body = JobResponse), Problems))]
pub(super) async fn show_rotation(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    show(&api, ask, JobKind::Rotation).await
}

/// Abort a rotation
///
/// What is done stays done, and every key opens as before. To go back, start a rotation to `from`.
#[utoipa::path(post, path = "/v1/wrapper-keys/rotations/{id}/abort", operation_id = "rotations.abort", tag = "wrapper keys", params(("id" = String, Path)), responses((status = 200, body = JobResponse), Problems))]
pub(super) async fn abort_rotation(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    abort(&api, ask, JobKind::Rotation).await
}

/// Re-seal a key
///
/// Gives the key a new data key, for when the old one may have leaked. The private key and its id stay the same.
#[utoipa::path(post, path = "/v1/keys/{id}/reseal", operation_id = "keys.reseal", tag = "life", params(("id" = String, Path)), responses((status = 200, body = Key), Problems))]
pub(super) async fn reseal(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.reseal_key(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// Re-seal all keys
///
/// As a job. Quarantined keys are skipped, and named in its errors.
#[utoipa::path(post, path = "/v1/keys/reseals", operation_id = "reseals.start", tag = "life", responses((status = 202, body = JobResponse), Problems))]
pub(super) async fn start_reseal(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<(StatusCode, Json<JobResponse>), Problem> {
    let answer = api.vault.start_reseal(&ask.call).await.or_problem(&ask.call)?;
    Ok((StatusCode::ACCEPTED, Json(answer.into_value().into())))
}

/// List re-seals of all keys
#[utoipa::path(get, path = "/v1/keys/reseals", operation_id = "reseals.list", tag = "life", params(JobsQuery), responses((status = 200, body = List<JobResponse>), Problems))]
pub(super) async fn list_reseals(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, JobsQuery>,
) -> Result<Json<List<JobResponse>>, Problem> {
    list(&api, ask, JobKind::Reseal).await
}

/// Show a re-seal of all keys
#[utoipa::path(get, path = "/v1/keys/reseals/{id}", operation_id = "reseals.show", tag = "life", params(("id" = String, Path)), responses((status = 200, body = JobResponse), Problems))]
pub(super) async fn show_reseal(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    show(&api, ask, JobKind::Reseal).await
}

/// Abort a re-seal of all keys
#[utoipa::path(post, path = "/v1/keys/reseals/{id}/abort", operation_id = "reseals.abort", tag = "life", params(("id" = String, Path)), responses((status = 200, body = JobResponse), Problems))]
pub(super) async fn abort_reseal(State(api): State<Arc<Api>>, ask: ApiRequest<JobId>) -> Result<Json<JobResponse>, Problem> {
    abort(&api, ask, JobKind::Reseal).await
}

async fn list(api: &Api, ask: ApiRequest<Nothing, JobsQuery>, kind: JobKind) -> Result<Json<List<JobResponse>>, Problem> {
    let JobsQuery { cursor, limit } = ask.query;
    let page = api.vault.list_jobs(&ask.call, kind, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}

async fn show(api: &Api, ask: ApiRequest<JobId>, kind: JobKind) -> Result<Json<JobResponse>, Problem> {
    let answer = api.vault.show_job(&ask.call, kind, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

async fn abort(api: &Api, ask: ApiRequest<JobId>, kind: JobKind) -> Result<Json<JobResponse>, Problem> {
    let answer = api.vault.abort_job(&ask.call, kind, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
