//! The content of the digests of a block of the log: a Bloom filter of the values that are different in most entries, and totals. They authenticate
//! nothing, and do not depend on the database.
//!
//! A filter has no false negatives: a query that skips a block by it loses no entry.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::{
    EntryFilter,
    log_query::{named, request_ids},
};
use crate::{
    audit::Entry,
    domain::{Hex, KeyId, NodeName},
};

/// A value with its field, hashed: eight numbers of 32 bits, which are the places in a filter.
pub(super) type Term = [u8; 32];

/// Bits of a filter for each value. With the eight places of a value, a block without a value is read in 0.3 % of all cases.
const BITS: usize = 12;

fn term(field: &str, value: &str) -> Term {
    Sha256::new().chain_update(field).chain_update([0]).chain_update(value).finalize().into()
}

/// The values of the entries of a block that its filter has, by field. Each is hashed once.
#[derive(Debug)]
struct Values([(&'static str, HashSet<String>); 4]);

impl Default for Values {
    fn default() -> Self {
        Self(["certificate", "request", "trace", "named"].map(|field| (field, HashSet::new())))
    }
}

impl Values {
    fn add(&mut self, entry: &Entry) {
        let [certificates, requests, traces, names] = &mut self.0;
        let add = |(_, known): &mut (&'static str, HashSet<String>), value: &str| {
            if !known.contains(value) {
                known.insert(value.to_owned());
            }
        };
        entry.certificate.iter().for_each(|digest| add(certificates, digest));
        request_ids(entry).for_each(|id| add(requests, id));
        entry.trace_id.iter().for_each(|id| add(traces, id));
        named(entry).for_each(|name| add(names, name));
        entry.wrapper_keys.iter().for_each(|change| add(names, &change.id.to_string()));
    }

    fn terms(&self) -> HashSet<Term> {
        self.0.iter().flat_map(|(field, values)| values.iter().map(|value| term(field, value))).collect()
    }
}

/// The values that a filter must have for a block to be read.
pub(super) fn wanted(filter: &EntryFilter) -> Vec<Term> {
    let certificate = filter.certificate.iter().map(|digest| term("certificate", &Hex(digest).to_string()));
    let request = filter.request_id.iter().map(|id| term("request", id));
    let trace = filter.trace_id.iter().map(|id| term("trace", id));
    let job = filter.job.iter().map(|id| term("named", &id.to_string()));
    let wrapper_key = filter.wrapper_key.iter().map(|id| term("named", &id.to_string()));
    certificate.chain(request).chain(trace).chain(job).chain(wrapper_key).collect()
}

/// The places of a value in a filter of this many bits.
fn places(term: &Term, bits: usize) -> impl Iterator<Item = usize> {
    let (words, _) = term.as_chunks::<4>();
    words.iter().map(move |word| u32::from_be_bytes(*word) as usize % bits.max(1))
}

fn filter_of(terms: &HashSet<Term>) -> Vec<u8> {
    let mut filter = vec![0_u8; (terms.len() * BITS).div_ceil(8).max(1)];
    let bits = filter.len() * 8;
    for place in terms.iter().flat_map(|term| places(term, bits)) {
        if let Some(byte) = filter.get_mut(place / 8) {
            *byte |= 1 << (place % 8);
        }
    }
    filter
}

/// Whether a filter has a value, or seems to.
pub(super) fn has(filter: &[u8], term: &Term) -> bool {
    places(term, filter.len() * 8).all(|place| filter.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0))
}

/// What the totals count together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    /// Days since the epoch.
    pub(super) day: i64,
    pub(super) principal: String,
    pub(super) certificate: String,
    pub(super) node: String,
    pub(super) key: String,
    pub(super) operation: &'static str,
    pub(super) outcome: &'static str,
}

impl Group {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            day: entry.at.micros().div_euclid(DAY),
            principal: entry.principal.clone(),
            certificate: entry.certificate.clone().unwrap_or_default(),
            node: entry.node.as_ref().map_or_else(String::new, NodeName::to_string),
            key: entry.key_id.as_ref().map_or_else(String::new, KeyId::to_string),
            operation: entry.operation.as_str(),
            outcome: entry.outcome.as_str(),
        }
    }
}

/// Microseconds in a day.
pub(super) const DAY: i64 = 24 * 3600 * 1_000_000;

/// Numbers of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) entries: u64,
    pub(super) calls: u64,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
}

impl Count {
    pub(super) fn of(entry: &Entry) -> Self {
        let at = entry.at.micros();
        Self { entries: 1, calls: entry.count.unwrap_or(1), first_at: at, last_at: at }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.calls = self.calls.saturating_add(other.calls);
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
    }
}

/// The digest of one block, before it is written.
#[derive(Debug)]
pub(super) struct BlockDigest {
    pub(super) block: u64,
    pub(super) filter: Vec<u8>,
    pub(super) totals: HashMap<Group, Count>,
}

/// The digest of a block while its entries are read.
#[derive(Default)]
pub(super) struct DigestBuilder {
    values: Values,
    totals: HashMap<Group, Count>,
}

impl DigestBuilder {
    /// Adds an entry of the block.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.values.add(entry);
        let count = Count::of(entry);
        self.totals.entry(Group::of(entry)).and_modify(|sum| sum.add(count)).or_insert(count);
    }

    /// The digest of the block.
    pub(super) fn end(self, block: u64) -> BlockDigest {
        BlockDigest { block, filter: filter_of(&self.values.terms()), totals: self.totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_all_its_values_and_few_others() {
        let terms: HashSet<Term> = (0..2048).map(|number| term("request", &number.to_string())).collect();
        let filter = filter_of(&terms);
        assert_eq!(filter.len(), 3072);
        assert!(terms.iter().all(|term| has(&filter, term)));
        let wrong = (0..10_000).filter(|number| has(&filter, &term("trace", &number.to_string()))).count();
        assert!(wrong < 100, "{wrong} of 10000");
        assert!(!has(&filter_of(&HashSet::new()), &term("trace", "1")), "an empty block has nothing");
    }
}
