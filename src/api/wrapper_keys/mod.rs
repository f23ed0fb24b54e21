//! `/v1/wrapper-keys`: registering, creating, listing and showing.

pub(super) mod posture;
pub(super) mod rotations;

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{KmsRotationKind, Operation, ProviderKind, Timestamp, WrapperKeyId, WrapperKeyName, WrapperState},
    vault::{KmsStatus, NewWrapperKey, Reason, Retired, VaultError, WrapperHealth, WrapperKeyOrigin, WrapperKeyView},
};

use super::{
    Api, Problem,
    extract::{ApiRequest, IdempotencyKey, Nothing},
    pagination::{Cursor, List, PageLimit, page_request},
    problem::{IntoProblem as _, Problems},
};

/// A wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = WrapperKey)]
pub struct WrapperKeyResponse {
    /// The id in this vault.
    #[schema(value_type = String)]
    pub id: WrapperKeyId,
    /// Its name: a label, which need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<WrapperKeyName>,
    /// Which kind of KMS.
    pub provider: ProviderKind,
    /// Its resolved name in the KMS: an ARN, a URL, a file.
    pub reference: String,
    /// Its identity: never an alias, and without the region.
    pub identity: String,
    /// The regions or servers that have it, in the order to try.
    pub regions: Vec<String>,
    /// Its state.
    pub state: WrapperState,
    /// How many keys have a wrap under it.
    pub keys: u64,
    /// Its health when this process last called it.
    pub health: WrapperHealth,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The reason why it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_reason: Option<Reason>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_remedy: Option<String>,
    /// How many keys have no verified wrap under it. Only of the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// How to complete it, if keys are left and no rotation runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// What its KMS reports now. Only in the answer for a single key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<Kms>,
    /// The dropped wraps, or those that would be dropped. Only in the answer to its retirement, or to the dry run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retirement: Option<RetirementResponse>,
}

/// The dropped wraps of a retired wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Retirement)]
pub struct RetirementResponse {
    /// How many wraps were dropped.
    pub wraps_dropped: u64,
    /// Of how many keys. Each has a verified wrap under another wrapper key that just answered.
    pub keys: u64,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// The position of the entry in the log.
    pub audit_position: u64,
}

/// What a KMS reports of a wrapper key. What it does not report is absent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Kms {
    /// Whether the KMS would use it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable: Option<bool>,
    /// How the KMS rotates the key material. What was wrapped before a rotation stays wrapped under the older material.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<KmsRotationResponse>,
    /// How many long-term keys were created before the last rotation of the material; absent if none is known. `GET
    /// /v1/keys?class=long-term&created_before=` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_term_keys_older: Option<u64>,
    /// Why a value is absent that a KMS could report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a KMS rotates the material of a wrapper key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = KmsRotation)]
pub struct KmsRotationResponse {
    /// Whether the rotation is automatic.
    pub automatic: bool,
    /// Days between two automatic rotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_days: Option<u32>,
    /// When the next automatic one is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// When the last rotation was, of either kind. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<Timestamp>,
    /// The kind of the last rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_kind: Option<KmsRotationKind>,
    /// When a rotation on demand started that is not finished yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub on_demand_since: Option<Timestamp>,
}

impl From<KmsStatus> for Kms {
    fn from(KmsStatus { usable, rotation, long_term_keys_older, reason }: KmsStatus) -> Self {
        let rotation = rotation.map(|rotation| {
            let crate::domain::KmsRotation { automatic, period_days, next_at, last_at, last_kind, on_demand_since } = rotation;
            KmsRotationResponse { automatic, period_days, next_at, last_at, last_kind, on_demand_since }
        });
        Self { usable, rotation, long_term_keys_older, reason }
    }
}

impl From<WrapperKeyView> for WrapperKeyResponse {
    fn from(view: WrapperKeyView) -> Self {
        let fault_reason = view.fault_reason();
        let WrapperKeyView { key, keys, last_used_at, health, fault, left, incomplete } = view;
        let crate::domain::WrapperKey { id, name, provider, identity, reference, regions, state, canary: _, created_at } = key;
        let fault_remedy = fault_reason.map(|reason| reason.remedy().to_owned());
        let fault = fault.map(|fault| fault.to_string());
        Self {
            id,
            name,
            provider,
            reference,
            identity,
            regions,
            state,
            keys,
            health,
            fault,
            fault_reason,
            fault_remedy,
            left,
            incomplete,
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
    /// A label, which need not be unique: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, and not `wk-…`.
    #[schema(value_type = Option<String>, max_length = 128)]
    name: Option<WrapperKeyName>,
    /// To register: an ARN, a key id, an alias, a file.
    #[schema(max_length = 2048)]
    reference: Option<String>,
    /// To create a key instead. A `local` key may always be created.
    #[serde(default)]
    create: bool,
    /// Whether the created key may have replicas.
    #[serde(default)]
    multi_region: bool,
    /// The regions, in the order to try.
    #[serde(default)]
    #[schema(max_items = 16)]
    regions: Vec<String>,
}

impl AddWrapperKey {
    fn read(self) -> Result<NewWrapperKey, VaultError> {
        let Self { provider, name, reference, create, multi_region, regions } = self;
        if regions.len() > 16 || reference.as_ref().is_some_and(|reference| reference.len() > 2048) {
            return Err(VaultError::InvalidRequest("at most 16 regions, and a reference of at most 2048 bytes".into()));
        }
        let origin = match (reference, create) {
            (Some(_), false) if multi_region => {
                Err(VaultError::InvalidRequest("multi_region: only with create. A registered key is what it is in its KMS".into()))
            }
            (Some(reference), false) => Ok(WrapperKeyOrigin::Register { provider, reference, regions }),
            (None, true) => Ok(WrapperKeyOrigin::Create { provider, multi_region, regions }),
            (Some(_), true) => Err(VaultError::InvalidRequest("supply either reference or create: true, not both".into())),
            (None, false) => Err(VaultError::InvalidRequest("supply a reference to register, or create: true".into())),
        };
        Ok(NewWrapperKey { name, origin: origin? })
    }
}

/// Register or create a wrapper key
///
/// The vault checks that it wraps and unwraps. The first one is active. Further ones are on standby until a rotation makes one active.
#[utoipa::path(post, path = "/v1/wrapper-keys", operation_id = "wrapper-keys.add", tag = "wrapper-keys",
    params(IdempotencyKey),
    request_body = AddWrapperKey, responses((status = 201, body = WrapperKeyResponse, description = "The wrapper key"), Problems))]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, AddWrapperKey>,
) -> Result<(StatusCode, Json<WrapperKeyResponse>), Problem> {
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
#[utoipa::path(get, path = "/v1/wrapper-keys", operation_id = "wrapper-keys.list", tag = "wrapper-keys", params(WrapperKeysQuery), responses((status = 200, body = List<WrapperKeyResponse>, description = "A page of wrapper keys"), Problems))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, WrapperKeysQuery>,
) -> Result<Json<List<WrapperKeyResponse>>, Problem> {
    let WrapperKeysQuery { cursor, limit } = ask.query;
    let page = api.vault.list_wrapper_keys(&ask.call, page_request(cursor, limit)).await.or_problem(&ask.call)?;
    Ok(Json(List::of(page.into_value())))
}

/// Show a wrapper key
///
/// Asks its KMS, for 3 seconds at most, whether the key is usable and how its material is rotated.
#[utoipa::path(get, path = "/v1/wrapper-keys/{id}", operation_id = "wrapper-keys.show", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the wrapper key")), responses((status = 200, body = WrapperKeyResponse, description = "The wrapper key"), Problems))]
pub(super) async fn show(State(api): State<Arc<Api>>, ask: ApiRequest<WrapperKeyId>) -> Result<Json<WrapperKeyResponse>, Problem> {
    let (view, look) = api.vault.show_wrapper_key(&ask.call, ask.path).await.or_problem(&ask.call)?.into_value();
    Ok(Json(WrapperKeyResponse { kms: look.map(Kms::from), ..view.into() }))
}

/// The new name of a wrapper key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameWrapperKey {
    /// `null` removes the name. Required, so that an empty body removes nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(value_type = Option<String>, required = true, max_length = 128)]
    name: Option<WrapperKeyName>,
}

/// Rename a wrapper key
///
/// A name is a label, by which commands find the wrapper key. Nothing else depends on it. Several wrapper keys can have one name.
#[utoipa::path(post, path = "/v1/wrapper-keys/{id}/name", operation_id = "wrapper-keys.rename", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the wrapper key")), request_body = RenameWrapperKey, responses((status = 200, body = WrapperKeyResponse, description = "The wrapper key"), Problems))]
pub(super) async fn rename(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<WrapperKeyId, Nothing, RenameWrapperKey>,
) -> Result<Json<WrapperKeyResponse>, Problem> {
    let answer = api.vault.rename_wrapper_key(&ask.call, ask.path, ask.body.name).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}

/// Whether to retire.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RetireQuery {
    /// `true`: makes every check, changes nothing, and answers with the wraps that would be dropped.
    #[serde(default)]
    dry_run: bool,
}

/// Retire a wrapper key
///
/// It must be standby or draining, and no rotation may be running. Every key must have a verified wrap under another wrapper key that
/// answers now. Then the wraps under this one are dropped. Nothing is deleted in the KMS: backups need their wrapper key.
#[utoipa::path(post, path = "/v1/wrapper-keys/{id}/retire", operation_id = "wrapper-keys.retire", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the wrapper key"), RetireQuery), responses((status = 200, body = WrapperKeyResponse, description = "The wrapper key"), Problems))]
pub(super) async fn retire(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<WrapperKeyId, RetireQuery>,
) -> Result<Json<WrapperKeyResponse>, Problem> {
    let answer = match ask.query {
        RetireQuery { dry_run: true } => api.vault.preview_retirement(&ask.call, ask.path).await,
        RetireQuery { dry_run: false } => api.vault.retire_wrapper_key(&ask.call, ask.path).await,
    };
    let answer = answer.or_problem(&ask.call)?;
    let audit_position = answer.sequence();
    let Retired { view, wraps_dropped, keys } = answer.into_value();
    let retirement = RetirementResponse { wraps_dropped, keys, last_used_at: view.last_used_at, audit_position };
    Ok(Json(WrapperKeyResponse { retirement: Some(retirement), ..view.into() }))
}

/// Where to create a replica.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replicate {
    /// The region, such as `eu-west-1`.
    #[schema(max_length = 32)]
    region: String,
}

/// Create a replica of a wrapper key
///
/// Of a multi-Region key, from its primary, with the key policy of its primary. Requires `may_create`. The answer is sent when the replica
/// opens what the key wrapped. If that takes too long, repeat the call, which finds the existing replica.
#[utoipa::path(post, path = "/v1/wrapper-keys/{id}/replicas", operation_id = "wrapper-keys.replicate", tag = "wrapper-keys", params(("id" = String, Path, description = "The id of the wrapper key")), request_body = Replicate, responses((status = 200, body = WrapperKeyResponse, description = "The wrapper key"), Problems))]
pub(super) async fn replicate(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<WrapperKeyId, Nothing, Replicate>,
) -> Result<Json<WrapperKeyResponse>, Problem> {
    let answer = api.vault.replicate_wrapper_key(&ask.call, ask.path, &ask.body.region).await.or_problem(&ask.call)?;
    Ok(Json(answer.into_value().into()))
}
