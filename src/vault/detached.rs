//! Calls that change state run in a task of their own: they complete whatever happens to the caller, and the vault waits for them when it
//! stops.

use std::{future::Future, sync::Arc};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{Vault, VaultError};

tokio::task_local! {
    /// Notified when the commit of the call takes longer than its caller should wait.
    static SLOW_COMMIT: Arc<Notify>;
}

/// The running calls that change state.
#[derive(Debug, Default)]
pub(super) struct DetachedCalls(TaskTracker);

impl DetachedCalls {
    /// Runs a part of a call in a task of its own.
    pub(super) fn spawn<F>(&self, part: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(part.in_current_span())
    }

    /// Waits for the running calls, and for those that start meanwhile.
    pub(super) async fn wait(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl Vault {
    /// Runs a call that changes state in a task of its own. If the caller is dropped, the call runs to completion. A panic of the call continues
    /// in the caller.
    ///
    /// # Errors
    /// `OutcomeUnknown` as soon as the commit of the call takes longer than [`crate::storage::KeyStore::commit_timeout`]. The call goes on, and
    /// memory follows the store when the outcome is known. `Internal` if the runtime stops.
    pub async fn detached<F>(&self, call: F) -> Result<F::Output, VaultError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slow = Arc::new(Notify::new());
        let mut task = self.detached_calls.spawn(SLOW_COMMIT.scope(Arc::clone(&slow), call));
        let joined = tokio::select! {
            biased;
            joined = &mut task => joined,
            () = slow.notified() => return Err(VaultError::OutcomeUnknown),
        };
        joined.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => VaultError::Internal("a task was cancelled"),
        })
    }
}

/// Lets the caller of the running call go, because its commit takes too long. Without a caller, this does nothing.
pub(super) fn commit_is_slow() {
    let _ = SLOW_COMMIT.try_with(|slow| slow.notify_one());
}
