//! The pages. A page only reads: each part makes one request to the vault, and a list shows one page of it.

pub(super) mod access;
pub(super) mod audit;
pub(super) mod charts;
pub(super) mod health;
pub(super) mod jobs;
pub(super) mod keys;
pub(super) mod wrapper_keys;

/// Rows of a list on one page.
const ROWS: u32 = 50;
