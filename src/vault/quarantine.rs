//! The audit entry and the stored state of a quarantine, for keys and for wraps.

use crate::{
    domain::{AuditEvent, KeyId, NodeName, Operation},
    storage::{Change, KeyUpdate},
};

use super::audit_gate::AuditGate;

/// Commits the quarantine of a key or of a wrap with its entry. The entry has the KMS requests that showed the fault. A failure is logged
/// only: the check that failed fails again at the next use.
pub(super) async fn record_quarantine(gate: &AuditGate, id: KeyId, node: Option<NodeName>, change: Change, reason: &str) {
    let event = AuditEvent {
        key: Some(id),
        node,
        reason: Some(reason.to_owned()),
        change: match &change {
            Change::UpdateKey(KeyUpdate { to, .. }) | Change::SetAside { to, .. } => Some(*to),
            _ => None,
        },
        ..gate.system_event(Operation::Quarantine)
    };
    if let Err(error) = gate.record_change(change, event).await {
        tracing::error!(key = %id, reason, %error, "the quarantine could not be recorded; the check is repeated at the next use");
    }
}
