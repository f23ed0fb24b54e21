//! The vault as a whole: `whoami`, `authorize`, `status`, `freeze`, `unfreeze`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{Grant, Hex, KeyId, KeyState, NodeName, NodeScope, Operation, Role, WrapperKeyId},
    vault::{AuthorizationDecision, AuthorizationQuery, Code, Effective, Status, VaultError, Whoami},
};

use super::{
    Api, Problem,
    extract::{ApiRequest, Nothing},
    problem::{IntoProblem as _, Problems},
};

/// Who the caller is.
#[derive(Serialize, ToSchema)]
pub(super) struct WhoamiAnswer {
    /// `spiffe://…` or `dns:…`.
    principal: String,
    /// SHA-256 of the client certificate, hex.
    certificate: Option<String>,
    grants: Vec<GrantAnswer>,
    policy_revision: String,
}

/// A stored right.
#[derive(Serialize, ToSchema)]
pub(super) struct GrantAnswer {
    role: Role,
    /// Names of nodes, or `*` for all.
    nodes: Vec<String>,
}

impl From<Grant> for GrantAnswer {
    fn from(Grant { principal: _, role, nodes }: Grant) -> Self {
        let nodes = match nodes {
            NodeScope::All => vec!["*".to_owned()],
            NodeScope::Only(nodes) => nodes.iter().map(NodeName::to_string).collect(),
        };
        Self { role, nodes }
    }
}

/// Show the identity of the caller
#[utoipa::path(get, path = "/v1/whoami", operation_id = "vault.whoami", tag = "vault", responses((status = 200, body = WhoamiAnswer), Problems))]
pub(super) async fn whoami(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<WhoamiAnswer>, Problem> {
    let Whoami { principal, grants, policy_revision } = api.vault.whoami(&ask.call).await.or_problem(&ask.call)?.into_value();
    let certificate = principal.certificate.map(|digest| Hex(&digest).to_string());
    let grants = grants.into_iter().map(GrantAnswer::from).collect();
    Ok(Json(WhoamiAnswer { principal: principal.name.to_string(), certificate, grants, policy_revision }))
}

/// The question of an authorization check.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorizeRequest {
    /// The operation, as in the log: `keys.sign`.
    operation: Operation,
    /// The key, if the operation has one.
    #[schema(value_type = Option<String>)]
    key_id: Option<KeyId>,
    /// The node, if the operation has no key.
    #[schema(value_type = Option<String>)]
    node: Option<NodeName>,
    /// The principal; the caller if absent. Only auditors may ask about others.
    #[schema(max_length = 2048)]
    principal: Option<String>,
}

/// The longest SPIFFE id. The question is recorded in the log.
const PRINCIPAL_LIMIT: usize = 2048;

/// An explained decision.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthorizeAnswer {
    principal: String,
    operation: Operation,
    /// Whether the policy permits the operation. The state of the key is not considered.
    permitted_by_policy: bool,
    /// The state of the key. `null` if no key is named, if it does not exist, or if the caller may not see it.
    key_state: Option<KeyState>,
    /// The code with which the call would be refused, because of the policy or of the state of the key. `null` if neither refuses it.
    code: Option<Code>,
    /// The grants of the principal.
    grants: Vec<GrantAnswer>,
    policy_revision: String,
}

/// Explain a decision without performing it
#[utoipa::path(post, path = "/v1/authorize", operation_id = "vault.authorize", tag = "vault", request_body = AuthorizeRequest,
    responses((status = 200, body = AuthorizeAnswer), Problems))]
pub(super) async fn authorize(
    State(api): State<Arc<Api>>,
    ask: ApiRequest<Nothing, Nothing, AuthorizeRequest>,
) -> Result<Json<AuthorizeAnswer>, Problem> {
    let AuthorizeRequest { operation, key_id, node, principal } = ask.body;
    if principal.as_ref().is_some_and(|principal| principal.len() > PRINCIPAL_LIMIT) {
        let error = VaultError::InvalidRequest("principal: at most 2048 bytes".into());
        let error = api.vault.reject(&ask.call, Operation::Authorize, None, error).await;
        return Err(Problem::of(&error, &ask.call.request_id));
    }
    let question = AuthorizationQuery { principal, operation, key: key_id, node };
    let decision = api.vault.authorize(&ask.call, question).await.or_problem(&ask.call)?.into_value();
    let AuthorizationDecision { principal, operation, permitted_by_policy, key_state, code, grants, policy_revision } = decision;
    let grants = grants.into_iter().map(GrantAnswer::from).collect();
    Ok(Json(AuthorizeAnswer { principal, operation, permitted_by_policy, key_state, code, grants, policy_revision }))
}

/// The status of the vault.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusAnswer {
    /// Whether any use of a key can succeed.
    ready: bool,
    /// Whether there is a fault although calls succeed.
    degraded: bool,
    reasons: Vec<Reason>,
    version: String,
    schema: u32,
    policy_revision: String,
    #[schema(value_type = Option<String>)]
    active_wrapper: Option<WrapperKeyId>,
}

/// The faults.
#[derive(Serialize, ToSchema)]
pub(super) struct Reason {
    code: Code,
}

impl From<Status> for StatusAnswer {
    fn from(Status { ready, degraded, reasons, version, schema, policy_revision, active_wrapper }: Status) -> Self {
        let reasons = reasons.into_iter().map(|code| Reason { code }).collect();
        Self { ready, degraded, reasons, version, schema, policy_revision, active_wrapper }
    }
}

/// Show the status of the vault
#[utoipa::path(get, path = "/v1/status", operation_id = "vault.status", tag = "vault", responses((status = 200, body = StatusAnswer), Problems))]
pub(super) async fn status(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<StatusAnswer>, Problem> {
    Ok(Json(api.vault.show_status(&ask.call).await.or_problem(&ask.call)?.into_value().into()))
}

/// The state of the freeze.
#[derive(Serialize, ToSchema)]
pub(super) struct FrozenAnswer {
    frozen: bool,
    /// `false` if it is in force but its entry is not in the log yet.
    recorded: bool,
}

/// Wipe every open key and refuse all use
///
/// Takes effect at once, also while the log is down. It is stored, so the vault stays frozen after a restart.
#[utoipa::path(post, path = "/v1/freeze", operation_id = "vault.freeze", tag = "vault", responses((status = 200, body = FrozenAnswer), Problems))]
pub(super) async fn freeze(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<FrozenAnswer>, Problem> {
    let Effective { value: (), recorded } = api.vault.freeze(&ask.call).await.or_problem(&ask.call)?;
    Ok(Json(FrozenAnswer { frozen: true, recorded }))
}

/// End a freeze
#[utoipa::path(post, path = "/v1/unfreeze", operation_id = "vault.unfreeze", tag = "vault", responses((status = 200, body = FrozenAnswer), Problems))]
pub(super) async fn unfreeze(State(api): State<Arc<Api>>, ask: ApiRequest) -> Result<Json<FrozenAnswer>, Problem> {
    api.vault.unfreeze(&ask.call).await.or_problem(&ask.call)?;
    Ok(Json(FrozenAnswer { frozen: false, recorded: true }))
}
