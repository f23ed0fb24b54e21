//! `/v1/wrapper-keys`: registering, creating, listing and showing.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{KmsRotationKind, Operation, ProviderKind, Timestamp, WrapperKeyId, WrapperState},
    vault::{KmsStatus, NewWrapperKey, Retired, VaultError, WrapperHealth, WrapperKeyView},
};

use super::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// A wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WrapperKey {
    /// Our own short id.
    #[schema(value_type = String)]
    pub id: WrapperKeyId,
    /// Which kind of KMS.
    pub provider: ProviderKind,
    /// What it is called there, resolved: an ARN, a file.
    pub reference: String,
    /// What it is, whatever it is called: never an alias, region apart.
    pub identity: String,
    /// Where it lives, in the order to try.
    pub regions: Vec<String>,
    /// What it is used for.
    pub state: WrapperState,
    /// How many keys have a wrap under it.
    pub keys: u64,
    /// How it fared when this process last asked it.
    pub health: WrapperHealth,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// What its KMS says of it at this moment, in the answer to showing it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<Kms>,
    /// What went with it, in the answer to its retirement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retirement: Option<Retirement>,
}

/// What went with a wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Retirement {
    /// How many wraps were dropped.
    pub wraps_dropped: u64,
    /// Of how many keys. Each has a verified wrap under another wrapper key that answered just then.
    pub keys: u64,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// The place in the log of the entry that says so.
    pub audit_position: u64,
}

/// What a KMS says of a wrapper key; what it does not say is absent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Kms {
    /// Whether it would use it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable: Option<bool>,
    /// How it rotates the key material; what was wrapped before a rotation stays wrapped under the older material.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<KmsRotation>,
    /// How many long-term keys were created before the last rotation of the material; absent if none is known. `GET
    /// /v1/keys?class=long-term&created_before=` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_term_keys_older: Option<u64>,
    /// Why something is absent that a KMS could say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a KMS rotates the key material below a wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KmsRotation {
    /// Whether it does so by itself.
    pub automatic: bool,
    /// Days between two automatic rotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_days: Option<u32>,
    /// When the next automatic one is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// When the last one was, of either kind; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<Timestamp>,
    /// Which kind the last one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_kind: Option<KmsRotationKind>,
    /// When one on demand began that is not done yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub on_demand_since: Option<Timestamp>,
}

impl From<KmsStatus> for Kms {
    fn from(KmsStatus { usable, rotation, long_term_keys_older, reason }: KmsStatus) -> Self {
        let rotation = rotation.map(|rotation| {
            let crate::domain::KmsRotation { automatic, period_days, next_at, last_at, last_kind, on_demand_since } = rotation;
            KmsRotation { automatic, period_days, next_at, last_at, last_kind, on_demand_since }
        });
        Self { usable, rotation, long_term_keys_older, reason }
    }
}

impl From<WrapperKeyView> for WrapperKey {
    fn from(WrapperKeyView { key, keys, last_used_at, health, fault }: WrapperKeyView) -> Self {
        let crate::domain::WrapperKey { id, provider, identity, reference, regions, state, canary: _, created_at } = key;
        let fault = fault.map(|fault| fault.to_string());
        Self {
            id,
            provider,
            reference,
            identity,
            regions,
            state,
            keys,
            health,
            fault,
            created_at,
            last_used_at,
            kms: None,
            retirement: None,
        }
    }
}

/// A wrapper key to register (`reference`) or to create (`create: true`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddWrapperKey {
    provider: ProviderKind,
    /// To register: an ARN, a key id, an alias, a file.
    #[schema(max_length = 2048)]
    reference: Option<String>,
    /// To create one instead; a `local` one may always be created.
    #[serde(default)]
    create: bool,
    /// To create one that may have replicas.
    #[serde(default)]
    multi_region: bool,
    /// In the order to try.
    #[serde(default)]
    #[schema(max_items = 16)]
    regions: Vec<String>,
}

impl AddWrapperKey {
    fn read(self) -> Result<NewWrapperKey, VaultError> {
        let Self { provider, reference, create, multi_region, regions } = self;
        if regions.len() > 16 || reference.as_ref().is_some_and(|reference| reference.len() > 2048) {
            return Err(VaultError::InvalidRequest("at most 16 regions, and a reference of at most 2048 bytes".into()));
        }
        match (reference, create) {
            (Some(reference), false) if !multi_region => Ok(NewWrapperKey::Register { provider, reference, regions }),
            (None, true) => Ok(NewWrapperKey::Create { provider, multi_region, regions }),
            _ => Err(VaultError::InvalidRequest("either a reference to register, or create: true".into())),
        }
    }
}

/// Register or create a wrapper key
///
/// It must prove that it wraps and unwraps. The first is active; further ones are on standby until a rotation makes one active.
#[utoipa::path(post, path = "/v1/wrapper-keys", operation_id = "wrapper-keys.add", tag = "wrapper keys",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = AddWrapperKey, responses((status = 201, body = WrapperKey), Problems))]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, AddWrapperKey>,
) -> Result<(StatusCode, Json<WrapperKey>), Problem> {
    let problem = |error: VaultError| Problem::of(&error, &ask.call.request_id);
    let new = match ask.body.read() {
        Ok(new) => new,
        Err(error) => return Err(problem(api.vault.reject(&ask.call, Operation::AddWrapperKey, None, error).await)),
    };
    let answer = api.vault.add_wrapper_key(&ask.call, new).await.map_err(problem)?;
    Ok((StatusCode::CREATED, Json(answer.into_value().into())))
}

/// The page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WrapperKeysQuery {
    /// The `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// Maximum number of items, 1 to 1000. Default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// List wrapper keys
#[utoipa::path(get, path = "/v1/wrapper-keys", operation_id = "wrapper-keys.list", tag = "wrapper keys", params(WrapperKeysQuery), responses((status = 200, body = List<WrapperKey>), Problems))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, WrapperKeysQuery>,
) -> Result<Json<List<WrapperKey>>, Problem> {
    let WrapperKeysQuery { cursor, limit } = ask.query;
    let page = api.vault.list_wrapper_keys(&ask.call, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}

/// Show a wrapper key
///
/// Asks its KMS, for 3 seconds at most, whether the key is usable and how its material is rotated.
#[utoipa::path(get, path = "/v1/wrapper-keys/{id}", operation_id = "wrapper-keys.show", tag = "wrapper keys", params(("id" = String, Path)), responses((status = 200, body = WrapperKey), Problems))]
pub(super) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<WrapperKeyId>) -> Result<Json<WrapperKey>, Problem> {
    let (view, look) = api.vault.show_wrapper_key(&ask.call, ask.path).await.or_problem(&ask.call)?.into_value();
    Ok(Json(WrapperKey { kms: look.map(Kms::from), ..view.into() }))
}

/// Retire a wrapper key
///
/// It must be standby or draining. Every key must have a verified wrap under another wrapper key that answers now; then the wraps under
/// this one are dropped. Nothing is deleted in the KMS: backups open only while their wrapper key lives.
#[utoipa::path(post, path = "/v1/wrapper-keys/{id}/retire", operation_id = "wrapper-keys.retire", tag = "wrapper keys", params(("id" = String, Path)), responses((status = 200, body = WrapperKey), Problems))]
pub(super) async fn retire(State(api): State<Arc<Api>>, ask: ApiRequest<WrapperKeyId>) -> Result<Json<WrapperKey>, Problem> {
    let answer = api.vault.retire_wrapper_key(&ask.call, ask.path).await.or_problem(&ask.call)?;
    let audit_position = answer.sequence();
    let Retired { view, wraps_dropped, keys } = answer.into_value();
    let retirement = Retirement { wraps_dropped, keys, last_used_at: view.last_used_at, audit_position };
    Ok(Json(WrapperKey { retirement: Some(retirement), ..view.into() }))
}

/// Where to make a replica.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replicate {
    /// The region, such as `eu-west-1`.
    #[schema(max_length = 32)]
    region: String,
}

/// Make a replica of a wrapper key
///
/// Of a multi-Region key, from its primary, under the key policy of its primary; needs `may_create`. The answer comes when the replica opens
/// what the key wrapped. If that takes too long, repeat the call: a replica that exists is taken.
#[utoipa::path(post, path = "/v1/wrapper-keys/{id}/replicas", operation_id = "wrapper-keys.replicate", tag = "wrapper keys", params(("id" = String, Path)), request_body = Replicate, responses((status = 200, body = WrapperKey), Problems))]
pub(super) async fn replicate(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<WrapperKeyId, Nothing, Replicate>,
) -> Result<Json<WrapperKey>, Problem> {
    let answer = api.vault.replicate_wrapper_key(&ask.call, ask.path, &ask.body.region).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
