//! Grants and decisions: everything that is not granted is denied. No other file mints a [`Permit`].

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{KeyId, NodeName, Operation, Principal, Role};

/// The nodes that a grant or a permit covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeScope {
    /// Every declared node.
    All,
    /// These nodes.
    Only(BTreeSet<NodeName>),
}

/// The names of the nodes, comma-separated.
impl std::fmt::Display for NodeScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all nodes"),
            Self::Only(nodes) => f.write_str(&nodes.iter().map(NodeName::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl NodeScope {
    /// Whether it covers `node`.
    pub fn includes(&self, node: &NodeName) -> bool {
        match self {
            Self::All => true,
            Self::Only(nodes) => nodes.contains(node),
        }
    }
}

/// A grant: a principal has a role on some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The principal.
    pub principal: Arc<str>,
    /// The role.
    pub role: Role,
    /// The nodes.
    pub nodes: NodeScope,
}

/// The target of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A key that exists.
    Key(KeyId, &'a NodeName),
    /// A key that does not exist.
    UnknownKey(KeyId),
    /// A node, to create or import a key on it.
    Node(&'a NodeName),
    /// All nodes on which the operation is permitted, for lists.
    Inventory,
    /// The vault as a whole.
    Vault,
}

/// Why an operation is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The key does not exist, or the principal may not see it. Both have the same answer.
    #[error("this key does not exist, or this principal may not see it")]
    NotFound,
    /// The principal lacks the role.
    #[error("{0}")]
    Forbidden(Box<MissingRole>),
    /// The principal has the role, but the node is not declared.
    #[error("the node is not declared in the configuration")]
    UndeclaredNode,
}

/// The role that a principal lacks for an operation, and the grants that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRole {
    /// The roles that permit the operation. One of them is sufficient.
    pub required: Vec<Role>,
    /// Where the role is required: on one node, or on all nodes for operations on the vault as a whole. `None` for lists.
    pub scope: Option<NodeScope>,
    /// The grants of the principal.
    pub grants: Vec<Grant>,
}

/// For example: "Role auditor is required on node participant2; this principal has role node on participant1."
impl std::fmt::Display for MissingRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let required: Vec<&str> = self.required.iter().map(|role| role.as_str()).collect();
        write!(f, "Role {} is required", required.join(" or "))?;
        match &self.scope {
            Some(NodeScope::All) => f.write_str(" on all nodes")?,
            Some(node) => write!(f, " on node {node}")?,
            None => {}
        }
        if self.grants.is_empty() {
            return f.write_str("; this principal has no role.");
        }
        let held: Vec<String> = self.grants.iter().map(|grant| format!("role {} on {}", grant.role, grant.nodes)).collect();
        write!(f, "; this principal has {}.", held.join(", "))
    }
}

/// The proof of one decision. Only [`Policy`] makes it, and the commit of the permitted operation consumes it. It cannot be cloned.
///
/// ```compile_fail
/// let permit = canton_keyvault::domain::Permit { operation: todo!() };
/// ```
/// ```compile_fail
/// fn twice(permit: canton_keyvault::domain::Permit) { let _ = permit.clone(); }
/// ```
#[derive(Debug)]
#[must_use = "the commit of the permitted operation consumes the permit"]
pub struct Permit {
    principal: Principal,
    operation: Operation,
    key: Option<KeyId>,
    node: Option<NodeName>,
    nodes: NodeScope,
    policy_revision: Arc<str>,
}

impl Permit {
    /// The principal.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The permitted operation.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// The key, if the operation has one.
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// The node, if the operation has one.
    pub const fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// The nodes that the operation covers. Lists are filtered by them.
    pub const fn nodes(&self) -> &NodeScope {
        &self.nodes
    }

    /// The revision of the policy.
    pub const fn policy_revision(&self) -> &Arc<str> {
        &self.policy_revision
    }
}

/// Why a set of nodes and grants is not a valid policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A grant names a node that is not declared.
    #[error("the grant of {role} to {principal} names node {node}, which is not declared. Add it to nodes")]
    UndeclaredNode {
        /// The principal.
        principal: Arc<str>,
        /// The role.
        role: Role,
        /// The node.
        node: NodeName,
    },
    /// One principal has both the roles `node` and `wrapper-admin`.
    #[error(
        "{principal} has both the roles node and wrapper-admin. Remove one of them: no principal may both use keys and administer wrapper keys"
    )]
    UserAndWrapperAdmin {
        /// The principal.
        principal: Arc<str>,
    },
    /// The name of the vault itself is declared as a node.
    #[error("$vault is the name of the vault itself. Give the node another name")]
    VaultAsNode,
    /// A principal is neither `spiffe://…` nor `dns:…`.
    #[error("{principal:?} is not a principal. Write spiffe://… or dns:…")]
    NoPrincipal {
        /// The text.
        principal: Arc<str>,
    },
}

/// The declared nodes and the grants of one revision.
#[derive(Debug)]
pub struct Policy {
    nodes: BTreeSet<NodeName>,
    grants: HashMap<Arc<str>, Vec<Grant>>,
    revision: Arc<str>,
}

impl Policy {
    /// Checks nodes and grants. `revision` names this set in audit entries.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(nodes: BTreeSet<NodeName>, grants: Vec<Grant>, revision: Arc<str>) -> Result<Self, PolicyError> {
        if nodes.iter().any(NodeName::is_vault) {
            return Err(PolicyError::VaultAsNode);
        }
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

    /// The revision.
    pub const fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The declared nodes.
    pub const fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    /// All grants, in no order.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values().flatten()
    }

    /// The grants of one principal.
    pub fn grants_of(&self, principal: &str) -> &[Grant] {
        self.grants.get(principal).map_or(&[], Vec::as_slice)
    }

    /// Decides whether a principal may perform an operation.
    ///
    /// # Errors
    /// [`Denied`]. A key on a node on which the principal has no role that concerns keys is `NotFound`, like an unknown key.
    pub fn permit(&self, principal: &Principal, operation: Operation, target: Target<'_>) -> Result<Permit, Denied> {
        let nodes = self.scope_of(&principal.name, operation);
        let allowed = |node: &NodeName| nodes.as_ref().is_some_and(|scope| scope.includes(node));
        let (key, node) = match target {
            Target::UnknownKey(_) => return Err(Denied::NotFound),
            // Nobody uses or changes the key that signs checkpoints.
            Target::Key(_, node) if node.is_vault() && operation != Operation::ShowKey => return Err(Denied::NotFound),
            Target::Key(_, node) if !self.sees(&principal.name, node) => return Err(Denied::NotFound),
            Target::Key(key, node) if allowed(node) => (Some(key), Some(node.clone())),
            Target::Node(node) if allowed(node) && !self.nodes.contains(node) => return Err(Denied::UndeclaredNode),
            Target::Node(node) if allowed(node) => (None, Some(node.clone())),
            Target::Inventory | Target::Vault if nodes.is_some() => (None, None),
            Target::Key(_, node) | Target::Node(node) => return Err(self.missing_role(principal, operation, Some(node))),
            Target::Inventory | Target::Vault => return Err(self.missing_role(principal, operation, None)),
        };
        let nodes = nodes.ok_or_else(|| self.missing_role(principal, operation, None))?;
        Ok(Permit { principal: principal.clone(), operation, key, node, nodes, policy_revision: Arc::clone(&self.revision) })
    }

    fn missing_role(&self, principal: &Principal, operation: Operation, node: Option<&NodeName>) -> Denied {
        let required = Role::ALL.iter().copied().filter(|role| role.operations().contains(&operation)).collect();
        let scope = match node {
            Some(node) => Some(NodeScope::Only(BTreeSet::from([node.clone()]))),
            None => operation.is_vault_wide().then_some(NodeScope::All),
        };
        Denied::Forbidden(Box::new(MissingRole { required, scope, grants: self.grants_of(&principal.name).to_vec() }))
    }

    /// A permit for an operation of the vault without a caller: background tasks, quarantine, bootstrap, reload.
    pub fn permit_system(&self, operation: Operation, key: Option<(KeyId, NodeName)>) -> Permit {
        let (key, node) = key.map_or((None, None), |(key, node)| (Some(key), Some(node)));
        Permit { principal: Principal::system(), operation, key, node, nodes: NodeScope::All, policy_revision: Arc::clone(&self.revision) }
    }

    /// The nodes on which a principal may perform an operation. `None` if there is none.
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

    /// Whether the principal has a role that concerns keys on a node.
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

    fn principal(name: &str) -> Principal {
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
    fn a_key_of_another_node_and_an_unknown_key_have_the_same_answer() {
        let (policy, p2) = (policy(), node("p2"));
        let foreign = policy.permit(&principal("dns:p1"), Operation::Sign, Target::Key(KEY, &p2)).unwrap_err();
        let unknown = policy.permit(&principal("dns:p1"), Operation::Sign, Target::UnknownKey(KEY)).unwrap_err();
        assert_eq!((foreign, unknown), (Denied::NotFound, Denied::NotFound));
        assert_eq!(policy.permit(&principal("dns:wrap"), Operation::Sign, Target::Key(KEY, &p2)).unwrap_err(), Denied::NotFound);
    }

    #[test]
    fn an_operation_without_the_role_is_forbidden_on_a_visible_key() {
        let (policy, p1) = (policy(), node("p1"));
        for (name, operation) in [("dns:p1", Operation::EnableKey), ("dns:admin", Operation::Sign), ("dns:export", Operation::ShowKey)] {
            assert!(matches!(policy.permit(&principal(name), operation, Target::Key(KEY, &p1)), Err(Denied::Forbidden(_))));
        }
        assert!(policy.permit(&principal("dns:p1"), Operation::Sign, Target::Key(KEY, &p1)).is_ok());
    }

    #[test]
    fn a_refusal_names_the_required_role_and_the_roles_of_the_principal() {
        let policy = policy();
        let text = |name: &str, operation, target: Target<'_>| policy.permit(&principal(name), operation, target).unwrap_err().to_string();
        assert_eq!(
            text("dns:p1", Operation::EnableKey, Target::Key(KEY, &node("p1"))),
            "Role key-admin is required on node p1; this principal has role node on p1."
        );
        assert_eq!(
            text("dns:p1", Operation::QueryAudit, Target::Inventory),
            "Role auditor is required; this principal has role node on p1."
        );
        assert_eq!(
            text("dns:unknown", Operation::Freeze, Target::Vault),
            "Role key-admin or wrapper-admin is required on all nodes; this principal has no role."
        );
    }

    #[test]
    fn only_principals_that_may_create_on_all_nodes_learn_that_a_node_is_undeclared() {
        let (policy, p3) = (policy(), node("p3"));
        assert_eq!(policy.permit(&principal("dns:admin"), Operation::CreateKey, Target::Node(&p3)).unwrap_err(), Denied::UndeclaredNode);
        assert!(matches!(policy.permit(&principal("dns:p1"), Operation::CreateKey, Target::Node(&p3)), Err(Denied::Forbidden(_))));
    }

    #[test]
    fn a_grant_for_one_node_does_not_freeze_the_vault() {
        let policy = policy();
        assert!(policy.permit(&principal("dns:admin"), Operation::Freeze, Target::Vault).is_ok());
        assert!(matches!(policy.permit(&principal("dns:local-admin"), Operation::Freeze, Target::Vault), Err(Denied::Forbidden(_))));
    }

    #[test]
    fn no_role_both_uses_keys_and_administers_wrapper_keys() {
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
