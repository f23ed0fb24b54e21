//! Key operations: one file for each operation. `KeyLifecycle` holds what callers and background tasks share.

mod create;
mod decrypt;
mod disable;
mod encrypt;
mod export;
mod import;
mod lifecycle;
mod list;
mod new_key;
mod rename;
mod reseal;
mod rotate_key;
mod sign;
mod sign_topology;
mod transition;
mod use_key;
mod verify;
mod verify_backup;
mod withdraw;

use std::sync::Arc;

use super::{audit_gate::AuditGate, environment::Environment, key_cache::KeyCache, wrapper_keys::WrapperKeys};

pub use self::{
    create::NewKey,
    export::{ExportKey, ExportedKey},
    import::{ImportKey, ImportedKey, MaterialFormat},
    lifecycle::DELETION_DAYS,
    list::KeyQuery,
    sign::{BatchMessage, Signature},
    sign_topology::{MAX_TRANSACTIONS, TopologySigned},
    verify::VerifiedKey,
    verify_backup::{BackupKeyResult, VerifiedBackupKey},
};

pub(super) use self::lifecycle::check_step;

/// Changes of the state and of the sealed form of stored keys. It has no access to the limits of callers.
pub(super) struct KeyLifecycle {
    env: Arc<Environment>,
    gate: Arc<AuditGate>,
    wrapper_keys: Arc<WrapperKeys>,
    key_cache: Arc<KeyCache>,
}

impl KeyLifecycle {
    pub(super) fn new(env: Arc<Environment>, gate: Arc<AuditGate>, wrapper_keys: Arc<WrapperKeys>, key_cache: Arc<KeyCache>) -> Self {
        Self { env, gate, wrapper_keys, key_cache }
    }
}
