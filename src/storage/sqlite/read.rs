//! Reads of single rows: one key with its newest state change in the audit log, and the state of the store.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    IdempotencyRecord, IdempotencyScope, StoreError, StoreState, StoredKey, UnreadableKey, WrapperKeyUse,
    error::corrupt,
    jobs,
    rows::{self, KEY_COLUMNS, WRAPPER_KEY_COLUMNS, unsigned},
};
use crate::{
    audit::Entry,
    domain::{KeyId, KeyState, ProviderKind, StateChange, Timestamp, UnknownText, WrapperKey, WrapperState},
};

/// A key, its wraps, its newest state change in the audit log and the revision of the store. The transaction of the reader makes them one
/// snapshot.
pub(super) fn key(db: &Connection, id: KeyId) -> Result<Option<StoredKey>, StoreError> {
    let mut sql = db.prepare_cached(&format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = ?1"))?;
    let mut rows = sql.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let record = rows::key(db, row)?;
    let store_revision: i64 = db.prepare_cached("SELECT store_revision FROM meta")?.query_row([], |row| row.get(0))?;
    Ok(Some(StoredKey { record, logged_state: logged(db, id)?, store_revision: unsigned(store_revision)? }))
}

/// What is known of a key whose row cannot be read.
pub(super) fn unreadable_key(db: &Connection, id: KeyId) -> Result<Option<UnreadableKey>, StoreError> {
    let mut sql = db.prepare_cached("SELECT node FROM keys WHERE id = ?1")?;
    let node = sql.query_row([id.to_string()], |row| Ok(row.get::<_, String>(0).ok())).optional()?;
    let Some(node) = node else { return Ok(None) };
    Ok(Some(UnreadableKey { node: node.and_then(|text| text.parse().ok()), logged_state: logged(db, id)? }))
}

/// The newest state change of a key. The index finds the entry, but only the hashed bytes of the entry are trusted.
pub(super) fn logged(db: &Connection, id: KeyId) -> Result<Option<StateChange>, StoreError> {
    // The index is named, because the wider index would scan all signatures of a busy key.
    let sql = "SELECT entry FROM audit_entries INDEXED BY audit_entries_states
               WHERE key_id = ?1 AND key_revision IS NOT NULL ORDER BY sequence DESC LIMIT 1";
    let bytes: Option<Vec<u8>> = db.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0)).optional()?;
    let Some(bytes) = bytes else { return Ok(None) };
    let unreadable = |why: String| corrupt("audit_entries", format_args!("the newest state change of {id}: {why}"));
    let entry = Entry::decode(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if entry.key_id != Some(id) {
        return Err(unreadable(format!("entry {} is about another key", entry.sequence)));
    }
    entry.state_change().map_err(|error| unreadable(error.to_string()))
}

/// Keys whose deletion is due, the oldest first. A row without a readable id does not block others.
pub(super) fn due_for_destruction(db: &Connection, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError> {
    let sql = "SELECT id FROM keys WHERE delete_at <= ?1 AND state = 'pending-deletion' ORDER BY delete_at, position LIMIT ?2";
    let mut sql = db.prepare_cached(sql)?;
    let ids = sql.query_map(params![now.micros(), limit], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let readable =
        |id: String| id.parse().inspect_err(|error| tracing::error!(%id, %error, "a key that is due for destruction is skipped")).ok();
    Ok(ids.into_iter().filter_map(readable).collect())
}

/// Each state with its number of keys. A lifecycle that cannot be read counts as quarantined.
pub(super) fn keys_by_state(db: &Connection) -> Result<Vec<(KeyState, u64)>, StoreError> {
    let mut counts: Vec<(KeyState, u64)> = KeyState::ALL.iter().map(|state| (*state, 0)).collect();
    let mut sql = db.prepare_cached("SELECT state, count(*) FROM keys GROUP BY state")?;
    let mut rows = sql.query([])?;
    while let Some(row) = rows.next()? {
        let state = row.get::<_, String>(0)?.parse().unwrap_or(KeyState::Quarantined);
        let number = unsigned(row.get(1)?)?;
        counts.iter_mut().filter(|(of, _)| *of == state).for_each(|(_, count)| *count += number);
    }
    Ok(counts)
}

/// All wrapper keys, oldest first.
pub(super) fn wrapper_keys(db: &Connection) -> Result<Vec<WrapperKey>, StoreError> {
    let mut sql = db.prepare_cached(&format!("SELECT {WRAPPER_KEY_COLUMNS} FROM wrapper_keys ORDER BY position"))?;
    let mut rows = sql.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(rows::wrapper_key(row)?);
    }
    Ok(all)
}

/// All wrapper keys, oldest first, each with the number of keys with a wrap under it, quarantined or not.
pub(super) fn keys_by_wrapper_key(db: &Connection) -> Result<Vec<WrapperKeyUse>, StoreError> {
    let sql = format!(
        "SELECT {WRAPPER_KEY_COLUMNS}, last_used_at, (SELECT count(DISTINCT key) FROM wraps WHERE wrapper_key = wrapper_keys.id) AS keys
         FROM wrapper_keys ORDER BY position"
    );
    let mut sql = db.prepare_cached(&sql)?;
    let mut rows = sql.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let last_used_at = row.get::<_, Option<i64>>("last_used_at")?.map(Timestamp::from_micros);
        all.push(WrapperKeyUse { key: rows::wrapper_key(row)?, keys: unsigned(row.get("keys")?)?, last_used_at });
    }
    Ok(all)
}

/// The number of wraps that are not quarantined, by provider and state of their wrapper keys.
pub(super) fn wraps_by_state(db: &Connection) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError> {
    let sql = "SELECT provider, state, sum(wraps) FROM
                   (SELECT provider, state, (SELECT count(*) FROM wraps WHERE wrapper_key = wrapper_keys.id AND quarantined = 0) AS wraps
                    FROM wrapper_keys)
               GROUP BY provider, state";
    let mut sql = db.prepare_cached(sql)?;
    let mut rows = sql.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let unreadable = |error: UnknownText| corrupt("wrapper_keys", error);
        let (provider, state): (String, String) = (row.get(0)?, row.get(1)?);
        all.push((provider.parse().map_err(unreadable)?, state.parse().map_err(unreadable)?, unsigned(row.get(2)?)?));
    }
    Ok(all)
}

/// The idempotency record of an earlier request, if it has not expired.
pub(super) fn idempotency_record(
    db: &Connection,
    scope: &IdempotencyScope,
    now: Timestamp,
) -> Result<Option<IdempotencyRecord>, StoreError> {
    let IdempotencyScope { principal, route, key } = scope;
    let sql = "SELECT body_hash, answer FROM idempotency WHERE principal = ?1 AND route = ?2 AND key = ?3 AND expires_at > ?4";
    let mut sql = db.prepare_cached(sql)?;
    let found = sql.query_row(params![principal, route, key, now.micros()], |row| {
        Ok(IdempotencyRecord { body_hash: row.get("body_hash")?, answer: row.get("answer")? })
    });
    Ok(found.optional()?)
}

/// The state of the store as a whole. The transaction of the reader makes it one snapshot.
pub(super) fn state(db: &Connection) -> Result<StoreState, StoreError> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
    let (revision, frozen) = db.prepare_cached("SELECT store_revision, frozen FROM meta")?.query_row([], read)?;
    let running_job = jobs::running(db)?;
    Ok(StoreState { revision: unsigned(revision)?, frozen, running_job })
}
