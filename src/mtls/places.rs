//! The places of admitted clients: a limit for each principal, a limit in all, and a reserve for principals that can freeze.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ConnectionLimits;

/// The places of the API listener.
pub(super) struct Places {
    shared: usize,
    reserved: usize,
    per_principal: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: Held,
    of_principal: HashMap<Arc<str>, Held>,
}

#[derive(Default, Clone, Copy)]
struct Held {
    shared: usize,
    reserved: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Reserved,
}

/// One place. Free when dropped.
pub(super) struct Place {
    principal: Arc<str>,
    kind: Kind,
    taken: Arc<Mutex<Taken>>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The principal has as many connections as it may have.
    Principal,
    /// The listener is full.
    Total,
}

impl Places {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let shared = limits.total.saturating_sub(limits.reserved);
        Self { shared, reserved: limits.reserved, per_principal: limits.per_principal, taken: Arc::default() }
    }

    /// Takes a place. A principal that `may_freeze` gets one of the reserve if there is no other, up to a quarter of the reserve.
    pub(super) fn take(&self, principal: &Arc<str>, may_freeze: bool) -> Result<Place, NoPlace> {
        let mut taken = lock(&self.taken);
        let (all, own) = (taken.all, taken.of_principal.get(principal).copied().unwrap_or_default());
        let within_own = own.shared < self.per_principal;
        let in_reserve = may_freeze && all.reserved < self.reserved && own.reserved < self.reserved.div_ceil(4);
        let kind = match (within_own && all.shared < self.shared, in_reserve) {
            (true, _) => Kind::Shared,
            (false, true) => Kind::Reserved,
            (false, false) => return Err(if within_own { NoPlace::Total } else { NoPlace::Principal }),
        };
        *taken.all.of(kind) += 1;
        *taken.of_principal.entry(Arc::clone(principal)).or_default().of(kind) += 1;
        Ok(Place { principal: Arc::clone(principal), kind, taken: Arc::clone(&self.taken) })
    }
}

impl Held {
    const fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Shared => &mut self.shared,
            Kind::Reserved => &mut self.reserved,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        *taken.all.of(self.kind) -= 1;
        if let Some(own) = taken.of_principal.get_mut(&self.principal) {
            *own.of(self.kind) -= 1;
            if own.shared + own.reserved == 0 {
                taken.of_principal.remove(&self.principal);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_its_limit_and_the_reserve_is_for_those_that_can_freeze() {
        let places = Places::new(&ConnectionLimits { total: 10, reserved: 4, per_principal: 4, ..ConnectionLimits::default() });
        let (one, two, admin, other) = ("dns:one".into(), "dns:two".into(), "dns:admin".into(), "dns:other".into());
        let mut held: Vec<_> = (0..4).map(|_| places.take(&one, false).ok().unwrap()).collect();
        assert_eq!(places.take(&one, false).err(), Some(NoPlace::Principal));
        held.extend((0..2).map(|_| places.take(&two, false).ok().unwrap()));
        assert_eq!(places.take(&two, false).err(), Some(NoPlace::Total));
        held.push(places.take(&admin, true).ok().unwrap());
        assert_eq!(places.take(&admin, true).err(), Some(NoPlace::Total), "a quarter of the reserve");
        held.push(places.take(&other, true).ok().unwrap());
        held.clear();
        assert!(lock(&places.taken).of_principal.is_empty());
        assert!(places.take(&one, false).is_ok());
    }
}
