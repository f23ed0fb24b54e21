//! One log line for each state change that an operator follows, when its entry is durable. The audit log has every call.

use tracing::{Level, field::display};

use crate::{
    domain::{AuditEvent, Operation, Outcome},
    storage::Commit,
};

/// The state changes, each with the level and the message of its line. A change that withdraws something is a warning.
const CHANGES: &[(Operation, Level, &str)] = &[
    (Operation::ImportKey, Level::INFO, "a key was imported"),
    // Changes nothing in the store, but from here on the key exists outside the vault too.
    (Operation::ExportKey, Level::WARN, "a key was exported"),
    (Operation::RotateKey, Level::INFO, "a key was rotated"),
    (Operation::SupersedeKey, Level::INFO, "a key was superseded"),
    (Operation::EnableKey, Level::INFO, "a key was enabled"),
    (Operation::DisableKey, Level::WARN, "a key was disabled"),
    (Operation::RestrictSigning, Level::INFO, "the signing restriction of a key was changed"),
    (Operation::Quarantine, Level::ERROR, "quarantined"),
    (Operation::DeleteKey, Level::WARN, "the deletion of a key was scheduled"),
    (Operation::WithdrawKey, Level::WARN, "the withdrawal of a key was scheduled"),
    (Operation::RenameKey, Level::INFO, "a key was renamed"),
    (Operation::CancelDeletion, Level::INFO, "the deletion of a key was cancelled"),
    (Operation::DestroyKey, Level::WARN, "a key was destroyed"),
    (Operation::BootstrapWrapperKey, Level::INFO, "the first wrapper key is registered"),
    (Operation::AddWrapperKey, Level::INFO, "a wrapper key was registered"),
    (Operation::ReplicateWrapperKey, Level::INFO, "a wrapper key got a replica"),
    (Operation::RenameWrapperKey, Level::INFO, "a wrapper key was renamed"),
    (Operation::RetireWrapperKey, Level::WARN, "a wrapper key was retired"),
    (Operation::StartRotation, Level::INFO, "a rotation started; its target is the active wrapper key from now on"),
    (Operation::AbortRotation, Level::WARN, "a rotation was aborted"),
    (Operation::StartReseal, Level::INFO, "a re-seal of all keys started"),
    (Operation::AbortReseal, Level::WARN, "a re-seal of all keys was aborted"),
    (Operation::RotateCheckpointKey, Level::WARN, "the key that signs checkpoints of the audit log was rotated"),
    (Operation::RemoveEntries, Level::WARN, "archived entries of the audit log are removed"),
    (Operation::Freeze, Level::WARN, "the vault is frozen"),
    (Operation::Unfreeze, Level::WARN, "the vault is no longer frozen"),
];

/// The line of a change, to be written when the change is durable. It says what the entry says.
pub(super) struct ChangeLine {
    level: Level,
    message: &'static str,
    event: Box<AuditEvent>,
}

impl ChangeLine {
    /// The line of a commit. `None` if the commit changes nothing that has a line.
    pub(super) fn of(commit: &Commit) -> Option<Self> {
        let event = &commit.event;
        if event.outcome != Outcome::Ok || (commit.change.is_none() && event.operation != Operation::ExportKey) {
            return None;
        }
        let (_, level, message) = CHANGES.iter().find(|(operation, ..)| *operation == event.operation)?;
        Some(Self { level: *level, message, event: Box::new(event.clone()) })
    }

    /// Writes the line.
    pub(super) fn write(self, sequence: u64) {
        let Self { level, message, event } = self;
        let AuditEvent { operation, key, node, subject, reason, principal, request_id, .. } = &*event;
        let (operation, principal, request_id) = (operation.as_str(), &*principal.name, request_id.as_deref());
        let (key, node) = (key.as_ref().map(display), node.as_ref().map(display));
        let (subject, reason) = (subject.as_deref(), reason.as_deref());
        // The level of an event is part of its place in the code.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(operation, key, node, subject, reason, principal, request_id, sequence, "{message}")
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            _ => line!(info),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// New keys and single re-seals are everyday work of nodes; the end of a job has a line of its own.
    const WITHOUT_LINE: [Operation; 3] = [Operation::CreateKey, Operation::CreateExportableKey, Operation::ResealKey];

    #[test]
    fn every_call_that_changes_state_has_one_line() {
        for operation in Operation::ALL.iter().filter(|operation| operation.changes_state()) {
            let lines = CHANGES.iter().filter(|(of, ..)| of == operation).count();
            assert_eq!(lines, usize::from(!WITHOUT_LINE.contains(operation)), "{operation}");
        }
    }
}
