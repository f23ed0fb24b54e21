//! The audit gate: a permit before each operation, and a durable audit entry before each result.
//!
//! | file | guarantees |
//! |---|---|
//! | `authorization` | A call of a principal gets its permit here, from `domain::Policy`. |
//! | `change_log` | State changes that an operator follows have a log line. |
//! | `commit` | A result leaves the vault only after its audit entry is durable. |
//! | `idempotency` | A repeated request with the same `Idempotency-Key` creates nothing twice. |
//! | `kms_calls` | Every call of the KMS is in an entry: that of its operation, or one of loose calls. |
//! | `refusal_throttle` | One principal cannot flood the audit log with refusals. |
//! | `refused_clients` | Clients that are not admitted cannot flood it either. |
//! | `repeated_reads` | A program that follows the log writes one entry each minute, not one for each tile. |
//! | `pending_audit` | A disable or freeze takes effect while the audit log is unavailable, and is recorded later. |

mod authorization;
mod change_log;
mod commit;
mod idempotency;
mod kms_calls;
mod pending_audit;
mod refusal_throttle;
mod refused_clients;
mod repeated_reads;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use metrics::Histogram;
use tokio::sync::{Mutex, MutexGuard};

use crate::domain::{AuditEvent, Operation, Policy, Principal};

use self::{refusal_throttle::RefusalThrottle, refused_clients::RefusedClients, repeated_reads::RepeatedReads};
use super::{CallContext, VaultError, environment::Environment, sink_states::SinkStates};

pub(super) use self::{
    authorization::PermittedKey,
    commit::Completed,
    pending_audit::{PendingAudit, PendingEntry},
};
pub use self::{commit::AuditedResult, refused_clients::ClientRefusal};

/// Authorizes operations and commits their results. The only part of the vault that writes to the store.
pub(super) struct AuditGate {
    env: Arc<Environment>,
    /// Replaced when the configuration is reloaded.
    policy: Arc<ArcSwap<Policy>>,
    refusal_throttle: RefusalThrottle,
    refused_clients: RefusedClients,
    repeated_reads: RepeatedReads,
    pending_audit: PendingAudit,
    sinks: Arc<SinkStates>,
    /// Key of the keyed hashes of request bodies, from the store.
    idempotency_hash_key: [u8; 32],
    frozen: AtomicBool,
    /// Held while a freeze or unfreeze is committed, so that memory and store agree on the last one.
    freeze_lock: Mutex<()>,
    stopping: AtomicBool,
    /// Whether the last commit could not be made durable.
    audit_failing: AtomicBool,
    commit_seconds: Histogram,
}

impl AuditGate {
    /// A gate over the store of `env`. `frozen` and `idempotency_hash_key` are what the store says at start.
    pub(super) fn new(
        env: Arc<Environment>,
        policy: Arc<ArcSwap<Policy>>,
        refusals_per_second: u32,
        frozen: bool,
        idempotency_hash_key: [u8; 32],
        sinks: Arc<SinkStates>,
    ) -> Self {
        Self {
            env,
            policy,
            refusal_throttle: RefusalThrottle::new(refusals_per_second),
            refused_clients: RefusedClients::default(),
            repeated_reads: RepeatedReads::default(),
            pending_audit: PendingAudit::default(),
            sinks,
            idempotency_hash_key,
            frozen: AtomicBool::new(frozen),
            freeze_lock: Mutex::default(),
            stopping: AtomicBool::new(false),
            audit_failing: AtomicBool::new(false),
            commit_seconds: metrics::histogram!("keyvault_audit_commit_seconds"),
        }
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The event of a call, to be completed while the call is processed.
    pub(super) fn event(&self, call: &CallContext, operation: Operation) -> AuditEvent {
        let revision = Arc::clone(self.policy.load().revision());
        AuditEvent {
            request_id: Some(Arc::clone(&call.request_id)),
            client: call.client.clone(),
            trace_id: call.trace_id.clone(),
            ..AuditEvent::new(self.env.now(), call.principal.clone(), operation, revision)
        }
    }

    /// The event of an operation that the vault performs without a caller.
    pub(super) fn system_event(&self, operation: Operation) -> AuditEvent {
        AuditEvent::new(self.env.now(), Principal::system(), operation, Arc::clone(self.policy.load().revision()))
    }

    /// Refuses operations that use keys while the vault is frozen or stopping.
    ///
    /// # Errors
    /// `ShuttingDown` or `Frozen`.
    pub(super) fn in_service(&self) -> Result<(), VaultError> {
        self.not_stopping()?;
        if self.frozen() { Err(VaultError::Frozen) } else { Ok(()) }
    }

    /// Refuses operations that use no key only while the vault is stopping. A freeze does not stop them, because the response to an incident
    /// needs them.
    ///
    /// # Errors
    /// `ShuttingDown`.
    pub(super) fn not_stopping(&self) -> Result<(), VaultError> {
        if self.stopping() { Err(VaultError::ShuttingDown) } else { Ok(()) }
    }

    /// Whether the vault is frozen.
    pub(super) fn frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// Sets the freeze in memory. The caller commits it.
    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// Serializes the commits of freezes and unfreezes.
    pub(super) async fn lock_freeze(&self) -> MutexGuard<'_, ()> {
        self.freeze_lock.lock().await
    }

    /// Refuses all calls from now on. Calls in progress are completed.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the vault is stopping.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The states of the audit sinks.
    pub(super) fn sinks(&self) -> &SinkStates {
        &self.sinks
    }

    /// Whether the last commit could not be made durable.
    pub(super) fn audit_failing(&self) -> bool {
        self.audit_failing.load(Ordering::Relaxed)
    }

    /// The changes that are in force but not yet in the audit log.
    pub(super) const fn pending_audit(&self) -> &PendingAudit {
        &self.pending_audit
    }
}
