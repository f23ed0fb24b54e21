//! `/v1/keys`: creating, importing, rotating, listing and showing.

pub(super) mod corrections;
pub(super) mod lifecycle;
pub(super) mod operations;
pub(super) mod reseal;
pub(super) mod sign_batch;
pub(super) mod verify;

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{
        Class, KeyId, KeyName, KeyRecord, KeySpec, KeyState, MappingKind, MappingKinds, NodeName, Origin, Purpose, Timestamp, Usage,
        Usages, Wrap, WrapperKeyId,
    },
    vault::{ImportKey, ImportedKey, KeyQuery, MaterialFormat, NewKey},
};

use super::{
    Api, Problem,
    base64::{Base64, SecretBase64},
    extract::{ApiRequest, IdempotencyKey, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// A key, without its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Canton's fingerprint `1220…`, or `sym-…` for a symmetric key.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// The Canton node it belongs to.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// A label of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<KeyName>,
    /// What the key is for: signing, encryption, symmetric.
    pub purpose: Purpose,
    /// The scheme.
    pub spec: KeySpec,
    /// What Canton uses it for.
    #[schema(value_type = Vec<Usage>)]
    pub usage: Usages,
    /// Whether the key is long-term or permanent.
    pub class: Class,
    /// Its state.
    pub state: KeyState,
    /// Whether the vault generated or imported it.
    pub origin: Origin,
    /// Whether an exporter may export it.
    pub exportable: bool,
    /// `true` if it signs topology transactions only. Otherwise absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub topology_only: bool,
    /// The kinds of mappings that it may sign, if they are limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_mappings: Vec<MappingKind>,
    /// X.509 `SubjectPublicKeyInfo`, DER, base64; not for symmetric keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Base64>,
    /// When it was created or imported.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The number of its state changes.
    pub revision: u64,
    /// The number of its data keys: one more after each re-seal.
    pub generation: u32,
    /// The key that follows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub successor: Option<KeyId>,
    /// The key that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub predecessor: Option<KeyId>,
    /// When it will be destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delete_at: Option<Timestamp>,
    /// The wraps of its data key.
    pub wraps: Vec<KeyWrap>,
    /// `false` if the change is in force but its entry is not in the log yet. Otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<bool>,
}

/// One wrap of a key's data key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyWrap {
    /// The wrapper key.
    #[schema(value_type = String)]
    pub wrapper_key: WrapperKeyId,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last opened in a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified_at: Option<Timestamp>,
    /// Quarantined, because it does not open although its wrapper key works.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}

impl From<KeyRecord> for Key {
    fn from(record: KeyRecord) -> Self {
        let KeyRecord {
            attributes,
            name,
            public_key,
            created_at,
            generation,
            revision,
            lifecycle,
            successor,
            predecessor,
            delete_at,
            wraps,
            ..
        } = record;
        let wraps = wraps.into_iter().filter(|wrap| wrap.generation == generation).map(KeyWrap::from).collect();
        Self {
            id: attributes.id,
            node: attributes.node,
            name,
            purpose: attributes.purpose,
            spec: attributes.spec,
            usage: attributes.usages,
            class: attributes.class,
            state: lifecycle.state(),
            origin: attributes.origin,
            exportable: attributes.exportable,
            topology_only: lifecycle.topology_only().is_some(),
            topology_mappings: lifecycle.topology_only().map_or_else(Vec::new, MappingKinds::listed),
            public_key: public_key.map(Base64),
            created_at,
            revision,
            generation,
            successor,
            predecessor,
            delete_at,
            wraps,
            recorded: None,
        }
    }
}

impl From<Wrap> for KeyWrap {
    fn from(Wrap { wrapper_key, created_at, verified_at, quarantined, .. }: Wrap) -> Self {
        Self { wrapper_key, created_at, verified_at, quarantined }
    }
}

/// A key to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateKey {
    /// The Canton node it will belong to.
    #[schema(value_type = String, example = "participant1")]
    node: NodeName,
    purpose: Purpose,
    spec: KeySpec,
    /// For signing keys. If absent, taken from the name as Canton forms it (`…-namespace`, `…-sequencer-auth`, `…-signing`); otherwise
    /// none.
    #[schema(value_type = Option<Vec<Usage>>)]
    usage: Option<Usages>,
    /// If absent, `permanent` for a namespace key, otherwise `long-term`.
    class: Option<Class>,
    #[schema(value_type = Option<String>, max_length = 300)]
    name: Option<KeyName>,
    /// Whether an exporter may export it. Only a key-admin may say `true`.
    #[serde(default)]
    exportable: bool,
}

/// Create a key
///
/// Repeatable with `Idempotency-Key`: the same key and body give the same answer for 24 hours.
#[utoipa::path(post, path = "/v1/keys", operation_id = "keys.create", tag = "keys",
    params(IdempotencyKey),
    request_body = CreateKey, responses((status = 201, body = Key, description = "The new key"), Problems))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, CreateKey>,
) -> Result<(StatusCode, Json<Key>), Problem> {
    let CreateKey { node, purpose, spec, usage, class, name, exportable } = ask.body;
    let new = NewKey { node, purpose, spec, usages: usage, class, name, exportable };
    let answer = api.vault.create_key(&ask.call, new).await.or_problem(&ask.call)?;
    Ok((StatusCode::CREATED, Json(answer.into_value().into())))
}

/// A key to import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportRequest {
    /// The Canton node it will belong to.
    #[schema(value_type = String, example = "participant1")]
    node: NodeName,
    format: MaterialFormat,
    /// The key, in the format, base64.
    material: SecretBase64,
    /// The password of a Canton key-pair file that has one.
    #[schema(value_type = Option<String>)]
    password: Option<SecretText>,
    /// Required where the material does not contain it: a P-256 key in PKCS#8.
    purpose: Option<Purpose>,
    /// If absent, taken from the file or the name.
    #[schema(value_type = Option<Vec<Usage>>)]
    usage: Option<Usages>,
    class: Option<Class>,
    #[schema(value_type = Option<String>, max_length = 300)]
    name: Option<KeyName>,
    /// Whether an exporter may export it again.
    #[serde(default)]
    exportable: bool,
    /// Whether it may replace a destroyed key with the same id: also of another node, and with other attributes. Not for symmetric keys, which get
    /// a new id at each import.
    #[serde(default)]
    replace_destroyed: bool,
}

/// A secret text in a request, read directly into memory that is wiped.
pub(super) struct SecretText(pub crate::crypto::SecretBytes);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into_bytes().into()))
    }
}

/// Import a key
///
/// Importing the same key with the same attributes again answers 200 and changes nothing. With another attribute or name it answers 409. A key
/// that was destroyed is imported again only with `replace_destroyed`. It is active then, whatever it was before. The origin is `imported` for
/// ever.
#[utoipa::path(post, path = "/v1/keys/import", operation_id = "keys.import", tag = "keys",
    params(IdempotencyKey),
    request_body = ImportRequest, responses((status = 201, body = Key, description = "The imported key"), (status = 200, body = Key, description = "The key, which existed"), Problems))]
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, ImportRequest>,
) -> Result<(StatusCode, Json<Key>), Problem> {
    let ImportRequest { node, format, material, password, purpose, usage, class, name, exportable, replace_destroyed } = ask.body;
    let (material, password) = (material.0, password.map(|password| password.0));
    let import = ImportKey { node, format, material, password, purpose, usages: usage, class, name, exportable, replace_destroyed };
    let answer = api.vault.import_key(&ask.call, import).await.or_problem(&ask.call)?;
    let ImportedKey { record, created } = answer.into_value();
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(record.into())))
}

/// The name of the successor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateKey {
    /// If absent, the old name with `-rotated-<time>`.
    #[schema(value_type = Option<String>, max_length = 300)]
    name: Option<KeyName>,
}

/// Create a successor
///
/// The old key signs until it is superseded: Canton signs with it until its topology change takes effect.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", operation_id = "keys.rotate", tag = "keys",
    params(("id" = String, Path, description = "The id of the key"), IdempotencyKey),
    request_body = Option<RotateKey>, responses((status = 201, body = Key, description = "The new key"), Problems))]
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<KeyId, Nothing, RotateKey>,
) -> Result<(StatusCode, Json<Key>), Problem> {
    let answer = api.vault.rotate(&ask.call, ask.path, ask.body.name).await.or_problem(&ask.call)?;
    Ok((StatusCode::CREATED, Json(answer.into_value().into())))
}

/// Which keys to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeysQuery {
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    purpose: Option<Purpose>,
    state: Option<KeyState>,
    class: Option<Class>,
    /// Keys with exactly this name. A name is not unique.
    #[param(value_type = Option<String>, max_length = 300)]
    name: Option<KeyName>,
    /// Keys with exactly this name, or whose id begins with this text.
    #[param(value_type = Option<String>, max_length = 300)]
    key: Option<KeyName>,
    /// Created at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    created_since: Option<Timestamp>,
    /// Created before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<Timestamp>,
    /// The `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Maximum number of items, 1 to 1000. Default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// List keys
///
/// Oldest first, on the nodes that the caller may see.
#[utoipa::path(get, path = "/v1/keys", operation_id = "keys.list", tag = "keys", params(KeysQuery), responses((status = 200, body = List<Key>, description = "A page of keys"), Problems))]
pub(super) async fn list(State(api): State<Arc<Api>>, ask: ApiRequest<Nothing, KeysQuery>) -> Result<Json<List<Key>>, Problem> {
    let KeysQuery { node, purpose, state, class, name, key, created_since, created_before, cursor, limit } = ask.query;
    let query = KeyQuery { node, purpose, state, class, name, key, created_since, created_before };
    let page = api.vault.list_keys(&ask.call, query, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}

/// Show a key
#[utoipa::path(get, path = "/v1/keys/{id}", operation_id = "keys.show", tag = "keys", params(("id" = String, Path, description = "The id of the key")), responses((status = 200, body = Key, description = "The key"), Problems))]
pub(super) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<KeyId>) -> Result<Json<Key>, Problem> {
    let answer = api.vault.show_key(&ask.call, ask.path).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
