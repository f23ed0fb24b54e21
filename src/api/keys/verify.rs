//! `/v1/keys/{id}/verify`: whether a key opens and is the one that its id names.

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
    domain::{KeyId, KeyState, WrapperKeyId},
    vault::VerifiedKey,
};

/// A key that opened and passed every check.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct VerifiedKeyResponse {
    /// The key.
    #[schema(value_type = String)]
    key_id: KeyId,
    /// Its state, which is unchanged.
    state: KeyState,
    /// The wrapper key that unwrapped its data key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    wrapper_key: Option<WrapperKeyId>,
}

/// Verify a key
///
/// Opens the key from its stored form, not from the cache: its wrap, seal and row tag must be valid, its public key must have the id as its fingerprint, and
/// it must sign or decrypt a test value. The answer contains nothing that the key made. A key that fails is quarantined, as by a use.
#[utoipa::path(post, path = "/v1/keys/{id}/verify", operation_id = "keys.verify", tag = "use", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = VerifiedKeyResponse, description = "The key opens and passed every check"), Problems))]
pub(in crate::api) async fn verify(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<VerifiedKeyResponse>, Problem> {
    let answer = api.vault.verify_key(&ask.call, ask.path).await.or_problem(&ask.call)?;
    let VerifiedKey { state, wrapper_key } = answer.into_value();
    Ok(Json(VerifiedKeyResponse { key_id: ask.path, state, wrapper_key }))
}
