//! What a principal may do, explained without doing it: `whoami` and `authorize`.

use crate::{
    domain::{AuditEvent, Class, Grant, KeyId, KeyRecord, KeyState, NodeName, Operation, Policy, Principal, Target, Transition},
    storage::StoredKey,
};

use super::{AuditedResult, CallContext, Code, Vault, VaultError, audit_gate::Completed, error::denied};

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
    /// The key.
    pub key: Option<KeyId>,
    /// The node.
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
    /// `Forbidden` for a question about another principal; `StorageUnavailable` or `AuditUnavailable`.
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
        let refused = policy.permit(&principal, query.operation, target).err();
        let refused = refused.map(|refused| denied(refused, query.key, query.node.as_ref()).code());
        let visible = stored.as_ref().filter(|stored| may_see(&policy, &call.principal, stored)).map(|stored| &stored.record);
        let decision = AuthorizationDecision {
            permitted_by_policy: refused.is_none(),
            key_state: visible.map(|record| record.lifecycle.state()),
            code: refused.or_else(|| refused_by_state(query.operation, visible?)),
            grants: policy.grants_of(&principal.name).to_vec(),
            principal: principal.name.to_string(),
            operation: query.operation,
            policy_revision: policy.revision().to_string(),
        };
        Ok(Completed::read(permit, decision))
    }
}

/// Whether a caller may see a key: whether the policy permits any operation of theirs that shows or uses it.
pub(super) fn may_see(policy: &Policy, caller: &Principal, stored: &StoredKey) -> bool {
    const SHOWING: [Operation; 2] = [Operation::ShowKey, Operation::ExportKey];
    let target = || Target::Key(stored.record.attributes.id, &stored.record.attributes.node);
    SHOWING.into_iter().any(|operation| policy.permit(caller, operation, target()).is_ok())
}

/// The code with which the state of a key refuses an operation.
fn refused_by_state(operation: Operation, record: &KeyRecord) -> Option<Code> {
    let lifecycle = record.lifecycle;
    if operation == Operation::Sign && lifecycle.can_sign() && lifecycle.topology_only().is_some() {
        return Some(Code::TopologyOnly);
    }
    let transition = match operation {
        Operation::EnableKey => Some(Transition::Enable),
        Operation::DisableKey => Some(Transition::Disable),
        Operation::SupersedeKey => Some(Transition::Supersede),
        Operation::DeleteKey => Some(Transition::ScheduleDeletion),
        Operation::CancelDeletion => Some(Transition::CancelDeletion),
        _ => None,
    };
    if let Some(transition) = transition {
        if transition.is_irreversible() && record.attributes.class == Class::Permanent {
            return Some(Code::PermanentKey);
        }
        return lifecycle.after(transition).is_err().then_some(Code::InvalidKeyState);
    }
    if operation == Operation::RestrictSigning {
        return (lifecycle.state() != KeyState::Active).then_some(Code::InvalidKeyState);
    }
    let allowed = match operation {
        Operation::RenameKey => !lifecycle.is_destroyed(),
        Operation::ResealKey => !matches!(lifecycle.state(), KeyState::Quarantined | KeyState::Destroyed),
        Operation::Sign | Operation::SignTopology | Operation::Encrypt | Operation::RotateKey => lifecycle.can_sign(),
        Operation::Decrypt | Operation::ExportKey => lifecycle.can_decrypt(),
        _ => true,
    };
    (!allowed).then(|| VaultError::State(lifecycle.state()).code())
}
