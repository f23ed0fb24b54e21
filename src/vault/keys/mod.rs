//! Key operations: one file for each operation on keys.

pub(in crate::vault) mod create;
pub(in crate::vault) mod decrypt;
pub(in crate::vault) mod disable;
pub(in crate::vault) mod encrypt;
pub(in crate::vault) mod export;
pub(in crate::vault) mod import;
pub(in crate::vault) mod lifecycle;
pub(in crate::vault) mod new_key;
pub(in crate::vault) mod queries;
pub(in crate::vault) mod reseal;
pub(in crate::vault) mod rotate_key;
pub(in crate::vault) mod sign;
pub(in crate::vault) mod use_key;
pub(in crate::vault) mod verify_backup;
