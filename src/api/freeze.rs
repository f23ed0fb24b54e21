//! `/v1/freeze` and `/v1/unfreeze`: the incident switch.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::vault::Effective;

use super::{
    Api, Problem,
    extract::ApiRequest,
    problem::{IntoProblem as _, Problems},
};

/// The state of the freeze.
#[derive(Serialize, ToSchema)]
pub(super) struct FrozenAnswer {
    frozen: bool,
    /// `false` if it is in force but its entry is not in the log yet.
    recorded: bool,
}

/// Wipe every open key and refuse all use
///
/// Takes effect at once, also while the log is down. It is stored, so the vault stays frozen after a restart.
#[utoipa::path(post, path = "/v1/freeze", operation_id = "vault.freeze", tag = "vault", responses((status = 200, body = FrozenAnswer, description = "The state of the freeze"), Problems))]
pub(super) async fn freeze(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<FrozenAnswer>, Problem> {
    let Effective { value: (), recorded } = api.vault.freeze(&ask.call).await.or_problem(&ask.call)?;
    Ok(Json(FrozenAnswer { frozen: true, recorded }))
}

/// End a freeze
#[utoipa::path(post, path = "/v1/unfreeze", operation_id = "vault.unfreeze", tag = "vault", responses((status = 200, body = FrozenAnswer, description = "The state of the freeze"), Problems))]
pub(super) async fn unfreeze(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<FrozenAnswer>, Problem> {
    api.vault.unfreeze(&ask.call).await.or_problem(&ask.call)?;
    Ok(Json(FrozenAnswer { frozen: false, recorded: true }))
}
