//! Digests of complete blocks of the log: a Bloom filter of the values that are different in most entries, totals, and the summary of the block. They are
//! made off the path of a commit, and authenticate nothing.
//!
//! A filter has no false negatives: a query that skips a block by it loses no entry.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    StoreError, apply,
    blocks::{BLOCK, BlockSummary, block_of, last_of},
    error::{corrupt, signed},
    rows::unsigned,
};
use crate::{
    audit::Entry,
    storage::digest::{BlockDigest, Count, DigestBuilder, Group, Term, has},
};

/// The digest of one block and its summary, before they are written.
pub(super) type MadeDigest = (BlockDigest, BlockSummary);

/// Blocks that one call digests: 4096 entries, some 20 ms if few keys are used.
const BLOCKS_AT_ONCE: u64 = 4;

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

/// The first block without a digest.
pub(super) fn first_without(db: &Connection) -> Result<u64, StoreError> {
    unsigned(db.prepare_cached("SELECT coalesce(max(block) + 1, 0) FROM audit_digests")?.query_row([], |row| row.get(0))?)
}

/// Makes the digests of the next blocks. They are complete, so that no entry is added to them any more.
pub(super) fn make(db: &Connection) -> Result<Vec<MadeDigest>, StoreError> {
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let first = first_without(db)?;
    // The block of the next entry is the first one that is not complete.
    let complete = block_of(newest.saturating_add(1));
    (first..complete.min(first.saturating_add(BLOCKS_AT_ONCE))).map(|block| make_one(db, block)).collect()
}

fn make_one(db: &Connection, block: u64) -> Result<MadeDigest, StoreError> {
    let (mut digest, mut summary) = (DigestBuilder::default(), BlockSummary::default());
    for_each_entry(db, block * BLOCK, last_of(block), |entry| {
        digest.add(entry);
        summary.add(entry);
    })?;
    Ok((digest.end(block), summary))
}

/// Makes and stores the summary of a block from its entries, for a block whose digest was copied.
#[cfg(feature = "postgresql")]
pub(super) fn store_summary(db: &Connection, block: u64) -> Result<(), StoreError> {
    let mut summary = BlockSummary::default();
    for_each_entry(db, block.saturating_mul(BLOCK), last_of(block), |entry| summary.add(entry))?;
    summary.store(db, block)
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

/// Writes a digest in a transaction of its own.
pub(super) fn write(db: &Connection, digest: &MadeDigest) -> Result<(), StoreError> {
    apply::execute(db, "BEGIN IMMEDIATE", [])?;
    if let Err(error) = write_one(db, digest) {
        if !db.is_autocommit() {
            apply::execute(db, "ROLLBACK", [])?;
        }
        return Err(error);
    }
    apply::execute(db, "COMMIT", []).map(drop)
}

fn write_one(db: &Connection, (BlockDigest { block, filter, totals }, summary): &MadeDigest) -> Result<(), StoreError> {
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
