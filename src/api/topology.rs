//! `/v1/topology/decode` and `/v1/keys/{id}/sign-topology`: topology transactions that are shown before they are signed.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{Algorithm, KeyId, Operation, SignatureFormat},
    topology::{KnownKey, TopologyTransaction, WarningReason, text, warnings},
    vault::{DecodedTopology, Signature, TopologySigned, VaultError},
};

use super::{
    Api, Problem,
    base64::Base64,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// A transaction to decode.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecodeTopology {
    /// The prepared transaction: the content of a `.prep` file.
    transaction: Base64,
}

/// What a transaction does.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologyAnswer {
    /// The hash to sign: 68 hex digits.
    hash: String,
    /// Operation, serial, mapping with its fields, the namespaces and keys that must sign.
    #[schema(value_type = Object)]
    description: serde_json::Value,
    /// Every field, in the names of Canton's protobuf files.
    #[schema(value_type = Object)]
    fields: serde_json::Value,
    /// The keys of the transaction that the vault holds and the caller may see.
    known_keys: Vec<KnownKeyAnswer>,
    /// What is dangerous about it.
    warnings: Vec<TopologyWarningAnswer>,
    /// The same in plain words, line by line.
    text: Vec<String>,
}

/// A key that the vault holds.
#[derive(Serialize, ToSchema)]
pub(super) struct KnownKeyAnswer {
    fingerprint: String,
    /// Its name, or else its node.
    name: String,
}

/// A warning.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologyWarningAnswer {
    reason: WarningReason,
    detail: String,
}

impl TopologyAnswer {
    fn new(transaction: &TopologyTransaction, known: &[KnownKey]) -> Self {
        let warning = |warning: crate::topology::TopologyWarning| TopologyWarningAnswer { reason: warning.reason, detail: warning.detail };
        let key = |key: &KnownKey| KnownKeyAnswer { fingerprint: key.fingerprint.to_string(), name: key.name.clone() };
        Self {
            hash: transaction.hash().to_string(),
            // A description has texts and numbers only, so that this cannot fail.
            description: serde_json::to_value(transaction.description()).unwrap_or_default(),
            fields: transaction.fields().clone(),
            known_keys: known.iter().map(key).collect(),
            warnings: warnings(transaction, known).into_iter().map(warning).collect(),
            text: text(transaction, known),
        }
    }
}

/// Show what a topology transaction does
///
/// Decodes a prepared transaction completely, or refuses it. Nothing is signed.
#[utoipa::path(post, path = "/v1/topology/decode", operation_id = "topology.decode", tag = "use",
    request_body = DecodeTopology, responses((status = 200, body = TopologyAnswer, description = "The decoded transaction"), Problems))]
pub(super) async fn decode(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, DecodeTopology>,
) -> Result<Json<TopologyAnswer>, Problem> {
    let Base64(transaction) = &ask.body.transaction;
    let DecodedTopology { transaction, known } =
        api.vault.decode_topology(&ask.call, transaction).await.or_problem(&ask.call)?.into_value();
    Ok(Json(TopologyAnswer::new(&transaction, &known)))
}

/// The transactions to sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignTopology {
    /// One prepared transaction. Its hash is signed.
    transaction: Option<Base64>,
    /// Or 1 to 16 prepared transactions that one signature covers. Their combined hash is signed, also for one.
    transactions: Option<Vec<Base64>>,
}

/// A signature over topology transactions.
#[derive(Serialize, ToSchema)]
pub(super) struct TopologySignAnswer {
    /// The key that signed.
    #[schema(value_type = String)]
    key_id: KeyId,
    /// The signing algorithm of the key.
    algorithm: Algorithm,
    signature: Base64,
    /// Its format, in the words of Canton.
    signature_format: SignatureFormat,
    /// What was signed, 68 hex digits: the hash of the transaction, or the combined hash of several.
    hash: String,
    /// What was signed, decoded.
    transactions: Vec<TopologyAnswer>,
}

/// Sign topology transactions
///
/// Decodes the transactions, computes the hash itself, and signs it. The audit entry says what was signed. A key that is limited to topology
/// transactions signs in no other way.
#[utoipa::path(post, path = "/v1/keys/{id}/sign-topology", operation_id = "keys.sign-topology", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = SignTopology, responses((status = 200, body = TopologySignAnswer, description = "The signature, and what was signed"), Problems))]
pub(super) async fn sign(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, SignTopology>,
) -> Result<Json<TopologySignAnswer>, Problem> {
    let (prepared, combined) = match ask.body {
        SignTopology { transaction: Some(Base64(one)), transactions: None } => (vec![one], false),
        SignTopology { transaction: None, transactions: Some(several) } => (several.into_iter().map(|Base64(one)| one).collect(), true),
        SignTopology { transaction, .. } => {
            let both = if transaction.is_some() { ", not both" } else { "" };
            let error = VaultError::InvalidRequest(format!("supply either transaction or transactions{both}"));
            let error = api.vault.reject(&ask.call, Operation::SignTopology, Some(ask.path), error).await;
            return Err(Problem::of(&error, &ask.call.request_id));
        }
    };
    let signed = api.vault.sign_topology(&ask.call, ask.path, prepared, combined).await.or_problem(&ask.call)?.into_value();
    let TopologySigned { signature: Signature { bytes, format }, algorithm, hash, transactions } = signed;
    // The names are a convenience: the signature exists already and is returned without them.
    let mut shown = Vec::with_capacity(transactions.len());
    for transaction in &transactions {
        let known = api.vault.known_keys(&ask.call, transaction).await.unwrap_or_default();
        shown.push(TopologyAnswer::new(transaction, &known));
    }
    Ok(Json(TopologySignAnswer {
        key_id: ask.path,
        algorithm,
        signature: Base64(bytes),
        signature_format: format,
        hash: hash.to_string(),
        transactions: shown,
    }))
}
