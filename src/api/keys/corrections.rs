//! `/v1/keys/{id}/name`: corrections of what a person got wrong when they created or imported a key.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::{KeyId, KeyName};

use super::Key;
use crate::api::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// The new name of a key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RenameKey {
    /// `null` removes the name. Required, so that an empty body removes nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(value_type = Option<String>, required = true, max_length = 300)]
    name: Option<KeyName>,
}

/// Rename a key
///
/// A name is a label: several keys can have one name, and the usages of the key stay as they are. The entry has the old and the new name.
#[utoipa::path(post, path = "/v1/keys/{id}/name", operation_id = "keys.rename", tag = "keys", params(("id" = String, Path, description = "The id of the key")),
    request_body = RenameKey, responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn rename(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId, Nothing, RenameKey>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.rename_key(&ask.call, ask.path, ask.body.name).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
