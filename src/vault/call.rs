//! One call as the vault sees it: who, with which ids, and the event that it will become.

use crate::domain::{AuditEvent, Operation, Principal};

use super::Vault;

/// Who calls, and what a caller said about the call itself.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The authenticated caller.
    pub principal: Principal,
    /// Our id of the call.
    pub request_id: String,
    /// W3C trace id, 32 hex digits.
    pub trace_id: Option<String>,
    /// The caller's `Idempotency-Key`, on calls that create.
    pub idempotency_key: Option<String>,
}

impl Vault {
    /// The event of a call, to be filled in while it is worked on.
    pub(super) fn event(&self, call: &CallContext, operation: Operation) -> AuditEvent {
        let revision = self.policy().revision().to_string();
        AuditEvent {
            request_id: Some(call.request_id.clone()),
            trace_id: call.trace_id.clone(),
            ..AuditEvent::new((self.clock)(), call.principal.clone(), operation, revision)
        }
    }

    /// The event of something that the vault does by itself.
    pub(super) fn system_event(&self, operation: Operation) -> AuditEvent {
        AuditEvent::new((self.clock)(), Principal::system(), operation, self.policy().revision().to_string())
    }
}
