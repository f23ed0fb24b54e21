//! The circuit breakers of all connected wrapper keys, for the metric: whether one is open depends on the time, so that each answer of `/metrics` asks
//! again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{CircuitBreaker, RegionalWrapper};

/// The circuit breakers that are in use, with the region of each.
#[derive(Default)]
pub(in crate::kms) struct Circuits(Mutex<Vec<(Arc<str>, Weak<CircuitBreaker>)>>);

impl Circuits {
    /// Adds the circuit breakers of a wrapper key.
    pub(in crate::kms) fn add(&self, regional_wrappers: &[RegionalWrapper]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, circuit_breaker)| circuit_breaker.strong_count() > 0);
        for RegionalWrapper { region, circuit_breaker, .. } in regional_wrappers {
            let new = Arc::downgrade(circuit_breaker);
            if !known.iter().any(|(_, other)| other.ptr_eq(&new)) {
                known.push((Arc::clone(region), new));
            }
        }
    }

    /// The regions, and whether a circuit breaker there is open now.
    pub(in crate::kms) fn states(&self) -> BTreeMap<Arc<str>, bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = BTreeMap::new();
        for (region, circuit_breaker) in &*known {
            let is_open = circuit_breaker.upgrade().is_some_and(|circuit_breaker| circuit_breaker.is_open());
            *states.entry(Arc::clone(region)).or_default() |= is_open;
        }
        states
    }
}
