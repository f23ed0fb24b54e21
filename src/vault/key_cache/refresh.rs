//! Refresh of cached keys: one attempt at a time for each key, and a backoff after a failure.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::KeyId;

/// The refreshes in progress and the backoffs, by key.
#[derive(Clone, Default)]
pub(super) struct RefreshState(Arc<Mutex<HashMap<KeyId, KeyRefresh>>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyRefresh {
    InProgress,
    /// The time of the next attempt. Without a backoff, each use of a key would call a KMS that does not answer.
    NotBefore(Instant),
}

/// The right to refresh one key. If it is dropped without [`RefreshAttempt::succeeded`], the next attempt waits for the backoff.
pub(super) struct RefreshAttempt {
    state: RefreshState,
    id: KeyId,
    backoff: Duration,
}

impl RefreshState {
    /// The right to refresh a key. `None` if a refresh is in progress or the last one failed within its backoff.
    pub(super) fn begin(&self, id: KeyId, backoff: Duration) -> Option<RefreshAttempt> {
        let mut keys = self.lock();
        match keys.get(&id) {
            Some(KeyRefresh::InProgress) => return None,
            Some(KeyRefresh::NotBefore(time)) if Instant::now() < *time => return None,
            _ => {}
        }
        keys.retain(|_, refresh| !matches!(refresh, KeyRefresh::NotBefore(time) if Instant::now() >= *time));
        keys.insert(id, KeyRefresh::InProgress);
        Some(RefreshAttempt { state: self.clone(), id, backoff })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, KeyRefresh>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefreshAttempt {
    /// The key was opened again.
    pub(super) fn succeeded(mut self) {
        self.backoff = Duration::ZERO;
    }
}

impl Drop for RefreshAttempt {
    fn drop(&mut self) {
        let mut keys = self.state.lock();
        if self.backoff.is_zero() {
            keys.remove(&self.id);
        } else {
            keys.insert(self.id, KeyRefresh::NotBefore(Instant::now() + self.backoff));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId::Symmetric([1; 16]);

    #[test]
    fn one_attempt_at_a_time_and_a_backoff_after_a_failure() {
        let (state, hour) = (RefreshState::default(), Duration::from_hours(1));
        let attempt = state.begin(KEY, hour).unwrap();
        assert!(state.begin(KEY, hour).is_none());
        attempt.succeeded();
        drop(state.begin(KEY, hour).unwrap());
        assert!(state.begin(KEY, hour).is_none(), "the last attempt failed");
        assert!(state.begin(KeyId::Symmetric([2; 16]), hour).is_some(), "other keys are not affected");
    }
}
