//! Recovery by itself: a vault that started without its KMS registers its first wrapper key late, and one that lost it looks again.

use std::sync::atomic::Ordering;

use crate::{domain::WrapperState, vault::Vault};

/// While the wrapper is down it is asked every so many seconds.
const EVERY: u64 = 3;

impl Vault {
    /// Asks the active wrapper key at the start, and again while it is down; a healthy one is not bothered.
    pub(in crate::vault) async fn probe_wrapper(&self) {
        let (tick, missing) = (self.ticks.fetch_add(1, Ordering::Relaxed), self.known_active().is_none());
        let wanted = tick == 0 || missing || self.health.wrapper_fault().is_some();
        if !(wanted && tick.is_multiple_of(EVERY)) {
            return;
        }
        if missing {
            match self.bootstrap().await {
                Ok(()) => tracing::info!("the first wrapper key is registered"),
                Err(error) => tracing::warn!(%error, "there is no wrapper key yet; this is tried again"),
            }
        } else if let Ok(keys) = self.wrapper_keys().await
            && let Some(active) = keys.iter().find(|key| key.state == WrapperState::Active)
        {
            self.probe(active).await;
        }
    }
}
