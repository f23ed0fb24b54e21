//! The summary of the log: which values occur in each complete block of entries, and in which parts of it each key occurs, so that a query skips what
//! has nothing that it looks for. It is made with the digest of the block, off the path of a commit, and authenticates nothing.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{StoreError, apply, error::signed};
use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Timestamp},
};

/// Entries in a block. The migration that made the table has the same number.
pub(super) const BLOCK: u64 = 1024;
/// Entries in a part of a block. The migration that made the table has the same number.
const PART: u64 = 64;

/// The block of an entry.
pub(super) const fn block_of(sequence: u64) -> u64 {
    sequence / BLOCK
}

/// The last entry that a block can have.
pub(super) const fn last_of(block: u64) -> u64 {
    block.saturating_mul(BLOCK).saturating_add(BLOCK - 1)
}

/// The part of an entry.
pub(super) const fn part_of(sequence: u64) -> u64 {
    sequence / PART
}

/// The last entry that a part can have.
pub(super) const fn last_of_part(part: u64) -> u64 {
    part.saturating_mul(PART).saturating_add(PART - 1)
}

/// The minute of a time, as in the summary.
pub(super) const fn minute_of(at: Timestamp) -> i64 {
    at.micros() / 60_000_000
}

/// The fields of the summary, besides the minute.
const FIELDS: [&str; 4] = ["principal", "operation", "node", "outcome"];

/// The summary of one block.
#[derive(Debug, Default)]
pub(super) struct BlockSummary {
    texts: [HashSet<String>; FIELDS.len()],
    minutes: HashSet<i64>,
    keys: HashSet<(KeyId, u64)>,
}

impl BlockSummary {
    /// Adds an entry of the block.
    pub(super) fn add(&mut self, entry: &Entry) {
        let node = entry.node.as_ref().map(NodeName::as_str);
        let texts = [Some(entry.principal.as_str()), Some(entry.operation.as_str()), node, Some(entry.outcome.as_str())];
        for (text, known) in texts.into_iter().zip(&mut self.texts) {
            if let Some(text) = text.filter(|text| !known.contains(*text)) {
                known.insert(text.to_owned());
            }
        }
        self.minutes.insert(minute_of(entry.at));
        self.keys.extend(entry.key_id.map(|id| (id, part_of(entry.sequence))));
    }

    /// Stores what is not stored yet.
    pub(super) fn store(&self, db: &Connection, block: u64) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO audit_blocks (block, field, value) VALUES (?1, ?2, ?3)";
        let block = signed(block)?;
        for (field, texts) in FIELDS.iter().zip(&self.texts) {
            texts.iter().try_for_each(|text| apply::execute(db, sql, params![block, field, text]).map(drop))?;
        }
        self.minutes.iter().try_for_each(|minute| apply::execute(db, sql, params![block, "minute", minute]).map(drop))?;
        for (key, part) in &self.keys {
            let id = key.to_string();
            let number = if let Some(number) = number_of(db, &id)? {
                number
            } else {
                apply::execute_one(db, "INSERT INTO audit_keys (key_id) VALUES (?1)", [&id])?;
                db.last_insert_rowid()
            };
            let sql = "INSERT OR IGNORE INTO audit_key_parts (key, part) VALUES (?1, ?2)";
            apply::execute(db, sql, params![number, signed(*part)?])?;
        }
        Ok(())
    }

    /// Whether the stored summary of a block has all of this. More values in it cost time and hide nothing.
    pub(super) fn is_stored(&self, db: &Connection, block: u64) -> Result<bool, StoreError> {
        let mut sql = db.prepare_cached("SELECT 1 FROM audit_blocks WHERE block = ?1 AND field = ?2 AND value = ?3")?;
        let block = signed(block)?;
        let mut is_complete = true;
        for (field, texts) in FIELDS.iter().zip(&self.texts) {
            for text in texts {
                is_complete &= sql.exists(params![block, field, text])?;
            }
        }
        for minute in &self.minutes {
            is_complete &= sql.exists(params![block, "minute", minute])?;
        }
        for (key, part) in &self.keys {
            let next = match number_of(db, &key.to_string())? {
                Some(number) => next_part(db, number, *part, *part)?,
                None => None,
            };
            is_complete &= next == Some(*part);
        }
        Ok(is_complete)
    }
}

/// The number of a key in the summary. `None` if no summary has it.
pub(super) fn number_of(db: &Connection, key: &str) -> Result<Option<i64>, StoreError> {
    let mut sql = db.prepare_cached("SELECT number FROM audit_keys WHERE key_id = ?1")?;
    Ok(sql.query_row([key], |row| row.get(0)).optional()?)
}

/// The first part from `first` up to `last` in which a key occurs.
pub(super) fn next_part(db: &Connection, key: i64, first: u64, last: u64) -> Result<Option<u64>, StoreError> {
    part(db, "SELECT min(part) FROM audit_key_parts WHERE key = ?1 AND part BETWEEN ?2 AND ?3", key, first, last)
}

/// The last such part.
pub(super) fn previous_part(db: &Connection, key: i64, first: u64, last: u64) -> Result<Option<u64>, StoreError> {
    part(db, "SELECT max(part) FROM audit_key_parts WHERE key = ?1 AND part BETWEEN ?2 AND ?3", key, first, last)
}

fn part(db: &Connection, sql: &str, key: i64, first: u64, last: u64) -> Result<Option<u64>, StoreError> {
    let found: Option<i64> = db.prepare_cached(sql)?.query_row((key, signed(first)?, signed(last)?), |row| row.get(0))?;
    found.map(super::rows::unsigned).transpose()
}
