//! Calls that change state run in a task of their own: they complete whatever happens to the caller, and the vault waits for them when it
//! stops.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::task::TaskTracker;

use super::{Vault, VaultError, call_fields::CallFields};
use crate::{domain::AuditEvent, traces};

tokio::task_local! {
    /// Notified when the commit of the call takes longer than its caller should wait.
    static SLOW_COMMIT: Arc<Notify>;
    /// The newest change that the call committed, if its answer depends on audit sinks.
    static COMMITTED: Arc<Mutex<Option<CommittedChange>>>;
}

/// A change whose entry required audit sinks must confirm before the answer leaves.
struct CommittedChange {
    sequence: u64,
    event: Box<AuditEvent>,
}

/// The running calls that change state.
#[derive(Debug, Default)]
pub(super) struct DetachedCalls(TaskTracker);

impl DetachedCalls {
    /// Runs a part of a call in a task of its own. Its log lines have the fields of the call, and its spans are in the trace of the call.
    pub(super) fn spawn<F>(&self, part: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let part = traces::carry(part);
        match CallFields::current() {
            Some(call) => self.0.spawn(call.scope(part)),
            None => self.0.spawn(part),
        }
    }

    /// Waits for the running calls, and for those that start meanwhile.
    pub(super) async fn wait(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl Vault {
    /// Runs a call that changes no state, in the task of its caller. Its KMS calls are in its entry.
    pub fn attached<F: Future>(&self, call: F) -> impl Future<Output = F::Output> {
        self.env.kms_calls.operation(call)
    }

    /// Runs a call that changes state in a task of its own. If the caller is dropped, the call runs to completion. A panic of the call continues
    /// in the caller.
    ///
    /// # Errors
    /// `OutcomeUnknown` as soon as the commit of the call takes longer than [`crate::storage::KeyStore::commit_timeout`]. The call goes on, and
    /// memory follows the store when the outcome is known. `ChangeUnconfirmed` if a required audit sink does not confirm the entry in time; memory
    /// follows the store before. `Internal` if the runtime stops.
    pub async fn detached<F>(&self, call: F) -> Result<F::Output, VaultError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slow = Arc::new(Notify::new());
        let committed = Arc::new(Mutex::new(None));
        let kms_calls = Arc::clone(&self.env.kms_calls);
        let call = async move { kms_calls.operation(call).await };
        let mut task = self.detached_calls.spawn(COMMITTED.scope(Arc::clone(&committed), SLOW_COMMIT.scope(Arc::clone(&slow), call)));
        let joined = tokio::select! {
            biased;
            joined = &mut task => joined,
            () = slow.notified() => return Err(VaultError::OutcomeUnknown),
        };
        let answer = joined.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => VaultError::Internal("a task was cancelled"),
        })?;
        let committed = committed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(CommittedChange { sequence, event }) = committed {
            self.gate.confirm(sequence, *event, true).await?;
        }
        Ok(answer)
    }
}

/// Leaves the confirmation of a change by the audit sinks to the end of the running call, when memory follows the store. Gives the event back if there
/// is no such call.
pub(super) fn confirm_at_end(sequence: u64, event: Box<AuditEvent>) -> Option<Box<AuditEvent>> {
    let mut event = Some(event);
    let _ = COMMITTED.try_with(|committed| {
        let change = event.take().map(|event| CommittedChange { sequence, event });
        *committed.lock().unwrap_or_else(PoisonError::into_inner) = change;
    });
    event
}

/// Lets the caller of the running call go, because its commit takes too long. Without a caller, this does nothing.
pub(super) fn commit_is_slow() {
    let _ = SLOW_COMMIT.try_with(|slow| slow.notify_one());
}
