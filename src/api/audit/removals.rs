//! `/v1/audit/removals`: removes entries of the log that were archived.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::{
        Api, Problem,
        base64::Base64,
        extract::{ApiRequest, Nothing},
        problem::{IntoProblem as _, Problems},
    },
    domain::{Operation, Timestamp},
    vault::{EntryRemoval, VaultError},
};

/// What may be removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RemovalRequest {
    /// The first entry of the archive. All entries before it must be removed already.
    #[schema(minimum = 1)]
    first: u64,
    /// The last entry of the archive: the number of entries of a checkpoint.
    #[schema(minimum = 1)]
    size: u64,
    /// The root of the Merkle tree over the first `size` entries, as `audit verify` of the archive prints it.
    root: Base64,
    /// Only entries before this time. Entries that are younger than `[audit] minimum_retention` stay in any case.
    #[schema(value_type = Option<String>, format = DateTime)]
    before: Option<Timestamp>,
}

/// What was removed.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct RemovalAnswer {
    /// The entries up to this one are removed, except state changes. Their space is freed in the background.
    removed_through: u64,
}

/// Remove archived entries of the log
///
/// State changes and the leaf hashes of all entries stay, so that all proofs stay valid. The removal is an entry itself.
#[utoipa::path(post, path = "/v1/audit/removals", operation_id = "audit.remove-entries", tag = "audit", request_body = RemovalRequest,
    responses((status = 200, body = RemovalAnswer, description = "The removal is recorded"), Problems))]
pub(in crate::api) async fn remove(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, RemovalRequest>,
) -> Result<Json<RemovalAnswer>, Problem> {
    let RemovalRequest { first, size, root: Base64(root), before } = ask.body;
    let Ok(root) = root.try_into() else {
        let error = VaultError::InvalidRequest("root: not the base64 of 32 bytes".into());
        return Err(Problem::of(&api.vault.reject(&ask.call, Operation::RemoveEntries, None, error).await, &ask.call.request_id));
    };
    let removed = api.vault.remove_entries(&ask.call, EntryRemoval { first, size, root, before }).await.or_problem(&ask.call)?;
    Ok(Json(RemovalAnswer { removed_through: removed.into_value().removed_through }))
}
