//! What a principal may do, explained without doing it: `whoami` and `authorize`.

use crate::{
    domain::{
        AuditEvent, Class, Concern, Grant, KeyId, KeyRecord, KeyState, MappingKinds, NodeName, Operation, Origin, Policy, Principal,
        Target, Transition,
    },
    storage::StoredKey,
};

use super::{AuditedResult, CallContext, Code, Vault, VaultError, audit_gate::Completed, error, keys::check_step};

/// A caller as the vault knows it.
#[derive(Debug)]
pub struct Whoami {
    /// The caller.
    pub principal: Principal,
    /// The grants of the caller.
    pub grants: Vec<Grant>,
    /// The revision of the policy.
    pub policy_revision: String,
}

/// A question about a decision.
#[derive(Debug)]
pub struct AuthorizationQuery {
    /// The principal. `None`: the caller.
    pub principal: Option<String>,
    /// The operation.
    pub operation: Operation,
    /// The key, if the operation is about one.
    pub key: Option<KeyId>,
    /// The node, if no key is named. The node of a key is not the caller's to choose.
    pub node: Option<NodeName>,
}

/// A decision, explained.
#[derive(Debug)]
pub struct AuthorizationDecision {
    /// The principal.
    pub principal: String,
    /// The operation.
    pub operation: Operation,
    /// Whether the policy permits the operation. The state of the key is not considered.
    pub permitted_by_policy: bool,
    /// The state of the key. `None` if no key is named, if it does not exist, or if the caller may not see it.
    pub key_state: Option<KeyState>,
    /// The code with which the operation would be refused, because of the policy or of the state of the key. `None` if neither refuses it.
    pub code: Option<Code>,
    /// Why, in words.
    pub detail: Option<String>,
    /// The grants of the principal.
    pub grants: Vec<Grant>,
    /// The revision of the policy.
    pub policy_revision: String,
}

impl Vault {
    /// Shows the caller and its grants.
    ///
    /// # Errors
    /// `AuditUnavailable`.
    pub async fn whoami(&self, call: &CallContext) -> Result<AuditedResult<Whoami>, VaultError> {
        let event = self.gate.event(call, Operation::Whoami);
        let policy = self.gate.policy();
        let result = self.gate.permit_vault(&event).map(|permit| {
            let grants = policy.grants_of(&call.principal.name).to_vec();
            Completed::read(permit, Whoami { principal: call.principal.clone(), grants, policy_revision: policy.revision().to_string() })
        });
        self.gate.conclude(event, result).await
    }

    /// Explains a decision about the caller. Auditors may ask about other principals.
    ///
    /// # Errors
    /// `InvalidRequest` if the query names a key or a node that the operation is not about, or both; `Forbidden` for a question about another principal; `StorageUnavailable` or `AuditUnavailable`.
    pub async fn authorize(
        &self,
        call: &CallContext,
        query: AuthorizationQuery,
    ) -> Result<AuditedResult<AuthorizationDecision>, VaultError> {
        let about_other = query.principal.as_deref().is_some_and(|name| name != call.principal.name.as_ref());
        let operation = if about_other { Operation::AuthorizeOther } else { Operation::Authorize };
        let event = AuditEvent {
            key: query.key,
            subject: Some(format!("{} by {}", query.operation, query.principal.as_deref().unwrap_or(&call.principal.name))),
            ..self.gate.event(call, operation)
        };
        let result = self.try_authorize(&event, call, query).await;
        self.gate.conclude(event, result).await
    }

    async fn try_authorize(
        &self,
        event: &AuditEvent,
        call: &CallContext,
        query: AuthorizationQuery,
    ) -> Result<Completed<AuthorizationDecision>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        check_query(&query)?;
        let policy = self.gate.policy();
        let principal = query.principal.map_or_else(|| call.principal.clone(), |name| Principal { name: name.into(), certificate: None });
        let stored = match query.key {
            Some(id) => self.env.store.key(id).await?,
            None => None,
        };
        let target = match (query.key, &stored, &query.node) {
            (Some(id), Some(stored), _) => Target::Key(id, &stored.record.attributes.node),
            (Some(id), None, _) => Target::UnknownKey(id),
            (None, _, Some(node)) => Target::Node(node),
            (None, _, None) => Target::Vault,
        };
        let denied = policy.permit(&principal, query.operation, target).err();
        let denied = denied.map(|refused| error::denied(refused, query.key, query.node.as_ref()));
        let visible = stored.as_ref().filter(|stored| may_see(&policy, &call.principal, stored)).map(|stored| &stored.record);
        let permitted_by_policy = denied.is_none();
        let refused = match (denied, visible) {
            (None, Some(record)) => self.refused_by_key(call, query.operation, record).await?,
            (denied, _) => denied,
        };
        let decision = AuthorizationDecision {
            permitted_by_policy,
            key_state: visible.map(|record| record.lifecycle.state()),
            code: refused.as_ref().map(VaultError::code),
            detail: refused.as_ref().map(ToString::to_string),
            grants: policy.grants_of(&principal.name).to_vec(),
            principal: principal.name.to_string(),
            operation: query.operation,
            policy_revision: policy.revision().to_string(),
        };
        Ok(Completed::read(permit, decision))
    }

    /// Why the key itself refuses an operation that the policy permits.
    ///
    /// # Errors
    /// `TooMany`, or the error of the store.
    async fn refused_by_key(&self, call: &CallContext, operation: Operation, record: &KeyRecord) -> Result<Option<VaultError>, VaultError> {
        if operation != Operation::WithdrawKey || record.attributes.origin != Origin::Imported {
            return Ok(refused_by_state(operation, record));
        }
        let _slot = self.limits.log_read(&call.principal)?;
        match self.key_lifecycle.check_withdrawal(record).await {
            Err(error @ (VaultError::InvalidKeyState(_) | VaultError::KeyWasUsed(_) | VaultError::KeyUseUnknown(_))) => Ok(Some(error)),
            checked => checked.map(|()| None),
        }
    }
}

/// Refuses a query with a part that could not change the decision.
fn check_query(query: &AuthorizationQuery) -> Result<(), VaultError> {
    let AuthorizationQuery { operation, key, node, .. } = query;
    let why = match (operation.concerns(), key, node) {
        (_, Some(_), Some(_)) => "supply either key_id or node: the node of a key decides".to_owned(),
        (Concern::Node, Some(_), None) => format!("key_id: {operation} is not about a key. Supply the node"),
        (Concern::Vault, Some(_), None) => format!("key_id: {operation} is not about a key"),
        (Concern::Vault, None, Some(_)) => format!("node: {operation} is not about a node"),
        _ => return Ok(()),
    };
    Err(VaultError::InvalidRequest(why))
}

/// Whether a caller may see a key: whether the policy permits any operation of theirs that shows or uses it.
pub(super) fn may_see(policy: &Policy, caller: &Principal, stored: &StoredKey) -> bool {
    const SHOWING: [Operation; 2] = [Operation::ShowKey, Operation::ExportKey];
    let target = || Target::Key(stored.record.attributes.id, &stored.record.attributes.node);
    SHOWING.into_iter().any(|operation| policy.permit(caller, operation, target()).is_ok())
}

/// Why the state or the attributes of a key refuse an operation.
fn refused_by_state(operation: Operation, record: &KeyRecord) -> Option<VaultError> {
    let lifecycle = record.lifecycle;
    if matches!(operation, Operation::Sign | Operation::SignBatch) && lifecycle.can_sign() && lifecycle.topology_only().is_some() {
        return Some(VaultError::TopologyOnly("use sign-topology".into()));
    }
    let transition = match operation {
        Operation::EnableKey => Some(Transition::Enable),
        Operation::DisableKey => Some(Transition::Disable),
        Operation::SupersedeKey => Some(Transition::Supersede),
        Operation::DeleteKey => Some(Transition::ScheduleDeletion),
        Operation::CancelDeletion => Some(Transition::CancelDeletion),
        // Which restriction is not asked. Every key that can be restricted takes one that it does not have.
        Operation::RestrictSigning if lifecycle.topology_only().is_none() => Some(Transition::RestrictSigning(Some(MappingKinds::ALL))),
        Operation::RestrictSigning => Some(Transition::RestrictSigning(None)),
        _ => None,
    };
    if let Some(transition) = transition {
        return check_step(record, transition).err();
    }
    if operation == Operation::WithdrawKey && record.attributes.origin != Origin::Imported {
        return Some(VaultError::NotImported);
    }
    let allowed = match operation {
        Operation::RenameKey | Operation::VerifyKey => !lifecycle.is_destroyed(),
        Operation::ResealKey => !matches!(lifecycle.state(), KeyState::Quarantined | KeyState::Destroyed),
        Operation::Sign | Operation::SignBatch | Operation::SignTopology | Operation::Encrypt | Operation::RotateKey => {
            lifecycle.can_sign()
        }
        Operation::Decrypt | Operation::ExportKey => lifecycle.can_decrypt(),
        _ => true,
    };
    if !allowed {
        return Some(VaultError::State(lifecycle.state()));
    }
    match (operation, record.attributes.class, record.successor, record.attributes.exportable) {
        (Operation::RotateKey, Class::Permanent, ..) => Some(VaultError::Permanent("rotated")),
        (Operation::RotateKey, _, Some(successor), _) => Some(VaultError::HasSuccessor(successor)),
        (Operation::ExportKey, .., false) => Some(VaultError::NotExportable),
        _ => None,
    }
}
