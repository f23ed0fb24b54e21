//! Queries of the log of an instance, its digests and totals, and the removal of archived entries. The stored bytes of an entry decide whether it
//! is listed: columns and digests only help to find it.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{
    EntryFilter, EntryPage, PageRequest, StoreError, StoredEntry, Totals, TotalsQuery,
    chain::newest,
    connect::{Db, execute, execute_one, number, rows},
    error::{corrupt, signed, unsigned},
};
use crate::{
    audit::{Entry, leaf_hash},
    domain::{Dimension, Hex, NodeName, NodeScope, Operation, Outcome, Timestamp},
    storage::{
        MAX_GROUPS, Order,
        digest::{self, BlockDigest, Count, DigestBuilder, Group},
        totals::{Groups, column, count_entry, date, sorted},
    },
};

/// Entries in a block.
const BLOCK: u64 = 1024;
/// Blocks whose digests are read at once by a query.
const WINDOW: u64 = 256;
/// Blocks that one call digests.
const BLOCKS_AT_ONCE: u64 = 4;
/// Entries that one transaction removes.
const REMOVED_AT_ONCE: u64 = 256;

const fn block_of(sequence: u64) -> u64 {
    sequence / BLOCK
}

/// The last entry that a block can have.
const fn last_of(block: u64) -> u64 {
    block.saturating_mul(BLOCK).saturating_add(BLOCK - 1)
}

/// A query while it runs.
struct Query<'a> {
    db: &'a Db,
    instance: i32,
    filter: &'a EntryFilter,
    scope: Option<Vec<&'a str>>,
    key: Option<String>,
    wanted: Vec<digest::Term>,
    /// Whether entries with the wanted values can be in each block of a window.
    window: Option<(u64, HashMap<u64, bool>)>,
}

/// Entries in the order of the filter. Looks at one block at least, so that every page goes on.
pub(super) async fn entries(
    db: &Db,
    instance: i32,
    filter: &EntryFilter,
    page: PageRequest,
    time: Duration,
) -> Result<EntryPage, StoreError> {
    let deadline = Instant::now() + time;
    let newest = newest(db, instance).await?;
    let scope = match &filter.nodes {
        NodeScope::All => None,
        NodeScope::Only(nodes) => Some(nodes.iter().map(NodeName::as_str).collect()),
    };
    let key = filter.key.map(|key| key.to_string());
    let mut query = Query { db, instance, filter, scope, key, wanted: digest::wanted(filter), window: None };
    let (limit, mut found) = (page.limit as usize, Vec::new());
    let (mut after, mut last) = span(filter, page, newest);
    while found.len() < limit && after < last {
        let Some(block) = query.next_block(after, last).await? else { break };
        let part = (after.max(block.checked_sub(1).map_or(0, last_of)), last.min(last_of(block)));
        if query.can_hold(block).await? {
            query.scan(part, limit, &mut found).await?;
        }
        match filter.order {
            Order::Oldest => after = part.1,
            Order::Newest => last = part.0,
        }
        if found.len() < limit && after < last && Instant::now() >= deadline {
            let stopped_at = if filter.order == Order::Newest { last.saturating_add(1) } else { after };
            return Ok(EntryPage { entries: found, stopped_at: Some(stopped_at) });
        }
    }
    Ok(EntryPage { entries: found, stopped_at: None })
}

/// The entries that a page can have: after one, up to another.
fn span(filter: &EntryFilter, page: PageRequest, newest: u64) -> (u64, u64) {
    let last = filter.last.unwrap_or(newest).min(newest);
    match filter.order {
        Order::Oldest => (filter.after.max(page.after), last),
        Order::Newest if page.after == 0 => (filter.after, last),
        Order::Newest => (filter.after, last.min(page.after - 1)),
    }
}

impl Query<'_> {
    /// The block to look at next. `None` at the end.
    async fn next_block(&self, after: u64, last: u64) -> Result<Option<u64>, StoreError> {
        let is_newest_first = self.filter.order == Order::Newest;
        let Some(key) = &self.key else { return Ok(Some(block_of(if is_newest_first { last } else { after + 1 }))) };
        let function = if is_newest_first { "max" } else { "min" };
        let sql = format!(
            "SELECT coalesce({function}(sequence), 0) FROM audit_entries WHERE instance = $1 AND key_id = $2 AND sequence > $3 AND sequence <= $4"
        );
        let next = number(self.db, &sql, &[&self.instance, key, &signed(after)?, &signed(last)?]).await?;
        Ok((next > 0).then(|| block_of(next)))
    }

    /// Whether a block can have an entry of the list. `true` for a block without a digest.
    async fn can_hold(&mut self, block: u64) -> Result<bool, StoreError> {
        if !self.filter.leaves_out() {
            return Ok(true);
        }
        let number = block / WINDOW;
        if self.window.as_ref().is_none_or(|(of, _)| *of != number) {
            self.window = Some((number, self.read_window(number * WINDOW).await?));
        }
        Ok(self.window.as_ref().and_then(|(_, blocks)| blocks.get(&block)).copied().unwrap_or(true))
    }

    async fn read_window(&self, first: u64) -> Result<HashMap<u64, bool>, StoreError> {
        let filter = self.filter;
        let sql = "SELECT block, filter, ($4::text IS NULL OR principals @> ARRAY[$4]) AND ($5::text IS NULL OR operations @> ARRAY[$5])
                   AND ($6::text IS NULL OR outcomes @> ARRAY[$6]) AND ($7::text IS NULL OR nodes @> ARRAY[$7])
                   AND ($8::text[] IS NULL OR nodes && $8) AND ($9::bigint IS NULL OR last_at >= $9) AND ($10::bigint IS NULL OR first_at < $10)
                   FROM audit_digests WHERE instance = $1 AND block >= $2 AND block < $3";
        let values: super::connect::Values<'_> = &[
            &self.instance,
            &signed(first)?,
            &signed(first.saturating_add(WINDOW))?,
            &filter.principal,
            &filter.operation.map(Operation::as_str),
            &filter.outcome.map(Outcome::as_str),
            &filter.node.as_ref().map(NodeName::as_str),
            &self.scope,
            &filter.from.map(Timestamp::micros),
            &filter.to.map(Timestamp::micros),
        ];
        let mut blocks = HashMap::new();
        for row in rows(self.db, sql, values).await? {
            let bits: &[u8] = row.try_get(1)?;
            let can = row.try_get::<_, bool>(2)? && self.wanted.iter().all(|term| digest::has(bits, term));
            blocks.insert(unsigned(row.try_get(0)?)?, can);
        }
        Ok(blocks)
    }

    /// Reads the matching entries after one up to another, until `found` has `limit` entries.
    async fn scan(&self, (after, last): (u64, u64), limit: usize, found: &mut Vec<StoredEntry>) -> Result<(), StoreError> {
        let filter = self.filter;
        let direction = if filter.order == Order::Newest { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT sequence, entry, leaf FROM audit_entries WHERE instance = $1 AND sequence > $2 AND sequence <= $3 AND entry <> ''
             AND ($4::text IS NULL OR principal = $4) AND ($5::text IS NULL OR operation = $5) AND ($6::text IS NULL OR outcome = $6)
             AND ($7::text IS NULL OR node = $7) AND ($8::text[] IS NULL OR node = ANY($8)) AND ($9::text IS NULL OR key_id = $9)
             AND ($10::bigint IS NULL OR at >= $10) AND ($11::bigint IS NULL OR at < $11) ORDER BY sequence {direction}"
        );
        let values: super::connect::Values<'_> = &[
            &self.instance,
            &signed(after)?,
            &signed(last)?,
            &filter.principal,
            &filter.operation.map(Operation::as_str),
            &filter.outcome.map(Outcome::as_str),
            &filter.node.as_ref().map(NodeName::as_str),
            &self.scope,
            &self.key,
            &filter.from.map(Timestamp::micros),
            &filter.to.map(Timestamp::micros),
        ];
        for row in rows(self.db, &sql, values).await? {
            if found.len() >= limit {
                break;
            }
            let sequence: i64 = row.try_get(0)?;
            let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
            let bytes: Vec<u8> = row.try_get(1)?;
            let leaf = row.try_get::<_, &[u8]>(2)?.try_into().map_err(|error| unreadable(&error))?;
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

/// Decodes the entries from `first` to `last`.
async fn for_each_entry(db: &Db, instance: i32, first: u64, last: u64, mut look: impl FnMut(&Entry)) -> Result<(), StoreError> {
    let sql =
        "SELECT sequence, entry FROM audit_entries WHERE instance = $1 AND sequence BETWEEN $2 AND $3 AND entry <> '' ORDER BY sequence";
    for row in rows(db, sql, &[&instance, &signed(first)?, &signed(last)?]).await? {
        let sequence: i64 = row.try_get(0)?;
        look(&Entry::decode(row.try_get(1)?).map_err(|error| corrupt("audit_entries", format_args!("entry {sequence}: {error}")))?);
    }
    Ok(())
}

/// The first block without a digest.
async fn first_without(db: &Db, instance: i32) -> Result<u64, StoreError> {
    number(db, "SELECT coalesce(max(block) + 1, 0) FROM audit_digests WHERE instance = $1", &[&instance]).await
}

/// What occurs in a block, besides its digest.
#[derive(Default)]
struct Occurring {
    principals: BTreeSet<String>,
    operations: BTreeSet<&'static str>,
    nodes: BTreeSet<String>,
    outcomes: BTreeSet<&'static str>,
    first_at: Option<i64>,
    last_at: Option<i64>,
}

impl Occurring {
    fn add(&mut self, entry: &Entry) {
        self.principals.insert(entry.principal.clone());
        self.operations.insert(entry.operation.as_str());
        self.nodes.extend(entry.node.as_ref().map(NodeName::to_string));
        self.outcomes.insert(entry.outcome.as_str());
        let at = entry.at.micros();
        self.first_at = Some(self.first_at.map_or(at, |first| first.min(at)));
        self.last_at = self.last_at.max(Some(at));
    }
}

/// Makes and writes the digests of the next complete blocks, in the open transaction. Returns whether there were any.
pub(super) async fn digest(db: &Db, instance: i32) -> Result<bool, StoreError> {
    let first = first_without(db, instance).await?;
    // The block of the next entry is the first one that is not complete.
    let complete = block_of(newest(db, instance).await?.saturating_add(1));
    for block in first..complete.min(first.saturating_add(BLOCKS_AT_ONCE)) {
        let (mut digest, mut occurring) = (DigestBuilder::default(), Occurring::default());
        for_each_entry(db, instance, block * BLOCK, last_of(block), |entry| {
            digest.add(entry);
            occurring.add(entry);
        })
        .await?;
        let BlockDigest { block, filter, totals } = digest.end(block);
        write_digest(db, instance, block, &filter, occurring).await?;
        write_totals(db, instance, totals).await?;
    }
    Ok(first < complete)
}

/// Writes the digest of a block, of which the filter was copied. The rest is made from its entries.
pub(super) async fn complete_digest(db: &Db, instance: i32, block: u64, filter: &[u8]) -> Result<(), StoreError> {
    let mut occurring = Occurring::default();
    for_each_entry(db, instance, block.saturating_mul(BLOCK), last_of(block), |entry| occurring.add(entry)).await?;
    write_digest(db, instance, block, filter, occurring).await
}

async fn write_digest(db: &Db, instance: i32, block: u64, filter: &[u8], occurring: Occurring) -> Result<(), StoreError> {
    let Occurring { principals, operations, nodes, outcomes, first_at, last_at } = occurring;
    let (principals, nodes): (Vec<_>, Vec<_>) = (principals.into_iter().collect(), nodes.into_iter().collect());
    let (operations, outcomes): (Vec<_>, Vec<_>) = (operations.into_iter().collect(), outcomes.into_iter().collect());
    let (first_at, last_at) = (first_at.unwrap_or(0), last_at.unwrap_or(0));
    // Fails if the block has a digest already, so that nothing is counted twice.
    let sql = "INSERT INTO audit_digests (instance, block, filter, principals, operations, nodes, outcomes, first_at, last_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values: super::connect::Values<'_> =
        &[&instance, &signed(block)?, &filter, &principals, &operations, &nodes, &outcomes, &first_at, &last_at];
    execute_one(db, sql, values).await
}

async fn write_totals(db: &Db, instance: i32, totals: HashMap<Group, Count>) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_totals
                   (instance, day, principal, certificate, node, key_id, operation, outcome, entries, calls, first_at, last_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
               ON CONFLICT (instance, day, principal, certificate, node, key_id, operation, outcome) DO UPDATE SET
               entries = audit_totals.entries + excluded.entries, calls = audit_totals.calls + excluded.calls,
               first_at = least(audit_totals.first_at, excluded.first_at), last_at = greatest(audit_totals.last_at, excluded.last_at)";
    for (Group { day, principal, certificate, node, key, operation, outcome }, count) in totals {
        let Count { entries, calls, first_at, last_at } = count;
        let (entries, calls) = (signed(entries)?, signed(calls)?);
        let values: super::connect::Values<'_> =
            &[&instance, &day, &principal, &certificate, &node, &key, &operation, &outcome, &entries, &calls, &first_at, &last_at];
        execute_one(db, sql, values).await?;
    }
    Ok(())
}

/// Counts. The entries without a digest are read until the time is over, one block at least.
pub(super) async fn totals(db: &Db, instance: i32, query: &TotalsQuery, time: Duration) -> Result<Totals, StoreError> {
    let deadline = Instant::now() + time;
    let newest = newest(db, instance).await?;
    let mut groups = of_digests(db, instance, query).await?;
    let mut block = first_without(db, instance).await?;
    let mut counted_to = newest.min(block.checked_sub(1).map_or(0, last_of));
    while counted_to < newest && groups.len() <= MAX_GROUPS {
        let last = last_of(block).min(newest);
        for_each_entry(db, instance, counted_to.saturating_add(1), last, |entry| count_entry(&mut groups, query, entry)).await?;
        counted_to = last;
        block = block_of(last).saturating_add(1);
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(Totals { groups: sorted(groups), counted_to, complete: counted_to == newest })
}

async fn of_digests(db: &Db, instance: i32, query: &TotalsQuery) -> Result<Groups, StoreError> {
    let TotalsQuery { nodes, by, principal, certificate, node, key, operation, outcome, from, to } = query;
    let columns: Vec<&str> = by.iter().map(|dimension| column(*dimension)).collect();
    let sql = format!(
        "SELECT sum(entries)::bigint, sum(calls)::bigint, min(first_at), max(last_at), {columns} FROM audit_totals WHERE instance = $1
         AND ($2::text[] IS NULL OR node = ANY($2)) AND ($3::text IS NULL OR principal = $3) AND ($4::text IS NULL OR certificate = $4)
         AND ($5::text IS NULL OR node = $5) AND ($6::text IS NULL OR key_id = $6) AND ($7::text IS NULL OR operation = $7)
         AND ($8::text IS NULL OR outcome = $8) AND ($9::bigint IS NULL OR day >= $9) AND ($10::bigint IS NULL OR day < $10)
         GROUP BY {columns} LIMIT {}",
        MAX_GROUPS + 1,
        columns = columns.join(", "),
    );
    let scope: Option<Vec<&str>> = match nodes {
        NodeScope::All => None,
        NodeScope::Only(nodes) => Some(nodes.iter().map(NodeName::as_str).collect()),
    };
    let values: super::connect::Values<'_> = &[
        &instance,
        &scope,
        principal,
        &certificate.map(|digest| Hex(&digest).to_string()),
        &node.as_ref().map(NodeName::as_str),
        &key.map(|key| key.to_string()),
        &operation.map(Operation::as_str),
        &outcome.map(Outcome::as_str),
        from,
        to,
    ];
    let mut groups = Groups::new();
    for row in rows(db, &sql, values).await? {
        let (entries, calls) = (unsigned(row.try_get(0)?)?, unsigned(row.try_get(1)?)?);
        let count = Count { entries, calls, first_at: row.try_get(2)?, last_at: row.try_get(3)? };
        let text = |(number, dimension): (usize, &Dimension)| match dimension {
            Dimension::Day => row.try_get::<_, i64>(number).map(date),
            _ => row.try_get(number),
        };
        groups.insert((4..).zip(by).map(text).collect::<Result<Vec<String>, _>>()?, count);
    }
    Ok(groups)
}

/// Removes the next digested entries up to `through`, except state changes, in the open transaction. Returns whether there were any.
pub(super) async fn remove_some(db: &Db, instance: i32, through: u64) -> Result<bool, StoreError> {
    let position = number(db, "SELECT removal_position FROM instances WHERE number = $1 FOR UPDATE", &[&instance]).await?;
    // Totals and filters of a block are made from its entries, and stay when they are removed.
    let through = through.min(first_without(db, instance).await?.checked_sub(1).map_or(0, last_of));
    let last = position.saturating_add(REMOVED_AT_ONCE).min(through);
    if last <= position {
        return Ok(false);
    }
    let sql = "SELECT sequence, entry, leaf FROM audit_entries WHERE instance = $1 AND sequence > $2 AND sequence <= $3 AND entry <> ''";
    let mut uses: Vec<i64> = Vec::new();
    for row in rows(db, sql, &[&instance, &signed(position)?, &signed(last)?]).await? {
        let sequence: i64 = row.try_get(0)?;
        let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
        let bytes: &[u8] = row.try_get(1)?;
        if row.try_get::<_, &[u8]>(2)? != leaf_hash(bytes) {
            // An edited entry stays, as evidence.
            return Err(unreadable(&"its hash is not that of its bytes"));
        }
        // The entry itself says whether it is a state change. An edited column must not remove one.
        if !Entry::decode(bytes).map_err(|error| unreadable(&error))?.changes_state() {
            uses.push(sequence);
        }
    }
    let sql = "UPDATE audit_entries SET entry = '', principal = '', operation = '', outcome = '', key_id = NULL, node = NULL
               WHERE instance = $1 AND sequence = ANY($2)";
    execute(db, sql, &[&instance, &uses]).await?;
    execute_one(db, "UPDATE instances SET removal_position = $2 WHERE number = $1", &[&instance, &signed(last)?]).await?;
    Ok(true)
}
