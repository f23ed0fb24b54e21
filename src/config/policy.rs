//! `nodes` and `[[grants]]`: from the configuration to the policy of the audit gate.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::{
    domain::{Grant, Hex, NodeName, NodeScope, Policy, Role},
    mtls::identity::Identity,
};

/// One `[[grants]]`: a principal has a role on some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantConfig {
    /// `spiffe://…` or `dns:…`, as `GET /v1/whoami` shows it.
    pub principal: String,
    /// `node`, `key-admin`, `exporter`, `wrapper-admin` or `auditor`.
    pub role: Role,
    /// `["*"]` for every declared node, or names out of `nodes`.
    pub nodes: NodesConfig,
}

/// The nodes of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodesConfig {
    /// `["*"]`
    All,
    /// Names, at least one.
    Named(BTreeSet<NodeName>),
}

impl<'de> Deserialize<'de> for NodesConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        match texts.as_slice() {
            [all] if all == "*" => Ok(Self::All),
            [] => Err(serde::de::Error::custom("nodes reach nothing; write [\"*\"] for all, or names")),
            names if names.iter().any(|name| name == "*") => {
                Err(serde::de::Error::custom("\"*\" means all nodes and stands alone: write [\"*\"], or names without it"))
            }
            names => names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map(Self::Named).map_err(serde::de::Error::custom),
        }
    }
}

/// The policy, or the option and its fault.
pub(super) fn policy(nodes: &[NodeName], grants: &[GrantConfig]) -> Result<Policy, (String, String)> {
    for grant in grants {
        grant.principal.parse::<Identity>().map_err(|error| {
            let problem = format!("{:?} is no principal; write spiffe://… or dns:… ({error})", grant.principal);
            ("[[grants]] principal".to_owned(), problem)
        })?;
    }
    let granted = grants.iter().map(|grant| Grant {
        principal: grant.principal.as_str().into(),
        role: grant.role,
        nodes: match &grant.nodes {
            NodesConfig::All => NodeScope::All,
            NodesConfig::Named(names) => NodeScope::Only(names.clone()),
        },
    });
    let revision = revision(nodes, grants);
    Policy::new(nodes.iter().cloned().collect(), granted.collect(), revision.into())
        .map_err(|error| ("[[grants]]".to_owned(), error.to_string()))
}

/// The first 16 hex digits of SHA-256 over [`Policy::text`]: the sorted nodes and grants, one per line. Order and repetition do not matter.
fn revision(nodes: &[NodeName], grants: &[GrantConfig]) -> String {
    let mut lines = nodes.iter().map(|node| format!("node {node}")).collect::<BTreeSet<_>>();
    for grant in grants {
        let on = match &grant.nodes {
            NodesConfig::All => "*".to_owned(),
            NodesConfig::Named(names) => names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" "),
        };
        lines.insert(format!("grant {} {} {on}", grant.principal, grant.role));
    }
    let digest = lines.iter().fold(Sha256::new(), |hash, line| hash.chain_update(line).chain_update("\n")).finalize();
    Hex(digest.get(..8).unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log states the digest of the text, and each entry the revision: they must be of the same policy.
    #[test]
    fn the_revision_is_the_beginning_of_the_digest_of_the_text() {
        let nodes: Vec<NodeName> = ["b", "a"].map(|name| name.parse().unwrap()).into();
        let grant = |principal: &str, role, nodes| GrantConfig { principal: principal.into(), role, nodes };
        let grants = [
            grant("dns:x", Role::Node, NodesConfig::Named(nodes.iter().cloned().collect())),
            grant("dns:w", Role::Auditor, NodesConfig::All),
            grant("dns:w", Role::Auditor, NodesConfig::All),
        ];
        let policy = policy(&nodes, &grants).unwrap();
        let digest = Hex(&Sha256::digest(policy.text())).to_string();
        assert_eq!(digest[..16], **policy.revision());
    }
}
