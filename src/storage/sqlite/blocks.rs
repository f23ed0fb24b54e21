//! The summary of the log: which values occur in each block of entries, so that a query skips the blocks without what it looks for.
//!
//! An index of each filter would cost every signature a row. The summary gets a row only for a value that is new in its block: a few for each
//! 1024 entries.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::{StoreError, apply};
use crate::{
    audit::Entry,
    domain::{NodeName, Timestamp},
};

/// Entries in a block. The migration that made the table has the same number.
pub(super) const BLOCK: u64 = 1024;

/// The block of an entry.
pub(super) const fn block_of(sequence: u64) -> u64 {
    sequence / BLOCK
}

/// The last entry that a block can have.
pub(super) const fn last_of(block: u64) -> u64 {
    block.saturating_mul(BLOCK).saturating_add(BLOCK - 1)
}

/// The minute of a time, as in the summary.
pub(super) const fn minute_of(at: Timestamp) -> i64 {
    at.micros() / 60_000_000
}

/// The values that the summary of the newest block is known to have. It may know less than the table, never more.
#[derive(Debug, Default)]
pub(super) struct NewestBlock {
    block: u64,
    texts: [HashSet<String>; 4],
    minutes: HashSet<i64>,
}

impl NewestBlock {
    /// Adds the values of an entry to the summary.
    pub(super) fn add(&mut self, db: &Connection, entry: &Entry) -> Result<(), StoreError> {
        let block = block_of(entry.sequence);
        if self.block != block {
            *self = Self { block, ..Self::default() };
        }
        for ((field, value), known) in texts_of(entry).into_iter().zip(&mut self.texts) {
            if let Some(value) = value.filter(|value| !known.contains(*value)) {
                insert(db, block, field, &value)?;
                known.insert(value.to_owned());
            }
        }
        let minute = minute_of(entry.at);
        if !self.minutes.contains(&minute) {
            insert(db, block, "minute", &minute)?;
            self.minutes.insert(minute);
        }
        Ok(())
    }

    /// Knows nothing any more, because a transaction was undone.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The values of an entry in the summary, besides its minute.
pub(super) fn texts_of(entry: &Entry) -> [(&'static str, Option<&str>); 4] {
    [
        ("principal", Some(entry.principal.as_str())),
        ("operation", Some(entry.operation.as_str())),
        ("node", entry.node.as_ref().map(NodeName::as_str)),
        ("outcome", Some(entry.outcome.as_str())),
    ]
}

fn insert(db: &Connection, block: u64, field: &str, value: &dyn rusqlite::ToSql) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO audit_blocks (block, field, value) VALUES (?1, ?2, ?3)";
    apply::execute(db, sql, params![super::error::signed(block)?, field, value]).map(drop)
}
