//! `/v1/whoami` and `/v1/authorize`: the identity and the grants of the caller, and an explained authorization decision.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{Grant, Hex, KeyId, KeyState, NodeName, NodeScope, Operation, Role},
    vault::{AuthorizationDecision, AuthorizationQuery, Code, VaultError, Whoami},
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
#[utoipa::path(get, path = "/v1/whoami", operation_id = "vault.whoami", tag = "vault", responses((status = 200, body = WhoamiAnswer, description = "The identity and the grants of the caller"), Problems))]
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
    /// The key, if the operation is about one.
    #[schema(value_type = Option<String>)]
    key_id: Option<KeyId>,
    /// The node, if no key is named. Together with `key_id` it is refused, because the node of the key decides.
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
    /// The same in words: what is missing or in the way.
    detail: Option<String>,
    /// The grants of the principal.
    grants: Vec<GrantAnswer>,
    policy_revision: String,
}

/// Explain a decision without performing it
#[utoipa::path(post, path = "/v1/authorize", operation_id = "vault.authorize", tag = "vault", request_body = AuthorizeRequest,
    responses((status = 200, body = AuthorizeAnswer, description = "The decision, explained"), Problems))]
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
    let AuthorizationDecision { principal, operation, permitted_by_policy, key_state, code, detail, grants, policy_revision } = decision;
    let grants = grants.into_iter().map(GrantAnswer::from).collect();
    Ok(Json(AuthorizeAnswer { principal, operation, permitted_by_policy, key_state, code, detail, grants, policy_revision }))
}
