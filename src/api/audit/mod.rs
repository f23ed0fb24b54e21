//! `/v1/audit`: the log of every call, and what proves that it was not changed.

pub(super) mod access;
pub(super) mod checkpoints;
pub(super) mod entries;
pub(super) mod tiles;
mod filters;
pub(super) mod summary;
