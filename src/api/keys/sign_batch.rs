//! `/v1/keys/{id}/sign-batch`: signatures over several messages in one call.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::operations::MESSAGE_LIMIT;
use crate::{
    api::{
        Api, Problem,
        base64::Base64,
        extract::{ApiRequest, Nothing},
        problem::{IntoProblem as _, Problems},
    },
    domain::{Algorithm, KeyId, Operation, SignatureFormat},
    traces::TraceParent,
    vault::{BatchMessage, VaultError},
};

/// Messages in one call.
pub const BATCH_LIMIT: usize = 64;

/// Messages to sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SignBatchRequest {
    algorithm: Algorithm,
    /// 1 to 64 messages. The whole body has at most 64 KiB.
    #[schema(min_items = 1, max_items = 64)]
    messages: Vec<SignBatchMessage>,
}

/// One of the messages to sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SignBatchMessage {
    /// The message itself, not its digest: at most 4096 bytes.
    message: Base64,
    /// The W3C `traceparent` of what the message belongs to, for the audit entry of its signature. That of the call if absent.
    traceparent: Option<String>,
}

/// Signatures over several messages.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SignBatchAnswer {
    /// The key that signed.
    #[schema(value_type = String)]
    pub key_id: KeyId,
    /// The signing algorithm.
    pub algorithm: Algorithm,
    /// The signatures, in the order of the messages.
    pub signatures: Vec<Base64>,
    /// Their format, in the words of Canton.
    pub signature_format: SignatureFormat,
}

/// Sign several messages
///
/// Each signature has an audit entry of its own (`keys.sign`). All signatures are made and recorded, or none.
#[utoipa::path(post, path = "/v1/keys/{id}/sign-batch", operation_id = "keys.sign-batch", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = SignBatchRequest, responses((status = 200, body = SignBatchAnswer, description = "The signatures"), Problems))]
pub(in crate::api) async fn sign_batch(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, SignBatchRequest>,
) -> Result<Json<SignBatchAnswer>, Problem> {
    let SignBatchRequest { algorithm, messages } = ask.body;
    let messages = match read(messages) {
        Ok(messages) => messages,
        Err(error) => {
            let refused = api.vault.reject(&ask.call, Operation::SignBatch, Some(ask.path), error).await;
            return Err(Problem::of(&refused, &ask.call.request_id));
        }
    };
    let answer = api.vault.sign_batch(&ask.call, ask.path, algorithm, messages).await.or_problem(&ask.call)?;
    let signatures = answer.into_value();
    // All are of one key.
    let Some(signature_format) = signatures.first().map(|signature| signature.format) else {
        return Err(Problem::of(&VaultError::Internal("no signature"), &ask.call.request_id));
    };
    let signatures = signatures.into_iter().map(|signature| Base64(signature.bytes)).collect();
    Ok(Json(SignBatchAnswer { key_id: ask.path, algorithm, signatures, signature_format }))
}

fn read(messages: Vec<SignBatchMessage>) -> Result<Vec<BatchMessage>, VaultError> {
    if messages.is_empty() || messages.len() > BATCH_LIMIT {
        return Err(VaultError::InvalidRequest("messages: a call has 1 to 64".into()));
    }
    let read = |SignBatchMessage { message: Base64(bytes), traceparent }| {
        if bytes.len() > MESSAGE_LIMIT {
            return Err(VaultError::TooLarge("a message has at most 4096 bytes"));
        }
        let parent = traceparent.as_deref();
        let malformed = || VaultError::InvalidRequest("traceparent: not of the form of W3C".into());
        let known = parent.map(|parent| TraceParent::parse(parent).ok_or_else(malformed));
        Ok(BatchMessage { bytes, trace_id: known.transpose()?.map(|parent| parent.trace_id.into()) })
    };
    messages.into_iter().map(read).collect()
}
