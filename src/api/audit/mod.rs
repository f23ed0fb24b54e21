//! `/v1/audit`: the log of every call, and what proves that it was not changed.

pub(super) mod access;
pub(super) mod checkpoints;
pub(super) mod entries;
mod filters;
pub(super) mod removals;
pub(super) mod summary;
pub(super) mod tiles;
