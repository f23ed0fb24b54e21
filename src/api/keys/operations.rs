//! `/v1/keys/{id}/{sign,decrypt,encrypt,export}`: the uses of a key.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    crypto::canton::CantonVersion,
    domain::{Algorithm, KeyId, Operation, SignatureFormat},
    vault::{CallContext, ExportKey, ExportedKey, MaterialFormat, Signature, VaultError},
};

use super::SecretText;
use crate::api::{
    Api, Problem,
    base64::{Base64, SecretBase64},
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// Bytes of a message to sign or to encrypt, as in Canton's driver contract.
pub const MESSAGE_LIMIT: usize = 4096;
/// Bytes of a ciphertext, as in Canton's driver contract.
pub const CIPHERTEXT_LIMIT: usize = 6144;

/// A message to sign.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SignRequest {
    algorithm: Algorithm,
    /// The message itself, not its digest: at most 4096 bytes.
    message: Base64,
}

/// A signature.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SignAnswer {
    /// The key that signed.
    #[schema(value_type = String)]
    pub key_id: KeyId,
    /// The signing algorithm.
    pub algorithm: Algorithm,
    /// The signature.
    pub signature: Base64,
    /// Its format, in the words of Canton.
    pub signature_format: SignatureFormat,
}

/// Sign a message
#[utoipa::path(post, path = "/v1/keys/{id}/sign", operation_id = "keys.sign", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = SignRequest, responses((status = 200, body = SignAnswer, description = "The signature"), Problems))]
pub(in crate::api) async fn sign(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, SignRequest>,
) -> Result<Json<SignAnswer>, Problem> {
    let SignRequest { algorithm, message: Base64(message) } = ask.body;
    within(&api, &ask.call, Operation::Sign, ask.path, message.len(), MESSAGE_LIMIT, "a message has at most 4096 bytes").await?;
    let answer = api.vault.sign(&ask.call, ask.path, algorithm, message).await.or_problem(&ask.call)?;
    let Signature { bytes, format } = answer.into_value();
    Ok(Json(SignAnswer { key_id: ask.path, algorithm, signature: Base64(bytes), signature_format: format }))
}

/// A ciphertext to decrypt.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct DecryptRequest {
    algorithm: Algorithm,
    /// At most 6144 bytes.
    ciphertext: Base64,
}

/// A plaintext.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct DecryptAnswer {
    plaintext: SecretBase64,
}

/// Decrypt a ciphertext
#[utoipa::path(post, path = "/v1/keys/{id}/decrypt", operation_id = "keys.decrypt", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = DecryptRequest, responses((status = 200, body = DecryptAnswer, description = "The plaintext"), Problems))]
pub(in crate::api) async fn decrypt(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, DecryptRequest>,
) -> Result<Json<DecryptAnswer>, Problem> {
    let DecryptRequest { algorithm, ciphertext: Base64(ciphertext) } = ask.body;
    within(&api, &ask.call, Operation::Decrypt, ask.path, ciphertext.len(), CIPHERTEXT_LIMIT, "a ciphertext has at most 6144 bytes")
        .await?;
    let answer = api.vault.decrypt(&ask.call, ask.path, algorithm, ciphertext).await.or_problem(&ask.call)?;
    Ok(Json(DecryptAnswer { plaintext: SecretBase64(answer.into_value()) }))
}

/// A plaintext to encrypt under a symmetric key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct EncryptRequest {
    /// `aes-256-gcm` if absent.
    algorithm: Option<Algorithm>,
    /// At most 4096 bytes.
    plaintext: SecretBase64,
}

/// A ciphertext.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct EncryptAnswer {
    /// `0x01 ‖ nonce(12) ‖ ciphertext ‖ tag(16)`, bound to the key id.
    pub ciphertext: Base64,
}

/// Encrypt under a symmetric key
#[utoipa::path(post, path = "/v1/keys/{id}/encrypt", operation_id = "keys.encrypt", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = EncryptRequest, responses((status = 200, body = EncryptAnswer, description = "The ciphertext"), Problems))]
pub(in crate::api) async fn encrypt(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, EncryptRequest>,
) -> Result<Json<EncryptAnswer>, Problem> {
    let EncryptRequest { algorithm, plaintext: SecretBase64(plaintext) } = ask.body;
    within(&api, &ask.call, Operation::Encrypt, ask.path, plaintext.expose().len(), MESSAGE_LIMIT, "a plaintext has at most 4096 bytes")
        .await?;
    let algorithm = algorithm.unwrap_or(Algorithm::Aes256Gcm);
    let answer = api.vault.encrypt(&ask.call, ask.path, algorithm, plaintext).await.or_problem(&ask.call)?;
    Ok(Json(EncryptAnswer { ciphertext: Base64(answer.into_value()) }))
}

/// How to export.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ExportRequest {
    format: MaterialFormat,
    /// The version of Canton that a key-pair file is for: `3.3` files contain the public key, later ones do not. The newest if absent.
    canton_version: Option<CantonVersion>,
    /// Protects a Canton key-pair file.
    #[schema(value_type = Option<String>)]
    password: Option<SecretText>,
}

/// An exported key.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ExportAnswer {
    format: MaterialFormat,
    material: SecretBase64,
}

/// Export a key that was created exportable
#[utoipa::path(post, path = "/v1/keys/{id}/export", operation_id = "keys.export", tag = "use", params(("id" = String, Path, description = "The id of the key")),
    request_body = ExportRequest, responses((status = 200, body = ExportAnswer, description = "The exported key"), Problems))]
pub(in crate::api) async fn export(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, ExportRequest>,
) -> Result<Json<ExportAnswer>, Problem> {
    let ExportRequest { format, canton_version, password } = ask.body;
    let export = ExportKey { format, canton_version, password: password.map(|password| password.0) };
    let answer = api.vault.export_key(&ask.call, ask.path, export).await.or_problem(&ask.call)?;
    let ExportedKey { format, material } = answer.into_value();
    Ok(Json(ExportAnswer { format, material: SecretBase64(material) }))
}

/// Refuses a longer input than the driver contract of Canton allows, with an entry.
async fn within(
    api: &Api,
    call: &CallContext,
    operation: Operation,
    key: KeyId,
    length: usize,
    limit: usize,
    what: &'static str,
) -> Result<(), Problem> {
    if length <= limit {
        return Ok(());
    }
    Err(Problem::of(&Box::pin(api.vault.reject(call, operation, Some(key), VaultError::TooLarge(what))).await, &call.request_id))
}
