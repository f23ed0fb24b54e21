//! Follows the changes that other replicas make in a shared store: a freeze, keys that changed, jobs that began or ended.

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Job, WrapperKey},
    storage::{Lease, StoreError},
};

use super::Background;

/// What wakes the background tasks when it changes.
type Work = (Option<Job>, Vec<WrapperKey>);

impl Background {
    /// Whether this process runs a background task now. Always, if the store belongs to one process.
    pub(super) async fn holds(&self, lease: Lease) -> bool {
        match self.env.store.replication() {
            None => true,
            Some(replication) => replication.holds(lease).await,
        }
    }

    /// Takes over each change, until `stop` is cancelled. A change that cannot be read now is taken over with the next one, and the commit of every
    /// use compares the state of its key in any case.
    pub(super) async fn follow_replicas(self, stop: CancellationToken) {
        let Some(replication) = self.env.store.replication() else { return };
        let (mut changes, mut known) = (replication.changes(), None);
        while matches!(stop.run_until_cancelled(changes.changed()).await, Some(Ok(()))) {
            changes.mark_unchanged();
            if let Err(error) = self.take_over(&mut known).await {
                tracing::warn!(%error, "a change by another replica cannot be read yet");
            }
        }
    }

    async fn take_over(&self, known: &mut Option<Work>) -> Result<(), StoreError> {
        self.take_over_freeze().await?;
        self.key_cache.evict_changed().await;
        let work = (self.env.store.state().await?.running_job, self.env.store.wrapper_keys().await?);
        if known.replace(work.clone()).is_none_or(|before| before != work) {
            self.job_tracker.wake();
        }
        Ok(())
    }

    async fn take_over_freeze(&self) -> Result<(), StoreError> {
        // A freeze or unfreeze of this process is committed or given up first.
        let _lock = self.gate.lock_freeze().await;
        let frozen = self.env.store.state().await?.frozen;
        if frozen == self.gate.frozen() || self.gate.pending_audit().has_freeze() {
            return Ok(());
        }
        self.gate.set_frozen(frozen);
        if frozen {
            self.key_cache.evict_all().await;
            tracing::warn!("the vault was frozen through another replica");
        } else {
            tracing::info!("the freeze was ended through another replica");
        }
        Ok(())
    }
}
