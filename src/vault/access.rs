//! What a principal may do, told without doing it: `whoami`, `authorize`, `status`.

use std::sync::Arc;

use crate::domain::{AuditEvent, Grant, KeyId, NodeName, Operation, Principal, Target, WrapperKeyId, WrapperState};

use super::{AuditedResult, CallContext, Code, Vault, VaultError, audit_gate::commit::Completed, error::denied};

/// A caller, as the vault knows it.
#[derive(Debug)]
pub struct Whoami {
    /// The caller.
    pub principal: Principal,
    /// Its grants.
    pub grants: Vec<Grant>,
    /// The revision of the policy.
    pub policy_revision: String,
}

/// A question about a decision.
#[derive(Debug)]
pub struct AuthorizationQuery {
    /// About whom; the caller if not stated.
    pub principal: Option<String>,
    /// To do what.
    pub operation: Operation,
    /// With which key.
    pub key: Option<KeyId>,
    /// On which node.
    pub node: Option<NodeName>,
}

/// A decision, explained.
#[derive(Debug)]
pub struct AuthorizationDecision {
    /// About whom.
    pub principal: String,
    /// To do what.
    pub operation: Operation,
    /// Whether the gate would let it pass.
    pub allowed: bool,
    /// The code it would be refused with, by the gate or by the key's state.
    pub code: Option<Code>,
    /// The grants of the principal that were looked at.
    pub grants: Vec<Grant>,
    /// The revision of the policy.
    pub policy_revision: String,
}

/// How the vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether any use of a key can succeed.
    pub ready: bool,
    /// Whether something is wrong all the same.
    pub degraded: bool,
    /// What is wrong.
    pub reasons: Vec<Code>,
    /// The program's version.
    pub version: String,
    /// The schema's version.
    pub schema: u32,
    /// The revision of the policy.
    pub policy_revision: String,
    /// The wrapper key for new keys.
    pub active_wrapper: Option<WrapperKeyId>,
}

impl Vault {
    /// Tells a caller who it is and what it was granted.
    ///
    /// # Errors
    /// The log's.
    pub async fn whoami(self: &Arc<Self>, call: &CallContext) -> Result<AuditedResult<Whoami>, VaultError> {
        let event = self.event(call, Operation::Whoami);
        let policy = self.policy();
        let done = self.permit_vault(&event).map(|permit| {
            let grants = policy.grants_of(&call.principal.name).to_vec();
            Completed::read(permit, Whoami { principal: call.principal.clone(), grants, policy_revision: policy.revision().to_string() })
        });
        self.conclude(event, done).await
    }

    /// Explains a decision about oneself; auditors may ask about others.
    ///
    /// # Errors
    /// The gate's, for a question about others; the store's or the log's.
    pub async fn authorize(
        self: &Arc<Self>,
        call: &CallContext,
        question: AuthorizationQuery,
    ) -> Result<AuditedResult<AuthorizationDecision>, VaultError> {
        let about_other = question.principal.as_deref().is_some_and(|name| name != call.principal.name.as_ref());
        let operation = if about_other { Operation::AuthorizeOther } else { Operation::Authorize };
        let event = AuditEvent {
            key: question.key,
            subject: Some(format!("{} by {}", question.operation, question.principal.as_deref().unwrap_or(&call.principal.name))),
            ..self.event(call, operation)
        };
        let done = self.try_authorize(&event, call, question).await;
        self.conclude(event, done).await
    }

    async fn try_authorize(
        &self,
        event: &AuditEvent,
        call: &CallContext,
        question: AuthorizationQuery,
    ) -> Result<Completed<AuthorizationDecision>, VaultError> {
        let permit = self.permit_vault(event)?;
        let policy = self.policy();
        let principal =
            question.principal.map_or_else(|| call.principal.clone(), |name| Principal { name: name.into(), certificate: None });
        let stored = match question.key {
            Some(id) => self.store.key(id).await?,
            None => None,
        };
        let target = match (question.key, &stored, &question.node) {
            (Some(id), Some(stored), _) => Target::Key(id, &stored.record.attributes.node),
            (Some(id), None, _) => Target::UnknownKey(id),
            (None, _, Some(node)) => Target::Node(node),
            (None, _, None) => Target::Vault,
        };
        let by_gate = policy.permit(&principal, question.operation, target).err();
        let by_gate = by_gate.map(|refused| denied(refused, question.key, question.node.as_ref()).code());
        let by_state = || {
            let lifecycle = stored.as_ref().filter(|_| Self::opens_keys(question.operation))?.record.lifecycle;
            let reads = matches!(question.operation, Operation::Decrypt | Operation::ExportKey) && lifecycle.can_decrypt();
            (!reads && !lifecycle.can_sign()).then(|| VaultError::State(lifecycle.state()).code())
        };
        let decision = AuthorizationDecision {
            allowed: by_gate.is_none(),
            code: by_gate.or_else(by_state),
            grants: policy.grants_of(&principal.name).to_vec(),
            principal: principal.name.to_string(),
            operation: question.operation,
            policy_revision: policy.revision().to_string(),
        };
        Ok(Completed::read(permit, decision))
    }

    /// Tells how the vault is, to any principal.
    ///
    /// # Errors
    /// The log's.
    pub async fn show_status(self: &Arc<Self>, call: &CallContext) -> Result<AuditedResult<Status>, VaultError> {
        let event = self.event(call, Operation::Status);
        let done = self.permit_vault(&event).map(|permit| Completed::read(permit, self.status()));
        self.conclude(event, done).await
    }

    /// How the vault is, from what it knows already: asks neither KMS nor disk.
    pub fn status(&self) -> Status {
        let (faults, wrapper_down) = self.wrapper_faults();
        let reasons: Vec<Code> = [
            self.health.stopping().then_some(Code::ShuttingDown),
            self.health.audit_failing().then_some(Code::AuditUnavailable),
            self.frozen().then_some(Code::Frozen),
        ]
        .into_iter()
        .flatten()
        .chain(faults)
        .collect();
        // A KMS that is away leaves the keys in memory; a frozen vault must stay reachable for its unfreeze.
        let useless = self.health.stopping() || self.health.audit_failing() || (wrapper_down && self.cache.len() == 0);
        Status {
            ready: !useless,
            degraded: !reasons.is_empty(),
            reasons,
            version: self.version.clone(),
            schema: self.store.schema(),
            policy_revision: self.policy().revision().to_string(),
            active_wrapper: self.known_active(),
        }
    }
    /// What is wrong with the wrapper keys in use, each code once; and whether none of them can be used, as far as is known.
    fn wrapper_faults(&self) -> (Vec<Code>, bool) {
        let keys = Arc::clone(&self.wrapper_keys.load().1);
        let in_use = || keys.iter().filter(|key| key.state != WrapperState::Retired);
        let all_down = in_use().all(|key| self.health.wrapper_fault(key.id).is_some());
        let mut codes = Vec::new();
        for fault in in_use().filter_map(|key| self.health.wrapper_fault(key.id)) {
            let code = VaultError::Wrapper(fault).code();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        if codes.is_empty() && self.known_active().is_none() {
            codes.push(self.no_wrapper_key().code());
        }
        (codes, all_down)
    }
}
