//! The Merkle tree over the log in the database: leaves beside their entries, hashes of complete subtrees in `audit_tree`.

use rusqlite::{Connection, params};

use super::{
    StoreError,
    apply::{self, Head, execute_one},
    digests,
    error::{corrupt, signed},
};
use crate::{
    audit::{
        Source, leaf_hash,
        merkle::{self, Frontier, Hash, HashReader, TILE, TileHash},
    },
    domain::{AuditEvent, Operation, Principal, Timestamp},
    storage::{CHAIN_START, pending::Batch},
};

/// The hashes of the tree.
pub(super) struct Tree<'a>(pub(super) &'a Connection);

impl HashReader for Tree<'_> {
    type Error = StoreError;

    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, StoreError> {
        let to = from.saturating_add(count);
        let sql = match level {
            0 => "SELECT leaf FROM audit_entries WHERE ?1 = 0 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence",
            _ => "SELECT hash FROM audit_tree WHERE level = ?1 AND position >= ?2 AND position < ?3 ORDER BY position",
        };
        let mut sql = self.0.prepare_cached(sql)?;
        let rows = sql.query_map(params![level, signed(from)?, signed(to)?], |row| row.get(0))?;
        let hashes = rows.collect::<Result<Vec<Hash>, _>>()?;
        if hashes.len() as u64 == count {
            Ok(hashes)
        } else {
            let (table, what) = if level == 0 { ("audit_entries", "entries") } else { ("audit_tree", "hashes") };
            Err(corrupt(table, format_args!("{what} {from} to {to} of level {level} are not complete")))
        }
    }
}

/// The stored bytes of entries, for a bundle.
pub(super) fn entry_bytes(db: &Connection, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let to = from.saturating_add(count.min(TILE));
    let mut sql = db.prepare_cached("SELECT entry FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence")?;
    let found = sql.query_map([signed(from)?, signed(to)?], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
    if found.iter().any(Vec::is_empty) {
        Err(corrupt("audit_entries", format_args!("entries {from} to {to} are removed")))
    } else if found.len() as u64 == to.saturating_sub(from) {
        Ok(found)
    } else {
        Err(corrupt("audit_entries", format_args!("entries {from} to {to} are not complete")))
    }
}

/// Stores the hash of a subtree that became complete.
pub(super) fn insert(db: &Connection, hash: &TileHash) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_tree (level, position, hash) VALUES (?1, ?2, ?3)";
    execute_one(db, sql, params![hash.level, signed(hash.position)?, hash.hash])
}

/// Adds the hashes that are missing, in one transaction: those of a store of an earlier schema, whose log is read once.
///
/// # Errors
/// [`StoreError::Corrupt`] if the log has a gap.
pub(super) fn complete(db: &Connection, size: u64) -> Result<(), StoreError> {
    let missing = |level: u32| -> Result<(u64, u64), StoreError> {
        let sql = "SELECT coalesce(max(position) + 1, 0) FROM audit_tree WHERE level = ?1";
        let found: i64 = db.query_row(sql, [level], |row| row.get(0))?;
        let complete = size.checked_shr(8 * level).unwrap_or(0);
        Ok((super::rows::unsigned(found)?, complete))
    };
    let mut level = 1;
    db.execute_batch("BEGIN IMMEDIATE")?;
    let result = loop {
        let (found, complete) = match missing(level) {
            Ok(places) => places,
            Err(error) => break Err(error),
        };
        if complete == 0 {
            break Ok(());
        }
        if let Err(error) = (found..complete).try_for_each(|position| insert(db, &subtree(db, level, position)?)) {
            break Err(error);
        }
        level += 1;
    };
    apply::execute(db, if result.is_ok() { "COMMIT" } else { "ROLLBACK" }, [])?;
    result
}

/// Makes a log whole that an operator accepts as it is, in one transaction: entries get the hash of their bytes, an entry that is missing gets one in its
/// place that says so, and the hashes of the tree are made again by [`complete`].
///
/// # Errors
/// [`StoreError::Corrupt`] if more than a million entries in a row are missing.
pub(super) fn repair(db: &Connection, source: &Source, now: Timestamp) -> Result<(), StoreError> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let result =
        repair_entries(db, source, now).and_then(|()| digests::clear(db).and_then(|()| Ok(db.execute_batch("DELETE FROM audit_tree")?)));
    db.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

/// The most entries in a row that [`repair`] replaces.
const MAX_GAP: u64 = 1_000_000;

fn repair_entries(db: &Connection, source: &Source, now: Timestamp) -> Result<(), StoreError> {
    let (mut expected, mut gaps) = (1, Vec::new());
    let mut entries = db.prepare("SELECT sequence, entry, leaf FROM audit_entries ORDER BY sequence")?;
    let mut wrong = Vec::new();
    let mut rows = entries.query([])?;
    while let Some(row) = rows.next()? {
        let sequence = super::rows::unsigned(row.get(0)?)?;
        let bytes = row.get_ref(1)?.as_blob().unwrap_or_default();
        let leaf = leaf_hash(bytes);
        // A removed entry has its hash only.
        if !bytes.is_empty() && row.get_ref(2)?.as_blob().ok() != Some(leaf.as_slice()) {
            wrong.push((sequence, leaf));
        }
        if sequence.saturating_sub(expected) > MAX_GAP {
            return Err(corrupt("audit_entries", format_args!("the entries {expected} to {sequence} are missing")));
        }
        gaps.extend(expected..sequence);
        expected = sequence.saturating_add(1);
    }
    drop(rows);
    for (sequence, leaf) in wrong {
        execute_one(db, "UPDATE audit_entries SET leaf = ?2 WHERE sequence = ?1", params![signed(sequence)?, leaf])?;
    }
    let mut batch = Batch::default();
    for missing in gaps {
        let mut head = Head { sequence: missing - 1, store_revision: 0, frozen: false, chain: CHAIN_START };
        let reason = Some("the entry with this number was missing when the operator accepted the log".into());
        let event = AuditEvent { reason, ..AuditEvent::new(now, Principal::system(), Operation::RestateState, "-".into()) };
        apply::log(db, source, &mut head, &event, None, &mut batch)?;
    }
    Ok(())
}

/// The root over 256 hashes of the level below.
fn subtree(db: &Connection, level: u32, position: u64) -> Result<TileHash, StoreError> {
    let mut frontier = Frontier::default();
    for hash in Tree(db).hashes(level - 1, position * TILE, TILE)? {
        frontier.append(hash, |_| {});
    }
    Ok(TileHash { level, position, hash: frontier.root() })
}

/// The right edge of the tree of the first `size` entries. The entries after the last stored hash are read and hashed.
pub(super) fn frontier(db: &Connection, size: u64) -> Result<Frontier, StoreError> {
    let first = size - size % TILE;
    for (entry, leaf) in entry_bytes(db, first, size - first)?.iter().zip(Tree(db).hashes(0, first, size - first)?) {
        if leaf_hash(entry) != leaf {
            return Err(corrupt("audit_entries", format_args!("an entry after {first} has another hash than its bytes")));
        }
    }
    merkle::frontier(&Tree(db), size)
}
