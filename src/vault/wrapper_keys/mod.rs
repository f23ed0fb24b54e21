//! Wrapper keys: registration, rotation, replication, retirement, and wrapping and unwrapping of data keys.

pub(in crate::vault) mod register;
pub(in crate::vault) mod replicate;
pub(in crate::vault) mod retire;
pub(in crate::vault) mod rewrap;
pub(in crate::vault) mod rotations;
pub(in crate::vault) mod show;
pub(in crate::vault) mod unwrap;
pub(in crate::vault) mod wrap_order;
