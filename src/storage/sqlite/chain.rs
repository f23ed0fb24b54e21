//! The chain of state changes in the database: verified when the store is opened, extended by the writer, and begun for a store of an earlier
//! schema.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, Row, params, types::ValueRef};

use super::{
    OpenStoreError, StoreError,
    apply::{self, Head},
    error::corrupt,
    read,
    rows::unsigned,
};
use crate::{
    audit::{Entry, Source, StatePosition, leaf_hash},
    domain::{AuditEvent, KeyId, NodeName, Operation, Principal, Timestamp},
    storage::{CHAIN_START, VerifiedState, pending::Batch, wrapper_key_names::WrapperKeyNames},
};

/// Reads the whole chain and compares it with the newest entry and with the columns that repeat it. 100,000 state changes take less than a
/// second.
///
/// # Errors
/// [`OpenStoreError::BrokenChain`] names the first state change that does not follow.
pub(super) fn verify(db: &Connection) -> Result<VerifiedState, OpenStoreError> {
    // With the condition of the index, without which this would read the whole log.
    let first: Option<i64> = db
        .query_row(
            "SELECT min(first) FROM (SELECT min(state_revision) AS first FROM audit_entries WHERE state_revision IS NOT NULL UNION ALL
                                     SELECT min(state_revision) FROM other_entries WHERE state_revision IS NOT NULL)",
            [],
            |row| row.get(0),
        )
        .map_err(StoreError::from)?;
    let stored = store_revision(db)?;
    let before = match first {
        Some(first) => unsigned(first)?.saturating_sub(1),
        None => stored.min(FIRST_REVISION),
    };
    let mut state = VerifiedState::before(before);
    catch_up(db, &mut state).map_err(|error| broken(&state, error.to_string()))?;
    let newest = newest_entry(db).map_err(|error| broken(&state, error.to_string()))?;
    let logged = newest.and_then(|entry| entry.state_revision).unwrap_or(state.revision);
    // Another log can have the newest state changes.
    let agrees = logged == state.revision || (logged < state.revision && has_other_logs(db)?);
    if !agrees || stored != state.revision {
        let what =
            format!("the newest entry counts {logged} state changes and the table meta {stored}, but the chain has {}", state.revision);
        return Err(broken(&state, what));
    }
    Ok(state)
}

fn broken(state: &VerifiedState, why: String) -> OpenStoreError {
    OpenStoreError::BrokenChain { revision: state.revision.saturating_add(1), why }
}

/// The revision of a store without state changes.
const FIRST_REVISION: u64 = 1;

fn store_revision(db: &Connection) -> Result<u64, StoreError> {
    unsigned(db.query_row("SELECT store_revision FROM meta", [], |row| row.get(0))?)
}

/// Whether the file has the logs of other instances.
pub(super) fn has_other_logs(db: &Connection) -> Result<bool, StoreError> {
    Ok(db.query_row("SELECT EXISTS (SELECT 1 FROM other_logs)", [], |row| row.get(0))?)
}

/// Extends `state` by the state changes that the database has after it, in all logs.
///
/// # Errors
/// [`StoreError::Corrupt`] names the first entry that does not follow, or whose columns or hash do not belong to its bytes. The changes before
/// it are applied.
pub(super) fn catch_up(db: &Connection, state: &mut VerifiedState) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT {CHECKED_COLUMNS}, 0 AS other FROM audit_entries WHERE state_revision > ?1 UNION ALL
         SELECT {CHECKED_COLUMNS}, 1 FROM other_entries WHERE state_revision > ?1 ORDER BY state_revision"
    );
    let mut sql = db.prepare_cached(&sql)?;
    let mut rows = sql.query([super::error::signed(state.revision)?])?;
    while let Some(row) = rows.next()? {
        let (mut entry, leaf) = checked_entry(row)?;
        if row.get("other")? {
            // What concerns the other log only.
            (entry.incarnation, entry.removed_through) = (None, None);
        }
        let wrong = |what| corrupt("audit_entries", format_args!("entry {}: {what}", entry.sequence));
        state.extend(&entry, leaf).map_err(wrong)?;
    }
    Ok(())
}

/// The columns that [`checked_entry`] reads.
pub(super) const CHECKED_COLUMNS: &str = "sequence, entry, leaf, state_revision, changed_key";

/// The entry of a row of [`CHECKED_COLUMNS`], and its leaf hash.
///
/// # Errors
/// [`StoreError::Corrupt`] if the hash or a column does not belong to the bytes of the entry.
pub(super) fn checked_entry(row: &Row<'_>) -> Result<(Entry, [u8; 32]), StoreError> {
    let sequence: i64 = row.get("sequence")?;
    let wrong = |what: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {what}"));
    let bytes = row.get_ref("entry")?.as_blob().map_err(|error| wrong(&error))?;
    let leaf = leaf_hash(bytes);
    if row.get_ref("leaf")?.as_blob().ok() != Some(leaf.as_slice()) {
        return Err(wrong(&"its hash is not that of its bytes"));
    }
    let entry = Entry::decode(bytes).map_err(|error| wrong(&error))?;
    if columns_agree(row, &entry) { Ok((entry, leaf)) } else { Err(wrong(&"its index columns do not agree with its bytes")) }
}

/// Whether the index columns of a row of [`CHECKED_COLUMNS`] are those of its entry. After an operator accepted a broken chain, the state changes before
/// it have no `state_revision`.
pub(super) fn columns_agree(row: &Row<'_>, entry: &Entry) -> bool {
    let column = |name: &str| row.get_ref(name).unwrap_or(ValueRef::Null);
    let number = |name: &str| column(name).as_i64().ok().map(u64::try_from);
    let changed_key = entry.revision.and(entry.key_id).map(|id| id.to_string());
    let chained = match number("state_revision") {
        None => column("state_revision") == ValueRef::Null,
        Some(revision) => entry.changes_state() && revision.ok() == entry.state_revision,
    };
    chained && number("sequence") == Some(Ok(entry.sequence)) && column("changed_key").as_str_or_null().ok() == Some(changed_key.as_deref())
}

/// The newest entry of the log.
pub(super) fn newest_entry(db: &Connection) -> Result<Option<Entry>, StoreError> {
    let sql = "SELECT sequence, entry FROM audit_entries ORDER BY sequence DESC LIMIT 1";
    let found: Option<(i64, Vec<u8>)> = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((sequence, bytes)) = found else { return Ok(None) };
    let entry = Entry::decode(&bytes).map_err(|error| corrupt("audit_entries", format_args!("entry {sequence}: {error}")))?;
    if u64::try_from(sequence) == Ok(entry.sequence) {
        Ok(Some(entry))
    } else {
        Err(corrupt("audit_entries", format_args!("entry {sequence} has the number {}", entry.sequence)))
    }
}

/// Whether the store was written by programs without the chain only. A newest entry that cannot be read is of no earlier program.
pub(super) fn is_older(db: &Connection) -> Result<bool, StoreError> {
    match newest_entry(db) {
        Ok(Some(entry)) => Ok(entry.state_revision.is_none()),
        Ok(None) => Ok(store_revision(db)? > FIRST_REVISION),
        Err(StoreError::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The incarnation after the newest one that any entry names.
pub(super) fn next_incarnation(db: &Connection) -> Result<u64, StoreError> {
    let mut sql = db.prepare("SELECT entry FROM audit_entries WHERE instr(entry, CAST('\"incarnation\":' AS BLOB)) > 0")?;
    let mut rows = sql.query([])?;
    let mut newest = 1;
    while let Some(row) = rows.next()? {
        let named = Entry::decode(row.get_ref(0)?.as_blob().unwrap_or_default()).ok().and_then(|entry| entry.incarnation);
        newest = newest.max(named.unwrap_or(1));
    }
    Ok(newest.saturating_add(1))
}

/// Begins a chain, in one transaction: one entry restates the wrapper keys, the freeze and the removal of entries, and one entry each key. States of keys and names of
/// wrapper keys are those of the newest entries, and not those of the index columns. `reason` says why.
pub(super) fn begin(db: &Connection, source: &Source, now: Timestamp, reason: &str, incarnation: Option<u64>) -> Result<(), StoreError> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let result = restate(db, source, now, reason, incarnation);
    db.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn restate(db: &Connection, source: &Source, now: Timestamp, reason: &str, incarnation: Option<u64>) -> Result<(), StoreError> {
    let numbered: Option<i64> =
        db.query_row("SELECT max(state_revision) FROM audit_entries WHERE state_revision IS NOT NULL", [], |row| row.get(0))?;
    let revision = store_revision(db)?.max(unsigned(numbered.unwrap_or(0))?);
    db.execute("UPDATE audit_entries SET state_revision = NULL WHERE state_revision IS NOT NULL", [])?;
    // Nothing in the log confirms them.
    db.execute("DELETE FROM idempotency", [])?;
    let keys = newest_states(db)?;
    let frozen: bool = db.query_row("SELECT frozen FROM meta", [], |row| row.get(0))?;
    let sequence: i64 = db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?;
    let mut head = Head { sequence: unsigned(sequence)?, store_revision: revision, frozen, chain: CHAIN_START };
    let mut batch = Batch::default();
    let event =
        || AuditEvent { reason: Some(reason.to_owned()), ..AuditEvent::new(now, Principal::system(), Operation::RestateState, "-".into()) };
    let names = wrapper_key_names(db)?;
    let wrapper_keys = read::wrapper_keys(db)?.into_iter().map(|key| names.restate(key)).collect();
    // A chain that begins after removals states them too. The operator accepts the log as it is.
    let removed: i64 = db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries WHERE entry = x''", [], |row| row.get(0))?;
    let removed_through = Some(unsigned(removed)?).filter(|removed| *removed > 0);
    let position = StatePosition { frozen: Some(frozen), wrapper_keys, incarnation, removed_through, ..StatePosition::default() };
    apply::log(db, source, &mut head, &event(), Some(position), &mut batch)?;
    for (id, (node, change)) in keys {
        let event = AuditEvent { key: Some(id), node, change: Some(change), ..event() };
        apply::log(db, source, &mut head, &event, Some(StatePosition::default()), &mut batch)?;
        batch = Batch::default();
    }
    apply::write_revision(db, head.store_revision)
}

type NewestState = (Option<NodeName>, crate::domain::StateChange);

/// The newest state of each key by the bytes of all entries. A key with an entry that cannot be read, or whose column names another key, is
/// omitted: its state is not known.
fn newest_states(db: &Connection) -> Result<BTreeMap<KeyId, NewestState>, StoreError> {
    let mut sql = db.prepare(
        "SELECT sequence, entry, changed_key FROM audit_entries WHERE instr(entry, CAST('\"revision\":' AS BLOB)) > 0 ORDER BY sequence",
    )?;
    let mut rows = sql.query([])?;
    let (mut keys, mut doubtful) = (BTreeMap::new(), BTreeSet::new());
    while let Some(row) = rows.next()? {
        let (sequence, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let column: Option<KeyId> = row.get::<_, Option<String>>(2).ok().flatten().and_then(|id| id.parse().ok());
        let entry = Entry::decode(&bytes).ok();
        let change = entry.as_ref().map(Entry::state_change).transpose().ok().flatten();
        let id = entry.as_ref().and_then(|entry| entry.key_id);
        if change.is_none() || id != column {
            tracing::error!(sequence, "this audit entry cannot be read; the key that it is about stays quarantined");
            doubtful.extend(id.into_iter().chain(column));
        }
        if let (Some(entry), Some(id), Some(Some(change))) = (entry, id, change) {
            keys.insert(id, (entry.node, change));
        }
    }
    keys.retain(|id, _| !doubtful.contains(id));
    Ok(keys)
}

/// The newest name of each wrapper key by the bytes of all entries. Entries that cannot be read are passed over.
fn wrapper_key_names(db: &Connection) -> Result<WrapperKeyNames, StoreError> {
    let mut sql =
        db.prepare("SELECT entry FROM audit_entries WHERE instr(entry, CAST('\"wrapper_keys\":' AS BLOB)) > 0 ORDER BY sequence")?;
    let mut rows = sql.query([])?;
    let mut names = WrapperKeyNames::default();
    while let Some(row) = rows.next()? {
        if let Ok(entry) = Entry::decode(row.get_ref(0)?.as_blob().unwrap_or_default()) {
            names.look(&entry);
        }
    }
    Ok(names)
}

/// Writes the columns that repeat the chain as the chain has them: the states of wrapper keys and the freeze. Returns what was wrong.
pub(super) fn repair_columns(db: &Connection, state: &VerifiedState) -> Result<Vec<String>, StoreError> {
    let mut wrong = Vec::new();
    for key in read::wrapper_keys(db)? {
        let Some(verified) = state.wrapper_key(key.id) else {
            wrong.push(format!("the wrapper key {} is in no entry of the log", key.id));
            continue;
        };
        if verified.identity != key.identity {
            wrong.push(format!("the wrapper key {} is {}, and the log says {}", key.id, key.identity, verified.identity));
        }
        if verified.state != key.state {
            wrong.push(format!("the wrapper key {} is {}, and the log says {}", key.id, key.state, verified.state));
        }
    }
    if wrong.iter().any(|what| what.contains("wrapper key")) {
        // Another order could have two active keys for a moment, which the index refuses.
        db.execute("UPDATE wrapper_keys SET state = 'retired'", [])?;
        for key in read::wrapper_keys(db)? {
            if let Some(verified) = state.wrapper_key(key.id) {
                let sql = "UPDATE wrapper_keys SET state = ?2, identity = ?3 WHERE id = ?1";
                db.execute(sql, params![key.id.to_string(), verified.state.as_str(), verified.identity])?;
            }
        }
    }
    let frozen: bool = db.query_row("SELECT frozen FROM meta", [], |row| row.get(0))?;
    if frozen != state.frozen {
        wrong.push(format!("frozen is {frozen}, and the log says {}", state.frozen));
        db.execute("UPDATE meta SET frozen = ?1", [state.frozen])?;
    }
    Ok(wrong)
}

/// The checkpoints that are not of another log, as a condition on their origin.
pub(super) const OF_THIS_LOG: &str =
    "NOT EXISTS (SELECT 1 FROM other_logs CROSS JOIN meta WHERE instr(origin, vault || '/' || other_logs.name || '/') = 1)";
