//! Queries of the audit log: block by block, from either end, within a time. All given filters must match.
//!
//! A block whose summary or digest lacks a value is skipped, and so are the parts of blocks without the key. The stored bytes of an entry decide whether
//! it is listed. A query that does not find enough in its time gives what it found, and the place where it stopped.

use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use rusqlite::{Connection, Statement, types::Value};

use super::{
    EntryFilter, EntryPage, PageRequest, StoreError, StoredEntry,
    blocks::{block_of, minute_of},
    digests,
    error::{corrupt, signed},
    rows::unsigned,
    spans::{Span, Spans},
};
use crate::{
    audit::Entry,
    domain::{Hex, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp},
    storage::{Order, digest},
};

/// Entries in the order of the filter. Looks at one block at least, so that every page goes on.
pub(super) fn entries(db: &Connection, filter: &EntryFilter, page: PageRequest, time: Duration) -> Result<EntryPage, StoreError> {
    let deadline = Instant::now() + time;
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let wanted = digest::wanted(filter);
    let mut summary = SummaryConditions::of(filter).prepare(db)?;
    let contained = contained(filter);
    let (limit, mut found) = (page.limit as usize, Vec::new());
    let mut spans = Spans::of(db, pages(filter, page, newest), filter.order, filter.key)?;
    while found.len() < limit {
        let Some(span) = spans.next()? else { break };
        let block = block_of(span.last);
        if !spans.is_summarized(span.last) || (digests::can_hold(db, block, &wanted)? && holds(&mut summary, block)?) {
            read(db, span, filter, &contained, limit, &mut found)?;
        }
        let left = spans.left();
        if found.len() < limit && left.after < left.last && Instant::now() >= deadline {
            let stopped_at = if filter.order == Order::Newest { left.last.saturating_add(1) } else { left.after };
            return Ok(EntryPage { entries: found, stopped_at: Some(stopped_at) });
        }
    }
    Ok(EntryPage { entries: found, stopped_at: None })
}

/// The entries that a page can have.
fn pages(filter: &EntryFilter, page: PageRequest, newest: u64) -> Span {
    let last = filter.last.unwrap_or(newest).min(newest);
    match filter.order {
        Order::Oldest => Span { after: filter.after.max(page.after), last },
        Order::Newest if page.after == 0 => Span { after: filter.after, last },
        Order::Newest => Span { after: filter.after, last: last.min(page.after - 1) },
    }
}

/// Reads the matching entries of `span`, until `found` has `limit` entries.
fn read(
    db: &Connection,
    span: Span,
    filter: &EntryFilter,
    contained: &Contained,
    limit: usize,
    found: &mut Vec<StoredEntry>,
) -> Result<(), StoreError> {
    let mut sql = db.prepare_cached(match filter.order {
        Order::Oldest => "SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence",
        Order::Newest => "SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence DESC",
    })?;
    let mut rows = sql.query((signed(span.after)?, signed(span.last)?))?;
    while found.len() < limit {
        let Some(row) = rows.next()? else { break };
        let sequence: i64 = row.get(0)?;
        let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
        let bytes = row.get_ref(1)?.as_blob().map_err(|error| unreadable(&error))?;
        if bytes.is_empty() || !contained.in_entry(bytes) {
            continue;
        }
        let leaf = row.get(2).map_err(|error| unreadable(&error))?;
        let entry = Entry::decode(bytes).map_err(|error| unreadable(&error))?;
        if signed(entry.sequence)? != sequence {
            return Err(unreadable(&format_args!("its bytes say {}", entry.sequence)));
        }
        if filter.includes(&entry) {
            found.push(StoredEntry { entry, bytes: bytes.to_vec(), leaf });
        }
    }
    Ok(())
}

/// Texts that the bytes of a listed entry contain: of each group at least one. Other entries need not be decoded.
pub(super) struct Contained(Vec<Vec<Finder<'static>>>);

impl Contained {
    /// The texts of entries about a key.
    pub(super) fn key(id: KeyId) -> Self {
        Self(vec![vec![field("key_id", &id.to_string())]])
    }

    /// Whether an entry has them.
    pub(super) fn in_entry(&self, bytes: &[u8]) -> bool {
        self.0.iter().all(|one_of| one_of.iter().any(|text| text.find(bytes).is_some()))
    }
}

/// A field with its value, as the form of an entry has it.
fn field(name: &str, value: &str) -> Finder<'static> {
    text(&format!("\"{name}\":{}", quoted(value)))
}

fn quoted(value: &str) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn text(text: &str) -> Finder<'static> {
    Finder::new(text).into_owned()
}

fn contained(filter: &EntryFilter) -> Contained {
    // Times and places are compared after decoding.
    let EntryFilter { nodes, key, node, principal, certificate, operation, outcome, request_id, trace_id, job, wrapper_key, .. } = filter;
    let mut all = Vec::new();
    if let NodeScope::Only(nodes) = nodes {
        all.push(nodes.iter().map(|node| field("node", node.as_str())).collect());
    }
    let fields = [
        ("key_id", key.map(|id| id.to_string())),
        ("node", node.as_ref().map(NodeName::to_string)),
        ("principal", principal.clone()),
        ("certificate", certificate.map(|digest| Hex(&digest).to_string())),
        ("operation", operation.map(|operation| operation.to_string())),
        ("outcome", outcome.map(|outcome| outcome.to_string())),
        ("trace_id", trace_id.clone()),
    ];
    all.extend(fields.into_iter().filter_map(|(name, value)| Some(vec![field(name, &value?)])));
    // These are in one of several fields, or a part of one.
    let parts = [request_id.as_deref().map(quoted), job.map(|id| id.to_string()), wrapper_key.map(|id| id.to_string())];
    all.extend(parts.into_iter().flatten().map(|part| vec![text(&part)]));
    Contained(all)
}

/// The conditions on the summary of a block. The texts are constants, and the values are bound.
struct SummaryConditions {
    sql: String,
    values: Vec<Value>,
}

impl SummaryConditions {
    fn of(filter: &EntryFilter) -> Self {
        let EntryFilter { nodes, node, principal, operation, outcome, from, to, .. } = filter;
        // `?1 IS NOT NULL` is true: the statement has its parameter in any case.
        let mut all = Self { sql: "SELECT ?1 IS NOT NULL".into(), values: Vec::new() };
        if let NodeScope::Only(nodes) = nodes {
            all.is_in("node", nodes.iter().map(|node| node.as_str().to_owned().into()).collect());
        }
        let texts = [
            ("node", node.as_ref().map(NodeName::as_str)),
            ("principal", principal.as_deref()),
            ("operation", operation.map(Operation::as_str)),
            ("outcome", outcome.map(Outcome::as_str)),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                all.is_in(field, vec![text.to_owned().into()]);
            }
        }
        if from.is_some() || to.is_some() {
            let [first, last] = [from.unwrap_or(EARLIEST), to.unwrap_or(LATEST)];
            all.has("field = 'minute' AND value BETWEEN ? AND ?", vec![minute_of(first).into(), minute_of(last).into()]);
        }
        all
    }

    fn is_in(&mut self, field: &str, values: Vec<Value>) {
        let places = vec!["?"; values.len()].join(", ");
        self.has(&format!("field = '{field}' AND value IN ({places})"), values);
    }

    fn has(&mut self, text: &str, values: Vec<Value>) {
        for part in [" AND EXISTS (SELECT 1 FROM audit_blocks WHERE block = ?1 AND ", text, ")"] {
            self.sql.push_str(part);
        }
        self.values.extend(values);
    }

    fn prepare(self, db: &Connection) -> Result<Statement<'_>, StoreError> {
        let mut statement = db.prepare(&self.sql)?;
        for (number, value) in (2..).zip(&self.values) {
            statement.raw_bind_parameter(number, value)?;
        }
        Ok(statement)
    }
}

/// Whether the summary of a block has all values.
fn holds(summary: &mut Statement<'_>, block: u64) -> Result<bool, StoreError> {
    summary.raw_bind_parameter(1, signed(block)?)?;
    let mut rows = summary.raw_query();
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?.unwrap_or(false))
}

const EARLIEST: Timestamp = Timestamp::from_micros(i64::MIN);
const LATEST: Timestamp = Timestamp::from_micros(i64::MAX);
