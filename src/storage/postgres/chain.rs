//! The chain of state changes over all instances: verified when the store is opened, extended by the writer.

use tokio_postgres::Row;

use super::{
    StoreError,
    apply::Head,
    connect::{Db, execute, number, optional, rows},
    error::{corrupt, signed, unsigned},
    rows::{WRAPPER_KEY_COLUMNS, wrapper_key},
};
use crate::{
    audit::{Entry, leaf_hash},
    domain::NodeName,
    storage::{OpenStoreError, VerifiedState},
};

/// The revision of a store without state changes.
pub(super) const FIRST_REVISION: u64 = 1;

/// State changes that are read at once.
const PAGE: i64 = 4096;

/// Reads the whole chain and compares it with the columns that repeat it.
///
/// # Errors
/// [`OpenStoreError::BrokenChain`] names the first state change that does not follow.
pub(super) async fn verify(db: &Db, instance: i32, name: &str) -> Result<VerifiedState, OpenStoreError> {
    let stored = number(db, "SELECT store_revision FROM meta", &[]).await?;
    // The chain of a store that was copied from SQLite can begin later: an earlier program counted changes without it, or an operator accepted a state.
    let first = optional(db, "SELECT min(state_revision) FROM audit_entries WHERE state_revision IS NOT NULL", &[]).await?;
    let first: Option<i64> = first.map(|row| row.try_get(0)).transpose().map_err(StoreError::from)?.flatten();
    let before = match first {
        Some(first) => unsigned(first)?.saturating_sub(1),
        None => stored.min(FIRST_REVISION),
    };
    let mut state = VerifiedState::of_instance(before, name);
    let caught_up = catch_up(db, &mut state).await;
    let broken = |why: String| OpenStoreError::BrokenChain { revision: state.revision.saturating_add(1), why };
    match caught_up {
        Err(error @ StoreError::Corrupt { .. }) => return Err(broken(error.to_string())),
        other => other?,
    }
    let sql = format!("SELECT {CHECKED_COLUMNS} FROM audit_entries WHERE instance = $1 ORDER BY sequence DESC LIMIT 1");
    let logged = match optional(db, &sql, &[&instance]).await? {
        Some(row) => checked_entry(&row).map_err(|error| broken(error.to_string()))?.0.state_revision.unwrap_or(0),
        None => FIRST_REVISION,
    };
    if logged > state.revision || stored != state.revision {
        let what =
            format!("the newest entry counts {logged} state changes and the table meta {stored}, but the chain has {}", state.revision);
        return Err(broken(what));
    }
    Ok(state)
}

/// Extends `state` by the state changes that the database has after it.
///
/// # Errors
/// [`StoreError::Corrupt`] names the first entry that does not follow, or whose columns or hash do not belong to its bytes. The changes before
/// it are applied.
pub(super) async fn catch_up(db: &Db, state: &mut VerifiedState) -> Result<(), StoreError> {
    let sql = format!("SELECT {CHECKED_COLUMNS} FROM audit_entries WHERE state_revision > $1 ORDER BY state_revision LIMIT $2");
    loop {
        let found = rows(db, &sql, &[&signed(state.revision)?, &PAGE]).await?;
        if found.is_empty() {
            return Ok(());
        }
        for row in &found {
            let (entry, leaf) = checked_entry(row)?;
            let wrong = |what| corrupt("audit_entries", format_args!("entry {}: {what}", entry.sequence));
            state.extend(&entry, leaf).map_err(wrong)?;
        }
    }
}

/// The columns that [`checked_entry`] reads.
pub(super) const CHECKED_COLUMNS: &str = "sequence, entry, leaf, at, principal, operation, key_id, node, outcome, key_revision";

/// The entry of a row of [`CHECKED_COLUMNS`], and its leaf hash.
///
/// # Errors
/// [`StoreError::Corrupt`] if the hash or a column does not belong to the bytes of the entry.
pub(super) fn checked_entry(row: &Row) -> Result<(Entry, [u8; 32]), StoreError> {
    let sequence: i64 = row.try_get("sequence")?;
    let wrong = |what: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {what}"));
    let bytes: &[u8] = row.try_get("entry")?;
    let leaf = leaf_hash(bytes);
    if row.try_get::<_, &[u8]>("leaf")? != leaf {
        return Err(wrong(&"its hash is not that of its bytes"));
    }
    let entry = Entry::decode(bytes).map_err(|error| wrong(&error))?;
    if columns_agree(row, &entry)? { Ok((entry, leaf)) } else { Err(wrong(&"its index columns do not agree with its bytes")) }
}

fn columns_agree(row: &Row, entry: &Entry) -> Result<bool, StoreError> {
    let (key_id, node) = (entry.key_id.map(|id| id.to_string()), entry.node.as_ref().map(NodeName::as_str));
    Ok(row.try_get::<_, i64>("sequence")? == signed(entry.sequence)?
        && row.try_get::<_, i64>("at")? == entry.at.micros()
        && row.try_get::<_, &str>("principal")? == entry.principal
        && row.try_get::<_, &str>("operation")? == entry.operation.as_str()
        && row.try_get::<_, Option<&str>>("key_id")? == key_id.as_deref()
        && row.try_get::<_, Option<&str>>("node")? == node
        && row.try_get::<_, &str>("outcome")? == entry.outcome.as_str()
        && row.try_get::<_, Option<i64>>("key_revision")? == entry.revision.map(signed).transpose()?)
}

/// The end of the log of an instance, and the verified state.
pub(super) async fn head(db: &Db, instance: i32, state: &VerifiedState) -> Result<Head, StoreError> {
    let sequence = newest(db, instance).await?;
    let VerifiedState { revision, head, frozen, .. } = state;
    Ok(Head { sequence, store_revision: *revision, frozen: *frozen, chain: *head })
}

/// The sequence number of the newest entry of an instance. 0 if there is none.
pub(super) async fn newest(db: &Db, instance: i32) -> Result<u64, StoreError> {
    number(db, "SELECT coalesce(max(sequence), 0) FROM audit_entries WHERE instance = $1", &[&instance]).await
}

/// Writes the columns that repeat the chain as the chain has them: the states of wrapper keys and the freeze. Returns what was wrong.
pub(super) async fn repair_columns(db: &Db, state: &VerifiedState) -> Result<Vec<String>, StoreError> {
    let (mut wrong, mut right) = (Vec::new(), Vec::new());
    for row in rows(db, &format!("SELECT {WRAPPER_KEY_COLUMNS} FROM wrapper_keys ORDER BY position"), &[]).await? {
        let key = wrapper_key(&row)?;
        let Some(verified) = state.wrapper_key(key.id) else {
            wrong.push(format!("the wrapper key {} is in no entry of the log", key.id));
            continue;
        };
        if verified.identity != key.identity || verified.state != key.state {
            let (found, logged) = ((&key.identity, key.state), (&verified.identity, verified.state));
            wrong.push(format!("the wrapper key {} is {found:?}, and the log says {logged:?}", key.id));
        }
        right.push((key.id.to_string(), verified));
    }
    if !wrong.is_empty() {
        // Another order could have two active keys for a moment, which the index refuses.
        execute(db, "UPDATE wrapper_keys SET state = 'retired'", &[]).await?;
        for (id, verified) in right {
            let sql = "UPDATE wrapper_keys SET state = $2, identity = $3 WHERE id = $1";
            execute(db, sql, &[&id, &verified.state.as_str(), &verified.identity]).await?;
        }
    }
    if execute(db, "UPDATE meta SET frozen = $1 WHERE frozen <> $1", &[&state.frozen]).await? > 0 {
        wrong.push(format!("frozen was not {}, as the log says", state.frozen));
    }
    Ok(wrong)
}
