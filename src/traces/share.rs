//! The share of each caller in the queue of spans: a caller who asks for a trace of every call leaves room for the spans of others.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One caller has at most this part of the queue: a quarter of it.
pub const CALLER_SHARE: usize = 4;

/// The shares of those who have spans in progress or in the queue.
pub(super) struct Shares {
    most: usize,
    used: Mutex<HashMap<Arc<str>, Arc<AtomicUsize>>>,
}

/// The share of one caller.
#[derive(Clone)]
pub(super) struct Share {
    most: usize,
    used: Arc<AtomicUsize>,
}

/// A place in the queue. It is free again when this is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Shares {
    /// The shares of a queue of this length.
    pub(super) fn of_queue(length: usize) -> Self {
        Self { most: length.div_ceil(CALLER_SHARE), used: Mutex::default() }
    }

    /// The share of a caller.
    pub(super) fn of(&self, caller: &Arc<str>) -> Share {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = used.get(caller) {
            return Share { most: self.most, used: Arc::clone(used) };
        }
        // A share that only this map refers to belongs to a caller without spans.
        used.retain(|_, used| Arc::strong_count(used) > 1);
        let share = Share { most: self.most, used: Arc::default() };
        used.insert(Arc::clone(caller), Arc::clone(&share.used));
        share
    }
}

impl Share {
    /// A place in the queue. `None` if the share is used up.
    pub(super) fn take(&self) -> Option<Place> {
        let more = |used: usize| (used < self.most).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(&self.used)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_share_leaves_those_of_others_and_is_free_again_with_its_places() {
        let shares = Shares::of_queue(7);
        let (one, two) = (Arc::from("one"), Arc::from("two"));
        let places: Vec<_> = (0..3).filter_map(|_| shares.of(&one).take()).collect();
        assert_eq!(places.len(), 2, "a quarter, rounded up");
        assert!(shares.of(&two).take().is_some());
        drop(places);
        assert!(shares.of(&one).take().is_some());
        shares.of(&Arc::from("three"));
        assert_eq!(shares.used.lock().unwrap().len(), 1, "no one is kept without spans");
    }
}
