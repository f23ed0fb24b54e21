//! `/v1/audit/access`: who was allowed to use a key at a time, and who used it.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    filters::{Age, TimeOrDate},
    summary::{SummaryItem, date},
};
use crate::{
    api::{
        Api, Problem,
        extract::{ApiRequest, Nothing},
        problem::{IntoProblem as _, Problems},
    },
    domain::{Dimension, Grant, NodeName, NodeScope, Operation, Role, Timestamp},
    vault::{KeyAccess, KeySelector, PolicyInForce},
};

/// Which key, and when.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct AccessQuery {
    /// The key: its id, the beginning of its id, or its name. It must name one key only.
    #[param(min_length = 1, max_length = 300)]
    key: String,
    /// The time: RFC 3339, or a date, which is its beginning in UTC.
    #[param(value_type = String)]
    at: TimeOrDate,
    /// How long before and after that time uses are counted, in whole days (UTC). Default `1d`.
    #[param(value_type = Option<String>)]
    window: Option<Age>,
}

/// Who was allowed to use a key, and who used it.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Access {
    /// The key.
    key_id: String,
    /// Its node.
    node: String,
    /// The state of the key at that time, as the log states it: its marks, outermost first. Absent before the key was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_state: Option<String>,
    /// The policy in force at that time. Absent before the first start of the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyAnswer>,
    /// Who was allowed to use the key. Absent if the grants are not known, because an earlier version of the vault did not keep them.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<AllowedItem>>,
    /// The first day that is counted.
    #[schema(format = Date)]
    from: String,
    /// The day after the last one that is counted.
    #[schema(format = Date)]
    to: String,
    /// The uses on these days, and the attempts that were refused.
    used: Vec<SummaryItem>,
    /// Whether all entries are counted. If not, repeat the call later.
    complete: bool,
}

/// A policy that was in force.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct PolicyAnswer {
    /// The revision, as in the entries.
    revision: String,
    /// SHA-256 of its text, hex, as the entry states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// The entry of the start or reload that put it in force.
    sequence: u64,
    /// The time of that entry.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

/// A grant that permitted the use of the key.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct AllowedItem {
    /// The principal.
    principal: String,
    /// The role.
    role: Role,
    /// The uses that the role permits.
    operations: Vec<Operation>,
    /// The nodes of the grant, or `*` for all.
    nodes: Vec<String>,
}

impl From<Grant> for AllowedItem {
    fn from(Grant { principal, role, nodes }: Grant) -> Self {
        let nodes = match nodes {
            NodeScope::All => vec!["*".to_owned()],
            NodeScope::Only(nodes) => nodes.iter().map(NodeName::to_string).collect(),
        };
        let operations = role.operations().iter().copied().filter(|operation| operation.uses_key()).collect();
        Self { principal: principal.to_string(), role, operations, nodes }
    }
}

/// Show who was allowed to use a key at a time, and who used it
///
/// The grants are those of the policy that the newest start or reload before that time put in force. Its entry states the digest of the policy, so that
/// the log authenticates the grants.
#[utoipa::path(get, path = "/v1/audit/access", operation_id = "audit.show-access", tag = "audit", params(AccessQuery), responses((status = 200, body = Access, description = "The grants and the uses"), Problems))]
pub(in crate::api) async fn access(State(api): State<Arc<Api>>, ask: ApiRequest<Nothing, AccessQuery>) -> Result<Json<Access>, Problem> {
    const BY: &[Dimension] = &[Dimension::Principal, Dimension::Certificate, Dimension::Operation, Dimension::Outcome];
    let AccessQuery { key, at: TimeOrDate(at), window } = ask.query;
    let window = window.map_or(Duration::from_hours(24), |Age(age)| age);
    let found = api.vault.show_access(&ask.call, KeySelector::Text(key), at, window).await.or_problem(&ask.call)?.into_value();
    let KeyAccess { key, node, policy, key_state, from, to, uses } = found;
    let (policy, allowed) = match policy {
        None => (None, None),
        Some(PolicyInForce { revision, digest, sequence, since, grants }) => {
            (Some(PolicyAnswer { revision, digest, sequence, since }), grants.map(|grants| grants.into_iter().map(Into::into).collect()))
        }
    };
    let (from, to, complete) = (date(from), date(to), uses.complete);
    let used = uses.groups.into_iter().map(|total| SummaryItem::of(BY, total)).collect();
    Ok(Json(Access { key_id: key.to_string(), node: node.to_string(), key_state, policy, allowed, from, to, used, complete }))
}
