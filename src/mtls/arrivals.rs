//! Connections whose client is not known yet. A new one always gets in: beyond the limit it closes one of the address that has most of them.
//!
//! So silent connections do not refuse others. Among the connections of that address, the oldest of the largest stage is closed: those that
//! hang in one stage do not close those that pass through it quickly.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The connections of one listener whose client is not known yet.
#[derive(Clone)]
pub(super) struct Arrivals {
    limit: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Entry>,
    of_address: HashMap<AddressBlock, [usize; Stage::ALL]>,
}

struct Entry {
    from: AddressBlock,
    stage: Stage,
    evicted: CancellationToken,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It sent nothing, or half a handshake.
    Silent,
    /// The client began to speak.
    Heard,
    /// There was a whole request.
    Asked,
}

impl Stage {
    const ALL: usize = 3;
}

/// One connection. Leaves when dropped.
pub(super) struct Arrival {
    number: u64,
    evicted: CancellationToken,
    arrivals: Arrivals,
}

impl Arrivals {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, waiting: Arc::default() }
    }

    /// Adds a connection, and evicts another one if there are too many.
    pub(super) fn enter(&self, from: IpAddr) -> Arrival {
        let (from, evicted) = (AddressBlock::of(from), CancellationToken::new());
        let mut waiting = self.lock();
        while waiting.by_age.len() >= self.limit
            && let Some(victim) = waiting.victim()
        {
            waiting.remove(victim).inspect(|entry| entry.evicted.cancel());
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.insert(number, Entry { from, stage: Stage::Silent, evicted: evicted.clone() });
        Arrival { number, evicted, arrivals: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The address with most connections first, then the stage with most of these, then the oldest.
    fn victim(&self) -> Option<u64> {
        let rank = |number: u64, entry: &Entry| {
            let counts = self.of_address.get(&entry.from).copied().unwrap_or_default();
            let in_stage = counts.get(entry.stage as usize).copied();
            (Reverse(counts.iter().sum::<usize>()), Reverse(in_stage), number)
        };
        self.by_age.iter().map(|(number, entry)| rank(*number, entry)).min().map(|(_, _, number)| number)
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        if let Some(count) = self.of_address.entry(entry.from).or_default().get_mut(entry.stage as usize) {
            *count += 1;
        }
        self.by_age.insert(number, entry);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.by_age.remove(&number)?;
        if let Some(counts) = self.of_address.get_mut(&entry.from) {
            if let Some(count) = counts.get_mut(entry.stage as usize) {
                *count -= 1;
            }
            if counts.iter().all(|count| *count == 0) {
                self.of_address.remove(&entry.from);
            }
        }
        Some(entry)
    }
}

impl Arrival {
    /// Notes how far the connection is.
    pub(super) fn reach(&self, stage: Stage) {
        let mut waiting = self.arrivals.lock();
        if let Some(entry) = waiting.remove(self.number) {
            waiting.insert(self.number, Entry { stage, ..entry });
        }
    }

    /// Returns when another connection took the place of this one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arrivals.lock().remove(self.number);
    }
}

/// The addresses that count as one: an IPv4 address, or the /64 of an IPv6 address, which one client usually has as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct AddressBlock(IpAddr);

impl AddressBlock {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        assert_eq!(AddressBlock::of(ip("2001:db8::1")), AddressBlock::of(ip("2001:db8::ffff:0:0:1")));
        assert_ne!(AddressBlock::of(ip("2001:db8::1")), AddressBlock::of(ip("2001:db8:0:1::1")));
        assert_eq!(AddressBlock::of(ip("::ffff:192.0.2.1")), AddressBlock::of(ip("192.0.2.1")));
        assert_ne!(AddressBlock::of(ip("192.0.2.1")), AddressBlock::of(ip("192.0.2.2")));
    }

    #[test]
    fn the_busiest_address_loses_its_oldest_silent_connection() {
        let arrivals = Arrivals::new(4);
        let other = arrivals.enter(ip("192.0.2.9"));
        let flood: Vec<_> = (1..4).map(|host| arrivals.enter(ip(&format!("2001:db8::{host}")))).collect();
        flood[0].reach(Stage::Heard);
        let late = arrivals.enter(ip("192.0.2.8"));
        let gone: Vec<_> = flood.iter().map(|arrival| arrival.evicted.is_cancelled()).collect();
        assert_eq!(gone, [false, true, false], "the oldest of the largest stage");
        let later = arrivals.enter(ip("192.0.2.7"));
        assert!(flood[0].evicted.is_cancelled(), "both stages have one: the older");
        assert!([&other, &late, &later].iter().all(|arrival| !arrival.evicted.is_cancelled()), "others keep their places");
        drop((other, flood, late, later));
        assert!(arrivals.lock().by_age.is_empty() && arrivals.lock().of_address.is_empty());
    }
}
