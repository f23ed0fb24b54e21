//! Which keys are being opened anew right now, one at a time for each, and which were tried in vain a moment ago.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::KeyId;

#[derive(Clone, Default)]
pub(super) struct Refreshing(Arc<Mutex<HashMap<KeyId, Turn>>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    UnderWay,
    /// Not before then: a hot key under a dead KMS would otherwise be tried with every use.
    NotBefore(Instant),
}

/// The turn of whoever opens a key anew. Dropped without [`Attempt::succeeded`], the next one has to wait.
pub(super) struct Attempt {
    all: Refreshing,
    id: KeyId,
    pause: Duration,
}

impl Refreshing {
    /// The turn, if nobody has it and no attempt failed within its `pause`.
    pub(super) fn begin(&self, id: KeyId, pause: Duration) -> Option<Attempt> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get(&id) {
            Some(Turn::UnderWay) => return None,
            Some(Turn::NotBefore(then)) if Instant::now() < *then => return None,
            _ => {}
        }
        turns.retain(|_, turn| !matches!(turn, Turn::NotBefore(then) if Instant::now() >= *then));
        turns.insert(id, Turn::UnderWay);
        Some(Attempt { all: self.clone(), id, pause })
    }

    fn end(&self, id: KeyId, then: Option<Instant>) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match then {
            Some(then) => turns.insert(id, Turn::NotBefore(then)),
            None => turns.remove(&id),
        };
    }
}

impl Attempt {
    /// The key is open anew.
    pub(super) fn succeeded(mut self) {
        self.pause = Duration::ZERO;
    }
}

impl Drop for Attempt {
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
        let (all, hour) = (Refreshing::default(), Duration::from_hours(1));
        let turn = all.begin(KEY, hour).unwrap();
        assert!(all.begin(KEY, hour).is_none());
        turn.succeeded();
        drop(all.begin(KEY, hour).unwrap());
        assert!(all.begin(KEY, hour).is_none(), "it failed just now");
        assert!(all.begin(KeyId::Symmetric([2; 16]), hour).is_some(), "others are not held up");
    }
}
