//! Totals of the log, from the totals of the blocks with a digest and from the entries after them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params_from_iter, types::Value};

use super::{
    StoreError,
    blocks::{block_of, last_of},
    digests,
    rows::unsigned,
};
use crate::{
    domain::{Dimension, Hex, NodeName, NodeScope},
    storage::{
        MAX_GROUPS, Totals, TotalsQuery,
        digest::Count,
        totals::{Groups, column, count_entry, date, sorted},
    },
};

/// Counts. The entries without a digest are read until the time is over, one block at least: usually there are at most some thousand.
pub(super) fn totals(db: &Connection, query: &TotalsQuery, time: Duration) -> Result<Totals, StoreError> {
    let deadline = Instant::now() + time;
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let mut groups = of_digests(db, query)?;
    let mut block = digests::first_without(db)?;
    let mut counted_to = newest.min(block.checked_sub(1).map_or(0, last_of));
    while counted_to < newest && groups.len() <= MAX_GROUPS {
        let last = last_of(block).min(newest);
        digests::for_each_entry(db, counted_to.saturating_add(1), last, |entry| count_entry(&mut groups, query, entry))?;
        counted_to = last;
        block = block_of(last).saturating_add(1);
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(Totals { groups: sorted(groups), counted_to, complete: counted_to == newest })
}

fn of_digests(db: &Connection, query: &TotalsQuery) -> Result<Groups, StoreError> {
    let columns: Vec<&str> = query.by.iter().map(|dimension| column(*dimension)).collect();
    let (mut conditions, mut values) = (vec!["TRUE".to_owned()], Vec::<Value>::new());
    for (text, value) in filters(query) {
        conditions.push(text);
        values.extend(value);
    }
    let sql = format!(
        "SELECT sum(entries), sum(calls), min(first_at), max(last_at), {columns} FROM audit_totals WHERE {} GROUP BY {columns} LIMIT {}",
        conditions.join(" AND "),
        MAX_GROUPS + 1,
        columns = columns.join(", "),
    );
    let mut sql = db.prepare_cached(&sql)?;
    let mut rows = sql.query(params_from_iter(values))?;
    let mut groups = HashMap::new();
    while let Some(row) = rows.next()? {
        let count = Count { entries: unsigned(row.get(0)?)?, calls: unsigned(row.get(1)?)?, first_at: row.get(2)?, last_at: row.get(3)? };
        let text = |(number, dimension): (usize, &Dimension)| match dimension {
            Dimension::Day => row.get::<_, i64>(number).map(date),
            _ => row.get(number),
        };
        groups.insert((4..).zip(&query.by).map(text).collect::<Result<Vec<String>, _>>()?, count);
    }
    Ok(groups)
}

/// The conditions of the query on the rows of `audit_totals`. The texts are constants, and the values are bound.
fn filters(query: &TotalsQuery) -> Vec<(String, Vec<Value>)> {
    let TotalsQuery { nodes, by: _, principal, certificate, node, key, operation, outcome, from, to } = query;
    let mut filters = Vec::new();
    if let NodeScope::Only(nodes) = nodes {
        let places = vec!["?"; nodes.len()].join(", ");
        filters.push((format!("node IN ({places})"), nodes.iter().map(|node| node.as_str().to_owned().into()).collect()));
    }
    let texts = [
        ("principal = ?", principal.clone()),
        ("certificate = ?", certificate.map(|digest| Hex(&digest).to_string())),
        ("node = ?", node.as_ref().map(NodeName::to_string)),
        ("key_id = ?", key.map(|key| key.to_string())),
        ("operation = ?", operation.map(|operation| operation.to_string())),
        ("outcome = ?", outcome.map(|outcome| outcome.to_string())),
    ];
    filters.extend(texts.into_iter().filter_map(|(text, value)| Some((text.to_owned(), vec![value?.into()]))));
    let days = [("day >= ?", from), ("day < ?", to)];
    filters.extend(days.into_iter().filter_map(|(text, day)| Some((text.to_owned(), vec![(*day)?.into()]))));
    filters
}
