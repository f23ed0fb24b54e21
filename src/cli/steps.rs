//! The steps that ask for a confirmation: what each question says, and what the step does. The command line and the web page ask the same.

use crate::domain::{KeyId, Operation, WrapperKeyId};

/// A step that cannot be undone, or only for some time.
pub(super) struct Step {
    /// The operation, for which the vault can be asked whether it would refuse it.
    pub(super) operation: Operation,
    /// The question.
    pub(super) question: String,
    /// What the step does.
    pub(super) effect: String,
}

/// How many days a deletion waits by default.
pub(super) const DEFAULT_DAYS: u32 = 30;

/// A key signs no more.
pub(super) fn supersede(id: KeyId) -> Step {
    Step {
        operation: Operation::SupersedeKey,
        question: format!("Supersede the key {id}?"),
        effect: "The key never signs or encrypts again. It still decrypts. This cannot be undone. Its successor must be in use already."
            .into(),
    }
}

/// A key is destroyed after some days.
pub(super) fn delete(id: KeyId, days: u32) -> Step {
    Step {
        operation: Operation::DeleteKey,
        question: format!("Delete the key {id} in {days} days?"),
        effect: format!(
            "The vault refuses every use of the key from now on, and destroys it in {days} days. Until then `keys cancel-deletion` restores it. \
             Afterwards only a backup has it."
        ),
    }
}

/// A key that was imported by mistake is destroyed after some days.
pub(super) fn withdraw(id: KeyId, days: u32) -> Step {
    Step {
        operation: Operation::WithdrawKey,
        question: format!("Withdraw the key {id}, and destroy it in {days} days?"),
        effect: format!(
            "The key was imported and never used. The vault refuses every use of it from now on, and destroys it in {days} days. Until then `keys \
             cancel-deletion` restores it. Afterwards it can be imported again with --replace-destroyed."
        ),
    }
}

/// A wrapper key wraps no more.
pub(super) fn retire(id: WrapperKeyId) -> Step {
    Step {
        operation: Operation::RetireWrapperKey,
        question: format!("Retire the wrapper key {id}?"),
        effect: "The wraps under this wrapper key are deleted from the store. It never wraps again, and no rotation leads back to it. \
            This cannot be undone. The key in the KMS stays: older backups open only while it exists."
            .into(),
    }
}
