//! Which keys are being opened anew right now, one at a time for each, and which were tried in vain a moment ago.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::KeyId;

#[derive(Clone, Default)]
pub(in crate::vault) struct RefreshState(Arc<Mutex<HashMap<KeyId, RefreshTurn>>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum RefreshTurn {
    UnderWay,
    /// Not before then: a hot key under a dead KMS would otherwise be tried with every use.
    NotBefore(Instant),
}

/// The turn of whoever opens a key anew. Dropped without [`RefreshAttempt::succeeded`], the next one has to wait.
pub(in crate::vault) struct RefreshAttempt {
    all: RefreshState,
    id: KeyId,
    pause: Duration,
}

impl RefreshState {
    /// The turn, if nobody has it and no attempt failed within its `pause`.
    pub(in crate::vault) fn begin(&self, id: KeyId, pause: Duration) -> Option<RefreshAttempt> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get(&id) {
            Some(RefreshTurn::UnderWay) => return None,
            Some(RefreshTurn::NotBefore(then)) if Instant::now() < *then => return None,
            _ => {}
        }
        turns.retain(|_, turn| !matches!(turn, RefreshTurn::NotBefore(then) if Instant::now() >= *then));
        turns.insert(id, RefreshTurn::UnderWay);
        Some(RefreshAttempt { all: self.clone(), id, pause })
    }

    fn end(&self, id: KeyId, then: Option<Instant>) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match then {
            Some(then) => turns.insert(id, RefreshTurn::NotBefore(then)),
            None => turns.remove(&id),
        };
    }
}

impl RefreshAttempt {
    /// The key is open anew.
    pub(in crate::vault) fn succeeded(mut self) {
        self.pause = Duration::ZERO;
    }
}

impl Drop for RefreshAttempt {
    fn drop(&mut self) {
        self.all.end(self.id, (!self.pause.is_zero()).then(|| Instant::now() + self.pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId::Symmetric([1; 16]);

    #[test]
    fn one_at_a_time_and_after_a_failure_not_at_once() {
        let (all, hour) = (RefreshState::default(), Duration::from_hours(1));
        let turn = all.begin(KEY, hour).unwrap();
        assert!(all.begin(KEY, hour).is_none());
        turn.succeeded();
        drop(all.begin(KEY, hour).unwrap());
        assert!(all.begin(KEY, hour).is_none(), "it failed just now");
        assert!(all.begin(KeyId::Symmetric([2; 16]), hour).is_some(), "others are not held up");
    }
}
