//! What is measured by looking: keys by state, wraps by what holds them, how far a job is, free disk.

use crate::{
    domain::{Job, JobKind, KeyState, ProviderKind, WrapperState},
    storage::StoreError,
    vault::Vault,
};

impl Vault {
    /// Sets the gauges that no call sets.
    #[expect(clippy::cast_precision_loss, reason = "gauges for people")]
    pub(in crate::vault) async fn read_gauges(&self) {
        if let Ok(counted) = self.store.keys_by_state().await {
            for state in KeyState::ALL {
                let keys = counted.iter().find(|(of, _)| of == state).map_or(0, |(_, keys)| *keys);
                metrics::gauge!("keyvault_keys", "state" => state.as_str()).set(keys as f64);
            }
        }
        if let Ok(counted) = self.store.wraps_by_state().await {
            for (provider, state) in
                ProviderKind::ALL.iter().flat_map(|provider| WrapperState::ALL.iter().map(move |state| (provider, state)))
            {
                let wraps = counted.iter().find(|(of, at, _)| (of, at) == (provider, state)).map_or(0, |(.., wraps)| *wraps);
                metrics::gauge!("keyvault_wraps", "provider" => provider.as_str(), "state" => state.as_str()).set(wraps as f64);
            }
        }
        if let Ok(running) = self.running_with_numbers().await {
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
        if let Some(free) = self.store.free_disk() {
            metrics::gauge!("keyvault_free_disk_bytes").set(free as f64);
        }
    }

    async fn running_with_numbers(&self) -> Result<Option<Job>, StoreError> {
        let Some(running) = self.store.running_job().await? else { return Ok(None) };
        let mut job = self.store.job(running.id).await?;
        if let Some(job) = &mut job {
            self.progress.fill_in(job);
        }
        Ok(job)
    }
}
