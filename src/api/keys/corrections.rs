//! `/v1/keys/{id}/{withdraw,name}`: corrections of what a person got wrong when they imported or created a key.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::{KeyId, KeyName};

use super::{Key, lifecycle::DEFAULT_DAYS};
use crate::api::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// When to destroy the key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct WithdrawKey {
    /// How many days to wait: 7 to 365; 30 if absent.
    #[schema(minimum = 7, maximum = 365)]
    days: Option<u32>,
}

/// Withdraw an imported key that was never used
///
/// The way back from an import by mistake, also of a permanent key. The vault refuses to use the key from now on, and destroys it when the days
/// are over. Until then `cancel-deletion` restores it. A key that was used since its import answers 409 with its use. A destroyed key can be
/// imported again, also for another node.
#[utoipa::path(post, path = "/v1/keys/{id}/withdraw", operation_id = "keys.withdraw", tag = "lifecycle", params(("id" = String, Path, description = "The id of the key")),
    request_body = Option<WithdrawKey>, responses((status = 200, body = Key, description = "The key"), Problems))]
pub(in crate::api) async fn withdraw(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, WithdrawKey>,
) -> Result<Json<Key>, Problem> {
    let days = ask.body.days.unwrap_or(DEFAULT_DAYS);
    let answer = api.vault.withdraw_key(&ask.call, ask.path, days).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

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
