//! Which keys are being opened anew right now: one at a time for each.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::domain::KeyId;

#[derive(Default)]
pub(super) struct Refreshing(Mutex<HashSet<KeyId>>);

impl Refreshing {
    /// Whether the caller is the one to do it.
    pub(super) fn begin(&self, id: KeyId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    pub(super) fn end(&self, id: KeyId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
