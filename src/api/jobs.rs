//! Jobs over all keys, as the API shows them. `keys/reseal.rs` and `wrapper_keys/rotations.rs` have the routes.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::{JobId, JobKind, JobState, KeyId, Timestamp, Work, WrapperKeyId};

use super::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::IntoProblem as _,
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

pub(super) async fn list(api: &Api, ask: ApiRequest<Nothing, JobsQuery>, kind: JobKind) -> Result<Json<List<JobResponse>>, Problem> {
    let JobsQuery { cursor, limit } = ask.query;
    let page = api.vault.list_jobs(&ask.call, kind, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}

pub(super) async fn show(api: &Api, ask: ApiRequest<JobId>, kind: JobKind) -> Result<Json<JobResponse>, Problem> {
    let answer = api.vault.show_job(&ask.call, kind, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

pub(super) async fn abort(api: &Api, ask: ApiRequest<JobId>, kind: JobKind) -> Result<Json<JobResponse>, Problem> {
    let answer = api.vault.abort_job(&ask.call, kind, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
