//! Digests of complete blocks of the log: a Bloom filter of the values that are different in most entries, totals, and the summary of the block. They are
//! made off the path of a commit, and authenticate nothing.
//!
//! A filter has no false negatives: a query that skips a block by it loses no entry.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::{
    StoreError, apply,
    blocks::{BLOCK, BlockSummary, block_of, last_of},
    error::{corrupt, signed},
    rows::unsigned,
};
use crate::{
    audit::Entry,
    domain::{Hex, KeyId, NodeName},
    storage::{
        EntryFilter,
        log_query::{named, request_ids},
    },
};

/// A value with its field, hashed: eight numbers of 32 bits, which are the places in a filter.
type Term = [u8; 32];

/// Bits of a filter for each value. With the eight places of a value, a block without a value is read in 0.3 % of all cases.
const BITS: usize = 12;

/// Blocks that one call digests: 4096 entries, some 20 ms.
const BLOCKS_AT_ONCE: u64 = 4;

fn term(field: &str, value: &str) -> Term {
    Sha256::new().chain_update(field).chain_update([0]).chain_update(value).finalize().into()
}

/// The values of the entries of a block that its filter has, by field. Each is hashed once.
#[derive(Debug, Default)]
struct Values([(&'static str, HashSet<String>); 4]);

impl Values {
    fn new() -> Self {
        Self(["certificate", "request", "trace", "named"].map(|field| (field, HashSet::new())))
    }

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

fn has(filter: &[u8], term: &Term) -> bool {
    places(term, filter.len() * 8).all(|place| filter.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0))
}

/// Whether a block can have entries with these values. `true` for a block without a digest.
pub(super) fn can_hold(db: &Connection, block: u64, wanted: &[Term]) -> Result<bool, StoreError> {
    if wanted.is_empty() {
        return Ok(true);
    }
    let mut sql = db.prepare_cached("SELECT filter FROM audit_digests WHERE block = ?1")?;
    let can = |filter: &[u8]| wanted.iter().all(|term| has(filter, term));
    let found = sql.query_row([signed(block)?], |row| Ok(row.get_ref(0)?.as_blob().is_ok_and(can))).optional()?;
    Ok(found.unwrap_or(true))
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
    block: u64,
    filter: Vec<u8>,
    totals: HashMap<Group, Count>,
    summary: BlockSummary,
}

/// The first block without a digest.
pub(super) fn first_without(db: &Connection) -> Result<u64, StoreError> {
    unsigned(db.prepare_cached("SELECT coalesce(max(block) + 1, 0) FROM audit_digests")?.query_row([], |row| row.get(0))?)
}

/// Makes the digests of the next blocks. They are complete, so that no entry is added to them any more.
pub(super) fn make(db: &Connection) -> Result<Vec<BlockDigest>, StoreError> {
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let first = first_without(db)?;
    // The block of the next entry is the first one that is not complete.
    let complete = block_of(newest.saturating_add(1));
    (first..complete.min(first.saturating_add(BLOCKS_AT_ONCE))).map(|block| make_one(db, block)).collect()
}

fn make_one(db: &Connection, block: u64) -> Result<BlockDigest, StoreError> {
    let (mut values, mut totals, mut summary) = (Values::new(), HashMap::new(), BlockSummary::default());
    for_each_entry(db, block * BLOCK, last_of(block), |entry| {
        values.add(entry);
        summary.add(entry);
        totals.entry(Group::of(entry)).and_modify(|count: &mut Count| count.add(Count::of(entry))).or_insert_with(|| Count::of(entry));
    })?;
    Ok(BlockDigest { block, filter: filter_of(&values.terms()), totals, summary })
}

/// Decodes the entries from `first` to `last`.
pub(super) fn for_each_entry(db: &Connection, first: u64, last: u64, mut look: impl FnMut(&Entry)) -> Result<(), StoreError> {
    let mut sql =
        db.prepare_cached("SELECT sequence, entry FROM audit_entries WHERE sequence BETWEEN ?1 AND ?2 AND entry <> x'' ORDER BY sequence")?;
    let mut rows = sql.query([signed(first)?, signed(last)?])?;
    while let Some(row) = rows.next()? {
        let sequence: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().unwrap_or_default();
        look(&Entry::decode(bytes).map_err(|error| corrupt("audit_entries", format_args!("entry {sequence}: {error}")))?);
    }
    Ok(())
}

/// Writes digests in one transaction.
pub(super) fn write(db: &Connection, digests: &[BlockDigest]) -> Result<(), StoreError> {
    apply::execute(db, "BEGIN IMMEDIATE", [])?;
    let result = digests.iter().try_for_each(|digest| write_one(db, digest));
    if let Err(error) = result {
        if !db.is_autocommit() {
            apply::execute(db, "ROLLBACK", [])?;
        }
        return Err(error);
    }
    apply::execute(db, "COMMIT", []).map(drop)
}

fn write_one(db: &Connection, BlockDigest { block, filter, totals, summary }: &BlockDigest) -> Result<(), StoreError> {
    // Fails if the block has a digest already, so that nothing is counted twice.
    apply::execute_one(db, "INSERT INTO audit_digests (block, filter) VALUES (?1, ?2)", params![signed(*block)?, filter])?;
    summary.store(db, *block)?;
    let sql = "INSERT INTO audit_totals (day, principal, certificate, node, key_id, operation, outcome, entries, calls, first_at, last_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
               ON CONFLICT DO UPDATE SET entries = entries + excluded.entries, calls = calls + excluded.calls,
               first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)";
    for (Group { day, principal, certificate, node, key, operation, outcome }, count) in totals {
        let Count { entries, calls, first_at, last_at } = *count;
        let numbers = (signed(entries)?, signed(calls)?);
        let values = params![day, principal, certificate, node, key, operation, outcome, numbers.0, numbers.1, first_at, last_at];
        apply::execute_one(db, sql, values)?;
    }
    Ok(())
}

/// Removes all digests, because entries were replaced. They are made again.
pub(super) fn clear(db: &Connection) -> Result<(), StoreError> {
    Ok(db.execute_batch("DELETE FROM audit_digests; DELETE FROM audit_totals; DELETE FROM audit_blocks; DELETE FROM audit_key_parts; DELETE FROM audit_keys;")?)
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
