//! Queries of the audit log: block by block, within a time. All given filters must match.
//!
//! A block whose summary lacks a value is skipped, and the entries of a key are found by an index. A query that does not find enough in its
//! time gives what it found, and the place where it stopped.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement, types::Value};

use super::{
    EntryFilter, EntryPage, PageRequest, StoreError, StoredEntry,
    blocks::{block_of, last_of, minute_of},
    error::{corrupt, signed},
    rows::unsigned,
};
use crate::{
    audit::Entry,
    domain::{NodeName, NodeScope, Operation, Outcome, Timestamp},
};

/// Entries in the order of the log. Looks at one block at least, so that every page goes on.
pub(super) fn entries(db: &Connection, filter: &EntryFilter, page: PageRequest, time: Duration) -> Result<EntryPage, StoreError> {
    let deadline = Instant::now() + time;
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let conditions = Conditions::of(filter);
    let mut summary = Prepared::new(db, &format!("SELECT {}", conditions.of_blocks), 1, &conditions.block_values)?;
    let sql = format!(
        "SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2{} ORDER BY sequence",
        conditions.of_entries
    );
    let mut scan = Prepared::new(db, &sql, 2, &conditions.entry_values)?;
    let mut found = Vec::new();
    let mut looked_at = page.after;
    while looked_at < newest && found.len() < page.limit as usize {
        let mut block = block_of(looked_at + 1);
        if let Some(key) = filter.key {
            let sql = "SELECT min(sequence) FROM audit_entries WHERE key_id = ?1 AND sequence > ?2";
            let next: Option<i64> = db.prepare_cached(sql)?.query_row((key.to_string(), signed(looked_at)?), |row| row.get(0))?;
            let Some(next) = next else { break };
            block = block_of(unsigned(next)?);
        }
        let last = last_of(block).min(newest);
        if summary.holds(block)? {
            scan.read(looked_at, last, page.limit as usize, &mut found)?;
        }
        looked_at = last;
        if found.len() < page.limit as usize && looked_at < newest && Instant::now() >= deadline {
            return Ok(EntryPage { entries: found, stopped_at: Some(looked_at) });
        }
    }
    Ok(EntryPage { entries: found, stopped_at: None })
}

/// A statement whose last parameters stay the same from block to block.
struct Prepared<'db>(Statement<'db>);

impl<'db> Prepared<'db> {
    fn new(db: &'db Connection, sql: &str, parameters_of_block: usize, values: &[Value]) -> Result<Self, StoreError> {
        let mut statement = db.prepare(sql)?;
        for (number, value) in (parameters_of_block + 1..).zip(values) {
            statement.raw_bind_parameter(number, value)?;
        }
        Ok(Self(statement))
    }

    /// Whether the summary of a block has all values.
    fn holds(&mut self, block: u64) -> Result<bool, StoreError> {
        self.0.raw_bind_parameter(1, signed(block)?)?;
        let mut rows = self.0.raw_query();
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?.unwrap_or(false))
    }

    /// Reads the matching entries after `after` up to `last`, until `found` has `limit` entries.
    fn read(&mut self, after: u64, last: u64, limit: usize, found: &mut Vec<StoredEntry>) -> Result<(), StoreError> {
        self.0.raw_bind_parameter(1, signed(after)?)?;
        self.0.raw_bind_parameter(2, signed(last)?)?;
        let mut rows = self.0.raw_query();
        while found.len() < limit {
            let Some(row) = rows.next()? else { break };
            let sequence: i64 = row.get("sequence")?;
            let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
            let bytes: Vec<u8> = row.get("entry").map_err(|error| unreadable(&error))?;
            let leaf = row.get("leaf").map_err(|error| unreadable(&error))?;
            let entry = Entry::decode(&bytes).map_err(|error| unreadable(&error))?;
            if signed(entry.sequence)? != sequence {
                return Err(unreadable(&format_args!("its bytes say {}", entry.sequence)));
            }
            found.push(StoredEntry { entry, bytes, leaf });
        }
        Ok(())
    }
}

/// The conditions on an entry, and those on the summary of its block. The texts are constants, and the values are bound.
struct Conditions {
    of_entries: String,
    entry_values: Vec<Value>,
    of_blocks: String,
    block_values: Vec<Value>,
}

impl Conditions {
    fn of(filter: &EntryFilter) -> Self {
        let EntryFilter { nodes, key, node, principal, operation, outcome, from, to } = filter;
        // `?1 IS NOT NULL` is true: the statement has its parameter in any case.
        let mut all =
            Self { of_entries: String::new(), entry_values: Vec::new(), of_blocks: "?1 IS NOT NULL".into(), block_values: Vec::new() };
        if let Some(key) = key {
            all.entry(" AND key_id = ?", [key.to_string().into()]);
        }
        if let NodeScope::Only(nodes) = nodes {
            all.is_in("node", nodes.iter().map(|node| node.as_str().to_owned().into()).collect());
        }
        let texts = [
            ("node", node.as_ref().map(NodeName::as_str)),
            ("principal", principal.as_deref()),
            ("operation", operation.map(Operation::as_str)),
            ("outcome", outcome.map(Outcome::as_str)),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                all.is_in(column, vec![text.to_owned().into()]);
            }
        }
        if from.is_some() || to.is_some() {
            let [first, last] = [from.unwrap_or(EARLIEST), to.unwrap_or(LATEST)];
            all.entry(" AND at >= ? AND at < ?", [first.micros().into(), last.micros().into()]);
            all.block("field = 'minute' AND value BETWEEN ? AND ?", vec![minute_of(first).into(), minute_of(last).into()]);
        }
        all
    }

    /// The plus prevents that SQLite walks another index, which would have to be sorted again.
    fn is_in(&mut self, column: &str, values: Vec<Value>) {
        let places = vec!["?"; values.len()].join(", ");
        self.entry(&format!(" AND +{column} IN ({places})"), values.clone());
        self.block(&format!("field = '{column}' AND value IN ({places})"), values);
    }

    fn entry(&mut self, text: &str, values: impl IntoIterator<Item = Value>) {
        self.of_entries.push_str(text);
        self.entry_values.extend(values);
    }

    fn block(&mut self, text: &str, values: Vec<Value>) {
        for part in [" AND EXISTS (SELECT 1 FROM audit_blocks WHERE block = ?1 AND ", text, ")"] {
            self.of_blocks.push_str(part);
        }
        self.block_values.extend(values);
    }
}

const EARLIEST: Timestamp = Timestamp::from_micros(i64::MIN);
const LATEST: Timestamp = Timestamp::from_micros(i64::MAX);
