//! What the writer shares with readers: the verified state and the end of the durable log of this instance.

use std::sync::{
    Arc, RwLock as SyncRwLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{RwLock, watch};

use crate::{audit::merkle::Frontier, storage::VerifiedState};

/// The end of the durable log of this instance.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeHead {
    /// The right edge of the tree.
    pub(super) frontier: Frontier,
    /// The number of the newest state change.
    pub(super) state_revision: u64,
    /// Its leaf hash.
    pub(super) state_head: [u8; 32],
}

/// What the writer shares with readers. The log is extended by the writer task only; the state also by what is read of other processes.
#[derive(Clone)]
pub(super) struct Shared {
    /// The verified state, extended by each durable state change.
    pub(super) state: Arc<RwLock<VerifiedState>>,
    /// The end of the durable log.
    pub(super) tree_head: Arc<SyncRwLock<TreeHead>>,
    /// The number of the newest state change.
    pub(super) revision: Arc<AtomicU64>,
    /// The entries up to this one may be removed.
    pub(super) removed_through: Arc<AtomicU64>,
    /// The number of the newest state change, for those that wait for one.
    pub(super) changes: Arc<watch::Sender<u64>>,
}

impl Shared {
    /// Makes an extended state known. The caller has the lock of the state.
    pub(super) fn publish(&self, state: &VerifiedState) {
        self.removed_through.store(state.removed_through, Ordering::Release);
        self.revision.fetch_max(state.revision, Ordering::AcqRel);
        self.changes.send_if_modified(|known| {
            let newer = state.revision > *known;
            *known = state.revision.max(*known);
            newer
        });
    }
}
