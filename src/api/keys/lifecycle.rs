//! `/v1/keys/{id}/{enable,disable,supersede,signing-restriction,cancel-deletion}` and `DELETE /v1/keys/{id}`: the state changes of a key.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{KeyId, MappingKind, MappingKinds, Operation},
    vault::{Effective, VaultError},
};

use super::Key;
use crate::api::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// Enable a disabled or quarantined key
///
/// Opens the key to verify it, and restores the state before. The key never gets more rights than before.
#[utoipa::path(post, path = "/v1/keys/{id}/enable", operation_id = "keys.enable", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn enable(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.enable(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// Disable a key
///
/// Takes effect at once, also while the KMS or the log is down. Then the answer says `"recorded": false`.
#[utoipa::path(post, path = "/v1/keys/{id}/disable", operation_id = "keys.disable", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn disable(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let in_force = api.vault.disable(&ask.call, ask.path).await.or_problem(&ask.call)?;
    let Effective { value, recorded } = in_force;
    Ok(Json(Key { recorded: (!recorded).then_some(false), ..value.into() }))
}

/// Supersede a key
///
/// Final: the key only decrypts from now on. It never signs or encrypts again.
#[utoipa::path(post, path = "/v1/keys/{id}/supersede", operation_id = "keys.supersede", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn supersede(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.supersede(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// What a key may sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SigningRestriction {
    /// `true`: only `sign-topology` works with the key. `false`: `sign` works too.
    topology_only: bool,
    /// With `topology_only`: the kinds of mappings that the key may sign. All kinds if absent.
    mappings: Option<Vec<MappingKind>>,
}

/// Restrict what a key may sign
///
/// A key that is limited to topology transactions signs only what the vault has decoded. Canton's driver passes hashes only, so that a
/// node cannot use such a key online: restrict a root key whose intermediate key is online.
#[utoipa::path(post, path = "/v1/keys/{id}/signing-restriction", operation_id = "keys.restrict-signing", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")),
    request_body = SigningRestriction, responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn restrict_signing(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, SigningRestriction>,
) -> Result<Json<Key>, Problem> {
    let restriction = match ask.body {
        SigningRestriction { topology_only: false, mappings: None } => Ok(None),
        SigningRestriction { topology_only: true, mappings: None } => Ok(Some(MappingKinds::ALL)),
        SigningRestriction { topology_only: true, mappings: Some(kinds) } if !kinds.is_empty() => Ok(Some(kinds.into_iter().collect())),
        SigningRestriction { topology_only: true, .. } => Err("mappings: name at least one kind, or omit it"),
        SigningRestriction { topology_only: false, .. } => Err("mappings: only with topology_only"),
    };
    let restriction = match restriction {
        Ok(restriction) => restriction,
        Err(detail) => {
            let error = VaultError::InvalidRequest(detail.into());
            let error = api.vault.reject(&ask.call, Operation::RestrictSigning, Some(ask.path), error).await;
            return Err(Problem::of(&error, &ask.call.request_id));
        }
    };
    let answer = api.vault.restrict_signing(&ask.call, ask.path, restriction).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// How many days a deletion waits if the request does not say.
pub(super) const DEFAULT_DAYS: u32 = 30;

/// When to destroy.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct DeleteQuery {
    /// How many days to wait: 7 to 365; 30 if absent.
    #[param(value_type = Option<u32>, minimum = 7, maximum = 365)]
    days: Option<String>,
}

/// Schedule the deletion of a key
///
/// The vault refuses to use the key from now on, and destroys it when the days are over.
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "keys.delete", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key"), DeleteQuery), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn delete(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId, DeleteQuery>) -> Result<Json<Key>, Problem> {
    let problem = |error: VaultError| Problem::of(&error, &ask.call.request_id);
    let Ok(days) = ask.query.days.as_deref().map_or(Ok(DEFAULT_DAYS), str::parse) else {
        let error = VaultError::InvalidRequest("days: 7 to 365".into());
        return Err(problem(api.vault.reject(&ask.call, Operation::DeleteKey, Some(ask.path), error).await));
    };
    let answer = api.vault.delete(&ask.call, ask.path, days).await.map_err(problem)?;
    Ok(Json(answer.into_value().into()))
}

/// Cancel a scheduled deletion
///
/// Restores the state before. The key never gets more rights than before.
#[utoipa::path(post, path = "/v1/keys/{id}/cancel-deletion", operation_id = "keys.cancel-deletion", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn cancel_deletion(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.cancel_deletion(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
