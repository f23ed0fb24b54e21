//! What is measured by looking: keys by state, free disk.

use crate::{domain::KeyState, vault::Vault};

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
        if let Some(free) = self.store.free_disk() {
            metrics::gauge!("keyvault_free_disk_bytes").set(free as f64);
        }
    }
}
