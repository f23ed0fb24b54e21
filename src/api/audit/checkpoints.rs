//! `/v1/audit/checkpoint…`, `/v1/audit/verifier-keys` and `/v1/audit/proofs`: how reviewers verify that the log was not changed.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{KeyState, Timestamp},
    vault::{InclusionProof, Proof, StoredCheckpoint, VerifierKeyView},
};

use crate::api::{
    Api, Problem,
    base64::Base64,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// A checkpoint of the log.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct CheckpointAnswer {
    /// The name of the log: `<vault>/<instance>/<incarnation>`.
    origin: String,
    /// The number of entries.
    size: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The signed note (C2SP signed-note and tlog-checkpoint). Its text has the origin, the number of entries, the root of the Merkle tree
    /// (RFC 6962) in base64, and the head of the chain of state changes.
    note: String,
    /// The entries up to this one were archived and removed, except state changes. 0 if none were. An export begins after it.
    removed_through: u64,
}

impl CheckpointAnswer {
    fn of(api: &Api, StoredCheckpoint { origin, size, note, at }: StoredCheckpoint) -> Self {
        Self { origin, size, at, note, removed_through: api.vault.removed_through() }
    }
}

/// Show the newest checkpoint of the log
#[utoipa::path(get, path = "/v1/audit/checkpoint", operation_id = "audit.show-checkpoint", tag = "audit", responses((status = 200, body = CheckpointAnswer, description = "The newest checkpoint"), Problems))]
pub(in crate::api) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<CheckpointAnswer>, Problem> {
    let checkpoint = api.vault.show_checkpoint(&ask.call).await.or_problem(&ask.call)?.into_value();
    Ok(Json(CheckpointAnswer::of(&api, checkpoint)))
}

/// Make a checkpoint of the log now
///
/// The checkpoint covers the entry of this call.
#[utoipa::path(post, path = "/v1/audit/checkpoints", operation_id = "audit.make-checkpoint", tag = "audit", responses((status = 200, body = CheckpointAnswer, description = "The checkpoint"), Problems))]
pub(in crate::api) async fn make(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<CheckpointAnswer>, Problem> {
    let checkpoint = api.vault.request_checkpoint(&ask.call).await.or_problem(&ask.call)?;
    Ok(Json(CheckpointAnswer::of(&api, checkpoint)))
}

/// The keys that verify the checkpoints of this log.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct VerifierKeys {
    /// Oldest first.
    items: Vec<VerifierKeyItem>,
}

/// A key that verifies checkpoints.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct VerifierKeyItem {
    /// The verifier key as C2SP signed-note writes it. Keep it outside the vault: who verifies with a key from the same source as the log trusts that
    /// source.
    verifier_key: String,
    /// The state of the signing key.
    state: KeyState,
    /// When the signing key was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<VerifierKeyView> for VerifierKeyItem {
    fn from(VerifierKeyView { verifier_key, state, created_at }: VerifierKeyView) -> Self {
        Self { verifier_key, state, created_at }
    }
}

/// List the keys that verify checkpoints
#[utoipa::path(get, path = "/v1/audit/verifier-keys", operation_id = "audit.list-verifier-keys", tag = "audit", responses((status = 200, body = VerifierKeys, description = "The verifier keys, oldest first"), Problems))]
pub(in crate::api) async fn verifier_keys(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<VerifierKeys>, Problem> {
    let keys = api.vault.verifier_keys(&ask.call).await.or_problem(&ask.call)?.into_value();
    Ok(Json(VerifierKeys { items: keys.into_iter().map(VerifierKeyItem::from).collect() }))
}

/// Rotate the key that signs checkpoints
///
/// The audit entry of this call has a note that the old and the new key sign. Publish the new verifier key where the old one was published.
#[utoipa::path(post, path = "/v1/audit/verifier-keys", operation_id = "audit.rotate-checkpoint-key", tag = "audit", responses((status = 201, body = VerifierKeyItem, description = "The new key"), Problems))]
pub(in crate::api) async fn rotate(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<(StatusCode, Json<VerifierKeyItem>), Problem> {
    let key = api.vault.rotate_checkpoint_key(&ask.call).await.or_problem(&ask.call)?.into_value();
    Ok((StatusCode::CREATED, Json(key.into())))
}

/// Which entry to prove.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct InclusionQuery {
    /// The sequence number of the entry.
    #[param(minimum = 1)]
    sequence: u64,
    /// The number of entries of the tree. Default: that of the newest checkpoint.
    #[param(value_type = Option<u64>, minimum = 1, nullable = false)]
    size: Option<u64>,
}

/// The proof that the log contains an entry (RFC 6962 §2.1.1).
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct InclusionAnswer {
    /// The number of entries of the tree.
    size: u64,
    /// The root of the tree.
    root: Base64,
    /// The index of the leaf: the sequence number less one.
    leaf_index: u64,
    /// The leaf hash of the entry.
    leaf: Base64,
    /// The hashes of the proof, from the leaf to the root.
    proof: Vec<Base64>,
}

/// Prove that the log contains an entry
#[utoipa::path(get, path = "/v1/audit/proofs/inclusion", operation_id = "audit.prove-inclusion", tag = "audit", params(InclusionQuery), responses((status = 200, body = InclusionAnswer, description = "The proof"), Problems))]
pub(in crate::api) async fn inclusion(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, InclusionQuery>,
) -> Result<Json<InclusionAnswer>, Problem> {
    let InclusionQuery { sequence, size } = ask.query;
    let proven = api.vault.prove_inclusion(&ask.call, sequence, size).await.or_problem(&ask.call)?.into_value();
    let InclusionProof { leaf, proof: Proof { size, root, hashes } } = proven;
    let [root, leaf] = [root, leaf].map(|hash| Base64(hash.to_vec()));
    let proof = hashes.into_iter().map(|hash| Base64(hash.to_vec())).collect();
    Ok(Json(InclusionAnswer { size, root, leaf_index: sequence.saturating_sub(1), leaf, proof }))
}

/// Which sizes to compare.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ConsistencyQuery {
    /// The number of entries of an earlier tree.
    #[param(minimum = 0)]
    from: u64,
    /// The number of entries of the later tree. Default: that of the newest checkpoint.
    #[param(value_type = Option<u64>, minimum = 0, nullable = false)]
    size: Option<u64>,
}

/// The proof that the log begins with an earlier one (RFC 6962 §2.1.2).
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ConsistencyAnswer {
    /// The number of entries of the later tree.
    size: u64,
    /// Its root.
    root: Base64,
    /// The hashes of the proof.
    proof: Vec<Base64>,
}

/// Prove that the log begins with an earlier one
#[utoipa::path(get, path = "/v1/audit/proofs/consistency", operation_id = "audit.prove-consistency", tag = "audit", params(ConsistencyQuery), responses((status = 200, body = ConsistencyAnswer, description = "The proof"), Problems))]
pub(in crate::api) async fn consistency(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, ConsistencyQuery>,
) -> Result<Json<ConsistencyAnswer>, Problem> {
    let ConsistencyQuery { from, size } = ask.query;
    let Proof { size, root, hashes } = api.vault.prove_consistency(&ask.call, from, size).await.or_problem(&ask.call)?.into_value();
    let proof = hashes.into_iter().map(|hash| Base64(hash.to_vec())).collect();
    Ok(Json(ConsistencyAnswer { size, root: Base64(root.to_vec()), proof }))
}
