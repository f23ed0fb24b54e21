//! Grants and decisions (design §8): default deny, and the one place that mints a [`Permit`].

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{KeyId, NodeName, Operation, Principal, Role};

/// Which nodes a grant or a permit reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeScope {
    /// Every declared node.
    All,
    /// These.
    Only(BTreeSet<NodeName>),
}

impl NodeScope {
    /// Whether `node` is reached.
    pub fn includes(&self, node: &NodeName) -> bool {
        match self {
            Self::All => true,
            Self::Only(nodes) => nodes.contains(node),
        }
    }
}

/// A stored right: a principal has a role on some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub principal: Arc<str>,
    /// As what.
    pub role: Role,
    /// Where.
    pub nodes: NodeScope,
}

/// What an operation is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A key that exists.
    Key(KeyId, &'a NodeName),
    /// A key that does not exist.
    UnknownKey(KeyId),
    /// A node: for creating and importing.
    Node(&'a NodeName),
    /// All nodes that the operation is allowed on: for lists.
    Inventory,
    /// The vault as a whole.
    Vault,
}

/// Why no permit was minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Unknown, or invisible to this principal: the two answer alike.
    #[error("there is no such key")]
    NotFound,
    /// Visible, but not allowed.
    #[error("no grant of this principal allows it")]
    Forbidden,
    /// Allowed, but the node is not declared.
    #[error("the node is not declared in the configuration")]
    UndeclaredNode,
}

/// The proof of one decision: made here alone, spent by the commit of what it allowed. Neither cloned nor forged.
///
/// ```compile_fail
/// let permit = canton_keyvault::domain::Permit { operation: todo!() };
/// ```
/// ```compile_fail
/// fn twice(permit: canton_keyvault::domain::Permit) { let _ = permit.clone(); }
/// ```
#[derive(Debug)]
#[must_use = "a permit is spent by the commit of what it allowed"]
pub struct Permit {
    principal: Principal,
    operation: Operation,
    key: Option<KeyId>,
    node: Option<NodeName>,
    nodes: NodeScope,
    policy_revision: Arc<str>,
}

impl Permit {
    /// Who may.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What may be done.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// With which key, where there is one.
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// Of which node, where there is one.
    pub const fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// Which nodes the operation reaches: what a list is filtered by.
    pub const fn nodes(&self) -> &NodeScope {
        &self.nodes
    }

    /// The revision of the policy that decided.
    pub const fn policy_revision(&self) -> &Arc<str> {
        &self.policy_revision
    }
}

/// Why a set of nodes and grants is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A grant names a node that is not declared.
    #[error("the grant of {role} to {principal} names node {node}, which is not declared")]
    UndeclaredNode {
        /// Who was granted.
        principal: Arc<str>,
        /// As what.
        role: Role,
        /// Where.
        node: NodeName,
    },
    /// One principal would both use keys and administer wrapper keys.
    #[error("{principal} would both use keys (role node) and administer wrapper keys (role wrapper-admin)")]
    UserAndWrapperAdmin {
        /// Who.
        principal: Arc<str>,
    },
    /// A principal is neither `spiffe://…` nor `dns:…`.
    #[error("{principal:?} is no principal: write spiffe://… or dns:…")]
    NoPrincipal {
        /// What was written.
        principal: Arc<str>,
    },
}

/// The declared nodes and the grants, as of one revision.
#[derive(Debug)]
pub struct Policy {
    nodes: BTreeSet<NodeName>,
    grants: HashMap<Arc<str>, Vec<Grant>>,
    revision: Arc<str>,
}

impl Policy {
    /// Checks and indexes nodes and grants. `revision` names this set, for the log.
    ///
    /// # Errors
    /// [`PolicyError`], naming what to mend.
    pub fn new(nodes: BTreeSet<NodeName>, grants: Vec<Grant>, revision: Arc<str>) -> Result<Self, PolicyError> {
        let mut by_principal: HashMap<Arc<str>, Vec<Grant>> = HashMap::new();
        for grant in grants {
            let principal = Arc::clone(&grant.principal);
            if !(principal.starts_with("spiffe://") || principal.starts_with("dns:")) {
                return Err(PolicyError::NoPrincipal { principal });
            }
            if let NodeScope::Only(named) = &grant.nodes
                && let Some(node) = named.iter().find(|node| !nodes.contains(*node))
            {
                return Err(PolicyError::UndeclaredNode { principal, role: grant.role, node: node.clone() });
            }
            by_principal.entry(principal).or_default().push(grant);
        }
        let both = |grants: &[Grant]| [Role::Node, Role::WrapperAdmin].iter().all(|role| grants.iter().any(|grant| grant.role == *role));
        if let Some((principal, _)) = by_principal.iter().find(|(_, grants)| both(grants)) {
            return Err(PolicyError::UserAndWrapperAdmin { principal: Arc::clone(principal) });
        }
        Ok(Self { nodes, grants: by_principal, revision })
    }

    /// The name of this set of nodes and grants.
    pub const fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The declared nodes.
    pub const fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    /// The grants of one principal.
    pub fn grants_of(&self, principal: &str) -> &[Grant] {
        self.grants.get(principal).map_or(&[], Vec::as_slice)
    }

    /// Decides one operation of one principal.
    ///
    /// # Errors
    /// [`Denied`]; a key on a node that the principal has no business with is `NotFound`, exactly like an unknown one.
    pub fn permit(&self, principal: &Principal, operation: Operation, target: Target<'_>) -> Result<Permit, Denied> {
        let nodes = self.scope_of(&principal.name, operation);
        let allowed = |node: &NodeName| nodes.as_ref().is_some_and(|scope| scope.includes(node));
        let (key, node) = match target {
            Target::UnknownKey(_) => return Err(Denied::NotFound),
            Target::Key(_, node) if !self.sees(&principal.name, node) => return Err(Denied::NotFound),
            Target::Key(key, node) if allowed(node) => (Some(key), Some(node.clone())),
            Target::Node(node) if allowed(node) && !self.nodes.contains(node) => return Err(Denied::UndeclaredNode),
            Target::Node(node) if allowed(node) => (None, Some(node.clone())),
            Target::Inventory | Target::Vault if nodes.is_some() => (None, None),
            Target::Key(..) | Target::Node(_) | Target::Inventory | Target::Vault => return Err(Denied::Forbidden),
        };
        let nodes = nodes.ok_or(Denied::Forbidden)?;
        Ok(Permit { principal: principal.clone(), operation, key, node, nodes, policy_revision: Arc::clone(&self.revision) })
    }

    /// A permit for what the vault does by itself: timers, quarantine, bootstrap, reload.
    pub fn permit_system(&self, operation: Operation, key: Option<(KeyId, NodeName)>) -> Permit {
        let (key, node) = key.map_or((None, None), |(key, node)| (Some(key), Some(node)));
        Permit { principal: Principal::system(), operation, key, node, nodes: NodeScope::All, policy_revision: Arc::clone(&self.revision) }
    }

    /// Where a principal may do something; `None` if nowhere.
    fn scope_of(&self, principal: &str, operation: Operation) -> Option<NodeScope> {
        if Operation::FOR_ANYBODY.contains(&operation) {
            return Some(NodeScope::All);
        }
        let granting = || self.grants_of(principal).iter().filter(|grant| grant.role.operations().contains(&operation));
        if granting().any(|grant| grant.nodes == NodeScope::All) {
            return Some(NodeScope::All);
        }
        if operation.is_vault_wide() {
            return None;
        }
        let named: BTreeSet<NodeName> = granting()
            .filter_map(|grant| match &grant.nodes {
                NodeScope::All => None,
                NodeScope::Only(nodes) => Some(nodes.iter().cloned()),
            })
            .flatten()
            .collect();
        (!named.is_empty()).then_some(NodeScope::Only(named))
    }

    /// Whether the principal has any business with the keys of a node.
    fn sees(&self, principal: &str, node: &NodeName) -> bool {
        let concerns_keys = |role: Role| role.operations().iter().any(|operation| operation.as_str().starts_with("keys."));
        self.grants_of(principal).iter().any(|grant| concerns_keys(grant.role) && grant.nodes.includes(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn who(name: &str) -> Principal {
        Principal { name: name.into(), certificate: None }
    }

    fn policy() -> Policy {
        let only = |name: &str| NodeScope::Only([node(name)].into());
        let grant = |principal: &str, role, nodes| Grant { principal: principal.into(), role, nodes };
        Policy::new(
            [node("p1"), node("p2")].into(),
            vec![
                grant("dns:p1", Role::Node, only("p1")),
                grant("dns:admin", Role::KeyAdmin, NodeScope::All),
                grant("dns:local-admin", Role::KeyAdmin, only("p1")),
                grant("dns:wrap", Role::WrapperAdmin, NodeScope::All),
                grant("dns:export", Role::Exporter, only("p1")),
            ],
            "r1".into(),
        )
        .unwrap()
    }

    const KEY: KeyId = KeyId::Symmetric([7; 16]);

    #[test]
    fn a_foreign_key_answers_like_an_unknown_one() {
        let (policy, p2) = (policy(), node("p2"));
        let foreign = policy.permit(&who("dns:p1"), Operation::Sign, Target::Key(KEY, &p2)).unwrap_err();
        let unknown = policy.permit(&who("dns:p1"), Operation::Sign, Target::UnknownKey(KEY)).unwrap_err();
        assert_eq!((foreign, unknown), (Denied::NotFound, Denied::NotFound));
        assert_eq!(policy.permit(&who("dns:wrap"), Operation::Sign, Target::Key(KEY, &p2)).unwrap_err(), Denied::NotFound);
    }

    #[test]
    fn visible_but_not_allowed_is_forbidden() {
        let (policy, p1) = (policy(), node("p1"));
        for (name, operation) in [("dns:p1", Operation::EnableKey), ("dns:admin", Operation::Sign), ("dns:export", Operation::ShowKey)] {
            assert_eq!(policy.permit(&who(name), operation, Target::Key(KEY, &p1)).unwrap_err(), Denied::Forbidden);
        }
        assert!(policy.permit(&who("dns:p1"), Operation::Sign, Target::Key(KEY, &p1)).is_ok());
    }

    #[test]
    fn an_undeclared_node_is_told_only_to_those_who_may_create_everywhere() {
        let (policy, p3) = (policy(), node("p3"));
        assert_eq!(policy.permit(&who("dns:admin"), Operation::CreateKey, Target::Node(&p3)).unwrap_err(), Denied::UndeclaredNode);
        assert_eq!(policy.permit(&who("dns:p1"), Operation::CreateKey, Target::Node(&p3)).unwrap_err(), Denied::Forbidden);
    }

    #[test]
    fn a_grant_for_one_node_does_not_freeze_the_vault() {
        let policy = policy();
        assert!(policy.permit(&who("dns:admin"), Operation::Freeze, Target::Vault).is_ok());
        assert_eq!(policy.permit(&who("dns:local-admin"), Operation::Freeze, Target::Vault).unwrap_err(), Denied::Forbidden);
    }

    #[test]
    fn nobody_both_uses_keys_and_administers_wrapper_keys() {
        for role in Role::ALL {
            let uses = role
                .operations()
                .iter()
                .any(|o| matches!(o, Operation::Sign | Operation::Decrypt | Operation::Encrypt | Operation::ExportKey));
            let wraps = role.operations().contains(&Operation::AddWrapperKey);
            assert!(!(uses && wraps), "{role}");
        }
        let grant = |role| Grant { principal: "dns:x".into(), role, nodes: NodeScope::All };
        assert!(Policy::new(BTreeSet::new(), vec![grant(Role::Node), grant(Role::WrapperAdmin)], "r".into()).is_err());
    }
}
