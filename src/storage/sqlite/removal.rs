//! Removes the bytes of archived entries, a few at a time. A removed entry keeps its leaf hash, so that the tree and all proofs stay as they are.

use rusqlite::{Connection, params};

use super::{
    StoreError, apply,
    blocks::last_of,
    digests,
    error::{corrupt, signed},
    rows::unsigned,
};
use crate::audit::{Entry, leaf_hash};

/// Entries that one transaction looks at: a few milliseconds, in which no signature is written.
const AT_ONCE: u64 = 256;

/// Whether entries up to `through` are left that can be removed.
pub(super) fn is_left(db: &Connection, through: u64) -> Result<bool, StoreError> {
    Ok(position(db)? < removable(db, through)?)
}

fn position(db: &Connection) -> Result<u64, StoreError> {
    unsigned(db.query_row("SELECT removal_position FROM meta", [], |row| row.get(0))?)
}

/// Totals and filters of a block are made from its entries, and stay when they are removed.
fn removable(db: &Connection, through: u64) -> Result<u64, StoreError> {
    Ok(through.min(digests::first_without(db)?.checked_sub(1).map_or(0, last_of)))
}

/// Removes the next entries up to `through`, except state changes, in one transaction.
pub(super) fn remove_some(db: &Connection, through: u64) -> Result<(), StoreError> {
    let (position, through) = (position(db)?, removable(db, through)?);
    let last = position.saturating_add(AT_ONCE).min(through);
    if last <= position {
        return Ok(());
    }
    apply::execute(db, "BEGIN IMMEDIATE", [])?;
    let removed = remove(db, position, last);
    if let Err(error) = removed {
        if !db.is_autocommit() {
            apply::execute(db, "ROLLBACK", [])?;
        }
        return Err(error);
    }
    apply::execute(db, "COMMIT", []).map(drop)
}

fn remove(db: &Connection, after: u64, last: u64) -> Result<(), StoreError> {
    let mut uses = Vec::new();
    {
        let sql = "SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 AND entry <> x''";
        let mut sql = db.prepare_cached(sql)?;
        let mut rows = sql.query([signed(after)?, signed(last)?])?;
        while let Some(row) = rows.next()? {
            let sequence: i64 = row.get(0)?;
            let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
            let bytes = row.get_ref(1)?.as_blob().map_err(|error| unreadable(&error))?;
            let leaf: [u8; 32] = row.get(2).map_err(|error| unreadable(&error))?;
            if leaf_hash(bytes) != leaf {
                // An edited entry stays, as evidence.
                return Err(unreadable(&"its hash is not that of its bytes"));
            }
            // The entry itself says whether it is a state change. An edited column must not remove one.
            if !Entry::decode(bytes).map_err(|error| unreadable(&error))?.changes_state() {
                uses.push((sequence, leaf));
            }
        }
    }
    // SQLite merges pages when rows are deleted, and not when they become shorter: the rows are written anew.
    let delete = "DELETE FROM audit_entries WHERE sequence = ?1";
    uses.iter().try_for_each(|(sequence, _)| apply::execute_one(db, delete, [sequence]))?;
    let insert = "INSERT INTO audit_entries (sequence, entry, leaf) VALUES (?1, x'', ?2)";
    uses.iter().try_for_each(|(sequence, leaf)| apply::execute_one(db, insert, params![sequence, leaf]))?;
    apply::execute_one(db, "UPDATE meta SET removal_position = ?1", params![signed(last)?])
}
