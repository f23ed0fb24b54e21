//! Queries of the audit log: block by block, from either end, within a time. All given filters must match.
//!
//! A block whose summary or digest lacks a value is skipped, and the entries of a key are found by an index. The stored bytes of an entry decide
//! whether it is listed. A query that does not find enough in its time gives what it found, and the place where it stopped.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement, types::Value};

use super::{
    EntryFilter, EntryPage, PageRequest, StoreError, StoredEntry,
    blocks::{block_of, last_of, minute_of},
    digests,
    error::{corrupt, signed},
    rows::unsigned,
};
use crate::{
    audit::Entry,
    domain::{Hex, NodeName, NodeScope, Operation, Outcome, Timestamp},
    storage::Order,
};

/// Entries in the order of the filter. Looks at one block at least, so that every page goes on.
pub(super) fn entries(db: &Connection, filter: &EntryFilter, page: PageRequest, time: Duration) -> Result<EntryPage, StoreError> {
    let deadline = Instant::now() + time;
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let conditions = Conditions::of(filter);
    let wanted = digests::wanted(filter);
    let mut summary = Prepared::new(db, &format!("SELECT {}", conditions.of_blocks), 1, &conditions.block_values)?;
    let direction = if filter.order == Order::Newest { " DESC" } else { "" };
    let sql = format!(
        "SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 AND entry <> x''{} ORDER BY sequence{direction}",
        conditions.of_entries
    );
    let mut scan = Prepared::new(db, &sql, 2, &conditions.entry_values)?;
    let (limit, mut found) = (page.limit as usize, Vec::new());
    let mut left = Span::of(filter, page, newest);
    while found.len() < limit {
        let Some(part) = left.next_part(db, filter)? else { break };
        if digests::can_hold(db, block_of(part.last), &wanted)? && summary.holds(block_of(part.last))? {
            scan.read(part, filter, limit, &mut found)?;
        }
        left = left.without(part, filter.order);
        if found.len() < limit && left.after < left.last && Instant::now() >= deadline {
            let stopped_at = if filter.order == Order::Newest { left.last.saturating_add(1) } else { left.after };
            return Ok(EntryPage { entries: found, stopped_at: Some(stopped_at) });
        }
    }
    Ok(EntryPage { entries: found, stopped_at: None })
}

/// The entries after one up to another.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: u64,
    last: u64,
}

impl Span {
    /// The entries that a page can have.
    fn of(filter: &EntryFilter, page: PageRequest, newest: u64) -> Self {
        let last = filter.last.unwrap_or(newest).min(newest);
        match filter.order {
            Order::Oldest => Self { after: filter.after.max(page.after), last },
            Order::Newest if page.after == 0 => Self { after: filter.after, last },
            Order::Newest => Self { after: filter.after, last: last.min(page.after - 1) },
        }
    }

    /// The part to look at next, which is in one block. `None` at the end.
    fn next_part(self, db: &Connection, filter: &EntryFilter) -> Result<Option<Self>, StoreError> {
        let Self { after, last } = self;
        if after >= last {
            return Ok(None);
        }
        let first = match filter.order {
            Order::Oldest => after + 1,
            Order::Newest => last,
        };
        let block = match &filter.key {
            None => block_of(first),
            Some(key) => {
                let sql = match filter.order {
                    Order::Oldest => "SELECT min(sequence) FROM audit_entries WHERE key_id = ?1 AND sequence > ?2 AND sequence <= ?3",
                    Order::Newest => "SELECT max(sequence) FROM audit_entries WHERE key_id = ?1 AND sequence > ?2 AND sequence <= ?3",
                };
                let values = (key.to_string(), signed(after)?, signed(last)?);
                let next: Option<i64> = db.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
                let Some(next) = next else { return Ok(None) };
                block_of(unsigned(next)?)
            }
        };
        let before_block = block.checked_sub(1).map_or(0, last_of);
        Ok(Some(Self { after: after.max(before_block), last: last.min(last_of(block)) }))
    }

    /// What is left after a part from [`Span::next_part`].
    const fn without(self, part: Self, order: Order) -> Self {
        match order {
            Order::Oldest => Self { after: part.last, last: self.last },
            Order::Newest => Self { after: self.after, last: part.after },
        }
    }
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

    /// Reads the matching entries of `part`, until `found` has `limit` entries.
    fn read(&mut self, part: Span, filter: &EntryFilter, limit: usize, found: &mut Vec<StoredEntry>) -> Result<(), StoreError> {
        self.0.raw_bind_parameter(1, signed(part.after)?)?;
        self.0.raw_bind_parameter(2, signed(part.last)?)?;
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
            if filter.includes(&entry) {
                found.push(StoredEntry { entry, bytes, leaf });
            }
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
        let EntryFilter {
            nodes,
            key,
            node,
            principal,
            certificate,
            operation,
            outcome,
            request_id,
            trace_id,
            job,
            wrapper_key,
            from,
            to,
            ..
        } = filter;
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
        // These have no column. An entry with the value has it as a JSON string, or as a part of one.
        let quoted = |text: &String| serde_json::to_string(text).unwrap_or_default();
        let contained = [
            certificate.as_ref().map(|digest| Hex(digest).to_string()),
            request_id.as_ref().map(quoted),
            trace_id.as_ref().map(quoted),
            job.map(|id| id.to_string()),
            wrapper_key.map(|id| id.to_string()),
        ];
        for text in contained.into_iter().flatten() {
            all.entry(" AND instr(entry, ?) > 0", [Value::Blob(text.into_bytes())]);
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
