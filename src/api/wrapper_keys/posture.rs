//! `/v1/wrapper-keys/{id}/posture`: the assessment of a wrapper key and of its policy.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        Api, Problem,
        extract::ApiRequest,
        problem::{IntoProblem as _, Problems},
    },
    domain::{PostureLine, PostureStatus, PostureSubject, ProviderKind, WrapperKeyId},
};

/// The posture of a wrapper key.
#[derive(Serialize, ToSchema)]
#[schema(as = WrapperKeyPosture)]
pub(in crate::api) struct PostureResponse {
    /// The id in this vault.
    #[schema(value_type = String)]
    id: WrapperKeyId,
    /// Which kind of KMS.
    provider: ProviderKind,
    /// The worst status of the lines.
    status: PostureStatus,
    /// What was assessed.
    lines: Vec<PostureLineResponse>,
}

/// One line of a posture.
#[derive(Serialize, ToSchema)]
#[schema(as = PostureLine)]
pub(in crate::api) struct PostureLineResponse {
    /// What it is about.
    subject: PostureSubject,
    /// The assessment.
    status: PostureStatus,
    /// The region that it is about. Absent if it is about the whole key.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// What was found.
    detail: String,
    /// What to do about it. Absent if it is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl From<PostureLine> for PostureLineResponse {
    fn from(PostureLine { subject, status, region, detail, remedy }: PostureLine) -> Self {
        Self { subject, status, region, detail, remedy }
    }
}

/// Assess a wrapper key
///
/// Asks its KMS, for 10 seconds at most, what the key is and who may use it. Each line is ok, a warning or a fail, with a remedy. A permission that
/// the vault lacks is a warning that names it. The vault changes nothing.
#[utoipa::path(get, path = "/v1/wrapper-keys/{id}/posture", operation_id = "wrapper-keys.show-posture", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the wrapper key")), responses((status = 200, body = PostureResponse, description = "The posture"), Problems))]
pub(in crate::api) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<WrapperKeyId>) -> Result<Json<PostureResponse>, Problem> {
    let (key, lines) = api.vault.wrapper_key_posture(&ask.call, ask.path).await.or_problem(&ask.call)?.into_value();
    let status = lines.iter().map(|line| line.status).max().unwrap_or(PostureStatus::Ok);
    Ok(Json(PostureResponse { id: key.id, provider: key.provider, status, lines: lines.into_iter().map(Into::into).collect() }))
}
