//! Reads of single rows, with the verified state in place of columns that no hash covers.

use std::sync::{PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    IdempotencyRecord, IdempotencyScope, StoreError, StoreState, StoredKey, UnreadableKey, WrapperKeyUse,
    chain::OF_THIS_LOG,
    error::{corrupt, signed},
    jobs,
    rows::{self, KEY_COLUMNS, WRAPPER_KEY_COLUMNS, unsigned},
};
use crate::{
    domain::{KeyId, KeyState, ProviderKind, StateChange, Timestamp, UnknownText, WrapperKey, WrapperState},
    storage::{SinkCursor, StoredCheckpoint, VerifiedState, idempotency_digest},
};

/// What a read found, or that the snapshot and the verified state are not of the same moment: read again.
pub(super) enum Snapshot<T> {
    Read(T),
    Moved,
}

impl<T> Snapshot<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Snapshot<U> {
        match self {
            Self::Read(found) => Snapshot::Read(map(found)),
            Self::Moved => Snapshot::Moved,
        }
    }
}

/// The revision of the snapshot. `Moved` unless the verified state has at least this revision: the writer publishes it after its commit.
pub(super) fn snapshot_revision(db: &Connection, state: &VerifiedState) -> Result<Snapshot<u64>, StoreError> {
    let revision: i64 = db.prepare_cached("SELECT store_revision FROM meta")?.query_row([], |row| row.get(0))?;
    let revision = unsigned(revision)?;
    Ok(if revision > state.revision { Snapshot::Moved } else { Snapshot::Read(revision) })
}

/// A key, its wraps, its newest verified state and the revision of the store. The transaction of the reader makes row and revision one
/// snapshot.
pub(super) fn key(db: &Connection, state: &RwLock<VerifiedState>, id: KeyId) -> Result<Snapshot<Option<StoredKey>>, StoreError> {
    let mut sql = db.prepare_cached(&format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = ?1"))?;
    let mut rows = sql.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(Snapshot::Read(None)) };
    let record = rows::key(db, row)?;
    Ok(verified_key(db, state, id)?.map(|(logged_state, store_revision)| Some(StoredKey { record, logged_state, store_revision })))
}

/// The newest state of a key and the revision of the snapshot.
fn verified_key(db: &Connection, state: &RwLock<VerifiedState>, id: KeyId) -> Result<Snapshot<(Option<StateChange>, u64)>, StoreError> {
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let Snapshot::Read(revision) = snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
    let key = state.key(id);
    if key.is_some_and(|key| key.state_revision > revision) {
        return Ok(Snapshot::Moved);
    }
    Ok(Snapshot::Read((key.map(|key| key.change), revision)))
}

/// What is known of a key whose row cannot be read.
pub(super) fn unreadable_key(
    db: &Connection,
    state: &RwLock<VerifiedState>,
    id: KeyId,
) -> Result<Snapshot<Option<UnreadableKey>>, StoreError> {
    let mut sql = db.prepare_cached("SELECT node FROM keys WHERE id = ?1")?;
    let node = sql.query_row([id.to_string()], |row| Ok(row.get::<_, String>(0).ok())).optional()?;
    let Some(node) = node else { return Ok(Snapshot::Read(None)) };
    let node = node.and_then(|text| text.parse().ok());
    Ok(verified_key(db, state, id)?.map(|(logged_state, _)| Some(UnreadableKey { node, logged_state })))
}

/// The wrapper keys with their verified states.
pub(super) fn verified_wrapper_keys(db: &Connection, state: &RwLock<VerifiedState>) -> Result<Snapshot<Vec<WrapperKey>>, StoreError> {
    let mut keys = wrapper_keys(db)?;
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let Snapshot::Read(_) = snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
    for key in &mut keys {
        verify_wrapper_key(key, &state)?;
    }
    Ok(Snapshot::Read(keys))
}

/// As [`verified_wrapper_keys`], with their use.
pub(super) fn verified_keys_by_wrapper_key(
    db: &Connection,
    state: &RwLock<VerifiedState>,
) -> Result<Snapshot<Vec<WrapperKeyUse>>, StoreError> {
    let mut keys = keys_by_wrapper_key(db)?;
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let Snapshot::Read(_) = snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
    for key in &mut keys {
        verify_wrapper_key(&mut key.key, &state)?;
    }
    Ok(Snapshot::Read(keys))
}

/// Puts the verified state in place of the column, which no hash covers, and adds the name.
fn verify_wrapper_key(key: &mut WrapperKey, state: &VerifiedState) -> Result<(), StoreError> {
    let Some(verified) = state.wrapper_key(key.id).filter(|verified| verified.identity == key.identity) else {
        return Err(corrupt("wrapper_keys", format_args!("{} is not the wrapper key that the log registers", key.id)));
    };
    if verified.state != key.state {
        tracing::error!(wrapper_key = %key.id, stored = %key.state, logged = %verified.state, "the state of a wrapper key in the database is not the one in the log, which counts");
        key.state = verified.state;
    }
    key.name.clone_from(&verified.name);
    Ok(())
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

/// The idempotency record of an earlier request, if it has not expired. The log must confirm it.
pub(super) fn idempotency_record(
    db: &Connection,
    state: &RwLock<VerifiedState>,
    scope: &IdempotencyScope,
    now: Timestamp,
) -> Result<Snapshot<Option<IdempotencyRecord>>, StoreError> {
    let IdempotencyScope { principal, route, key } = scope;
    let sql = "SELECT body_hash, answer FROM idempotency WHERE principal = ?1 AND route = ?2 AND key = ?3 AND expires_at > ?4";
    let mut sql = db.prepare_cached(sql)?;
    let found = sql.query_row(params![principal, route, key, now.micros()], |row| {
        Ok(IdempotencyRecord { body_hash: row.get("body_hash")?, answer: row.get("answer")? })
    });
    let Some(record) = found.optional()? else { return Ok(Snapshot::Read(None)) };
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let Snapshot::Read(_) = snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
    if !state.has_idempotency(&idempotency_digest(scope, &record)) {
        return Err(corrupt("idempotency", "a record was changed: no entry of the log confirms it"));
    }
    Ok(Snapshot::Read(Some(record)))
}

/// The state of the store as a whole. The freeze is the verified one.
pub(super) fn state(db: &Connection, state: &RwLock<VerifiedState>) -> Result<Snapshot<StoreState>, StoreError> {
    let running_job = jobs::running(db)?;
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    let VerifiedState { frozen, incarnation, checkpoint_key, .. } = *state;
    Ok(snapshot_revision(db, &state)?.map(|revision| StoreState { revision, frozen, incarnation, checkpoint_key, running_job }))
}

/// How far a sink has the log.
pub(super) fn sink_cursor(db: &Connection, sink: &str) -> Result<Option<SinkCursor>, StoreError> {
    let sql = "SELECT sequence, leaf, at FROM audit_sinks WHERE name = ?1";
    let found: Option<(i64, [u8; 32], i64)> =
        db.prepare_cached(sql)?.query_row([sink], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let cursor = |(sequence, leaf, at)| Ok(SinkCursor { sequence: unsigned(sequence)?, leaf, at: Timestamp::from_micros(at) });
    found.map(cursor).transpose()
}

/// The checkpoint of a log with the most entries.
pub(super) fn newest_checkpoint(db: &Connection, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
    let sql = "SELECT size, note, at FROM audit_checkpoints WHERE origin = ?1 ORDER BY size DESC LIMIT 1";
    let found: Option<(i64, Vec<u8>, i64)> =
        db.prepare_cached(sql)?.query_row([origin], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((size, note, at)) = found else { return Ok(None) };
    let note = String::from_utf8(note).map_err(|error| corrupt("audit_checkpoints", error))?;
    Ok(Some(StoredCheckpoint { origin: origin.to_owned(), size: unsigned(size)?, note, at: Timestamp::from_micros(at) }))
}

/// The most checkpoints of one answer, about.
const MAX_CHECKPOINTS: u64 = 10_000;

/// Checkpoints between two sizes. If there are too many, the last one of each part of the log.
pub(super) fn checkpoints(db: &Connection, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
    let part = (before.saturating_sub(after) / MAX_CHECKPOINTS).max(1);
    // SQLite takes the other columns from the row with the maximum.
    let sql = format!(
        "SELECT max(size), origin, note, at FROM audit_checkpoints WHERE size > ?1 AND size < ?2 AND {OF_THIS_LOG} GROUP BY size / ?3 ORDER BY 1"
    );
    let mut sql = db.prepare_cached(&sql)?;
    let mut rows = sql.query((signed(after)?, signed(before)?, signed(part)?))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let note = String::from_utf8(row.get::<_, Vec<u8>>(2)?).map_err(|error| corrupt("audit_checkpoints", error))?;
        all.push(StoredCheckpoint { size: unsigned(row.get(0)?)?, origin: row.get(1)?, note, at: Timestamp::from_micros(row.get(3)?) });
    }
    Ok(all)
}
