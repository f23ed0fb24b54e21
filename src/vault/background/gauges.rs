//! Gauges read from the store: keys by state, wraps by provider and state, the progress of the running job.

use crate::{
    domain::{Job, JobKind, KeyState, ProviderKind, WrapperState},
    storage::StoreError,
};

use super::Background;

impl Background {
    /// Sets the gauges. A gauge that cannot be read keeps its value.
    #[expect(clippy::cast_precision_loss, reason = "gauges do not need the precision")]
    pub(super) async fn read_gauges(&self) {
        if let Ok(counted) = self.env.store.keys_by_state().await {
            for state in KeyState::ALL {
                let keys = counted.iter().find(|(of, _)| of == state).map_or(0, |(_, keys)| *keys);
                metrics::gauge!("keyvault_keys", "state" => state.as_str()).set(keys as f64);
            }
        }
        if let Ok(counted) = self.env.store.wraps_by_state().await {
            for (provider, state) in
                ProviderKind::ALL.iter().flat_map(|provider| WrapperState::ALL.iter().map(move |state| (provider, state)))
            {
                let wraps = counted.iter().find(|(of, at, _)| (of, at) == (provider, state)).map_or(0, |(.., wraps)| *wraps);
                metrics::gauge!("keyvault_wraps", "provider" => provider.as_str(), "state" => state.as_str()).set(wraps as f64);
            }
        }
        if let Ok(running) = self.running_job_with_progress().await {
            for kind in JobKind::ALL {
                let (done, left, failed) = running
                    .iter()
                    .find(|job| job.work.kind() == *kind)
                    .map_or((0, 0, 0), |job| (job.done, job.total - job.done, job.failed));
                for (progress, keys) in [("done", done), ("left", left), ("failed", failed)] {
                    metrics::gauge!("keyvault_job_keys", "kind" => kind.as_str(), "progress" => progress).set(keys as f64);
                }
            }
        }
    }

    async fn running_job_with_progress(&self) -> Result<Option<Job>, StoreError> {
        let Some(running) = self.env.store.state().await?.running_job else { return Ok(None) };
        let mut job = self.env.store.job(running.id).await?;
        if let Some(job) = &mut job {
            self.job_tracker.complete(job);
        }
        Ok(job)
    }
}
