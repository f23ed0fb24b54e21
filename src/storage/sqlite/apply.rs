//! The effect of one commit inside the transaction of its batch: check the precondition, apply the change, store the idempotency record,
//! write the entry.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    CommitError, Receipt, StoreError,
    error::{corrupt, signed},
    jobs,
    rows::{self, revision_of},
};
use crate::{
    audit::{Entry, EntryError, Source, StatePosition, encode_use, leaf_hash},
    domain::{AuditEvent, KeyId, KeyName, StateChange, Timestamp, Wrap, WrapperKeyId, WrapperState},
    storage::{
        Change, Commit, KeyPrecondition, KeyUpdate, NewIdempotencyRecord, VerifiedState, idempotency_digest,
        pending::{Batch, View},
    },
};

/// The state of the database, including the open transaction, as the writer keeps it in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The sequence number of the newest entry. 0 if there is none.
    pub(super) sequence: u64,
    /// The number of the newest state change.
    pub(super) store_revision: u64,
    /// Whether the vault is frozen.
    pub(super) frozen: bool,
    /// The leaf hash of the newest state change.
    pub(super) chain: [u8; 32],
}

impl Head {
    /// The sequence number of the database, and the verified state.
    pub(super) fn read(db: &Connection, state: &VerifiedState) -> Result<Self, StoreError> {
        let sequence: i64 = db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?;
        let VerifiedState { revision, head, frozen, .. } = state;
        Ok(Self { sequence: rows::unsigned(sequence)?, store_revision: *revision, frozen: *frozen, chain: *head })
    }
}

/// What a commit is checked against: the verified state, and the changes of the open transaction after it.
pub(super) struct Verified<'a> {
    pub(super) state: &'a VerifiedState,
    pub(super) batch: &'a mut Batch,
}

impl Verified<'_> {
    /// The state that commits are checked against.
    fn view(&self) -> View<'_> {
        View { state: self.state, pending: &self.batch.pending }
    }

    /// Refuses a change whose preconditions read columns that the log does not confirm.
    fn check_wrapper_keys(&self, db: &Connection) -> Result<(), StoreError> {
        let mut sql = db.prepare_cached("SELECT id, state FROM wrapper_keys")?;
        let mut rows = sql.query([])?;
        while let Some(row) = rows.next()? {
            let (id, state): (String, String) = (row.get(0)?, row.get(1)?);
            let verified = id.parse().ok().and_then(|id| self.view().wrapper_key(id));
            if verified.map(WrapperState::as_str) != Some(state.as_str()) {
                return Err(corrupt("wrapper_keys", format_args!("{id} is {state}, and the log says {verified:?}")));
            }
        }
        Ok(())
    }
}

/// Applies one commit completely or not at all. The other commits of the batch are not affected.
pub(super) fn isolated(
    db: &Connection,
    source: &Source,
    head: &mut Head,
    verified: &mut Verified<'_>,
    commit: &Commit,
) -> Result<Receipt, CommitError> {
    if verified.view().is_entry_alone(commit) {
        // A use is the most frequent commit and consists of one INSERT, which needs no savepoint.
        return whole(db, source, head, verified, commit);
    }
    let before = (*head, verified.batch.pending.len(), verified.batch.leaves.len());
    run(db, "SAVEPOINT one")?;
    let result = whole(db, source, head, verified, commit);
    if result.is_err() {
        *head = before.0;
        verified.batch.pending.truncate(before.1);
        verified.batch.leaves.truncate(before.2);
        // Some errors end the whole transaction. Then there is no savepoint to roll back.
        if !db.is_autocommit() {
            run(db, "ROLLBACK TO one")?;
        }
    }
    if !db.is_autocommit() {
        run(db, "RELEASE one")?;
    }
    result
}

/// Writes the revision of the store.
pub(super) fn write_revision(db: &Connection, revision: u64) -> Result<(), StoreError> {
    execute_one(db, "UPDATE meta SET store_revision = ?1", [signed(revision)?])
}

/// Deletes at most `limit` expired idempotency records. Returns their number.
pub(super) fn purge(db: &Connection, now: Timestamp, limit: u32) -> Result<usize, StoreError> {
    let sql = "DELETE FROM idempotency WHERE (principal, route, key) IN
               (SELECT principal, route, key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute(params![now.micros(), limit])?)
}

fn whole(db: &Connection, source: &Source, head: &mut Head, verified: &mut Verified<'_>, commit: &Commit) -> Result<Receipt, CommitError> {
    let Commit { change, idempotency, precondition, event, further } = commit;
    if let Some(precondition) = precondition {
        check(db, head, precondition)?;
    }
    if let Some(idempotency) = idempotency {
        remember(db, idempotency, event.at)?;
    }
    let changes_state = verified.view().changes_state(commit);
    let mut link = None;
    if let Some(change) = change {
        link = apply(db, head, verified, change)?;
    }
    let digest = idempotency.as_ref().map(|new| idempotency_digest(&new.scope, &new.record));
    let position = changes_state.then(|| StatePosition { idempotency: digest, ..verified.view().position(change.as_ref()) });
    log(db, source, head, event, position, verified.batch)?;
    for event in further {
        log(db, source, head, event, None, verified.batch)?;
    }
    let sequence = head.sequence;
    if let Some(link) = link {
        log(db, source, head, link, Some(StatePosition::default()), verified.batch)?;
    }
    Ok(Receipt { sequence, store_revision: head.store_revision })
}

/// Refuses a result whose precondition no longer holds. A frozen vault refuses it in any case, because the check is free.
fn check(db: &Connection, head: &Head, precondition: &KeyPrecondition) -> Result<(), CommitError> {
    let moved_on = precondition.store_revision != head.store_revision;
    if head.frozen || (moved_on && revision_of(db, precondition.key)? != Some(precondition.revision)) {
        return Err(CommitError::Stale);
    }
    Ok(())
}

fn remember(db: &Connection, idempotency: &NewIdempotencyRecord, now: Timestamp) -> Result<(), CommitError> {
    let NewIdempotencyRecord { scope, record, expires_at } = idempotency;
    let sql = "INSERT INTO idempotency (principal, route, key, body_hash, answer, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (principal, route, key) DO UPDATE
               SET body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
               WHERE idempotency.expires_at <= ?7";
    let values = params![scope.principal, scope.route, scope.key, record.body_hash, record.answer, expires_at.micros(), now.micros()];
    if execute(db, sql, values)? == 0 { Err(CommitError::IdempotencyKeyTaken) } else { Ok(()) }
}

/// Applies the change. Returns the event of a second entry, if the change has one.
fn apply<'a>(db: &Connection, head: &mut Head, verified: &Verified<'_>, change: &'a Change) -> Result<Option<&'a AuditEvent>, CommitError> {
    let reads_wrapper_keys = !matches!(
        change,
        Change::UpdateKey(_) | Change::Withdraw(_) | Change::Rename { .. } | Change::SetAside { .. } | Change::QuarantineWrap { .. }
    );
    if reads_wrapper_keys && !matches!(change, Change::SetFrozen(_) | Change::BeginIncarnation(_) | Change::RemoveEntries { .. }) {
        verified.check_wrapper_keys(db)?;
    }
    match change {
        Change::InsertKey { record, active, link, replaces } => {
            let id = record.attributes.id;
            match (replaces, revision_of(db, id)?) {
                (None, None) => {}
                (None, Some(_)) => return Err(CommitError::KeyExists),
                (Some(revision), found) => {
                    let destroyed = |logged: StateChange| logged.lifecycle.is_destroyed() && logged.revision == *revision;
                    if found != Some(*revision) || !verified.view().key(id).is_some_and(destroyed) {
                        return Err(CommitError::LostRace);
                    }
                    rows::delete_key(db, id)?;
                }
            }
            if active_wrapper_key(db)? != Some(active.to_string()) {
                return Err(CommitError::ActiveWrapperChanged);
            }
            rows::insert_key(db, record)?;
            if let Some((update, _)) = link {
                update_key(db, update)?;
            }
            return Ok(link.as_ref().map(|(_, event)| &**event));
        }
        Change::UpdateKey(update) => update_key(db, update)?,
        Change::Withdraw(update) => {
            if verified.view().is_used(update.key) {
                return Err(CommitError::LostRace);
            }
            update_key(db, update)?;
        }
        Change::Rename { key, from, to } => rename(db, *key, from.as_ref(), to.as_ref())?,
        Change::SetAside { key, to } => set_aside(db, verified, *key, *to)?,
        Change::QuarantineWrap { key, wrapper_key, generation, wrapped } => quarantine_wrap(db, *key, *wrapper_key, *generation, wrapped)?,
        Change::AddWrap { key, wrap } => add_wrap(db, *key, wrap)?,
        Change::Reseal(reseal) => jobs::reseal(db, reseal)?,
        Change::StartJob(job) => jobs::start(db, job)?,
        Change::EndJob(end) => jobs::end(db, end)?,
        Change::BeginRetirement(wrapper_key) => jobs::begin_retirement(db, *wrapper_key)?,
        Change::Retire(retirement) => jobs::retire(db, retirement)?,
        Change::InsertWrapperKey(wrapper_key) => {
            if exists(db, "SELECT 1 FROM wrapper_keys WHERE identity = ?1", [&wrapper_key.identity])? {
                return Err(CommitError::WrapperKeyExists);
            }
            if wrapper_key.state == WrapperState::Active && active_wrapper_key(db)?.is_some() {
                return Err(CommitError::ActiveWrapperChanged);
            }
            rows::insert_wrapper_key(db, wrapper_key)?;
        }
        Change::RenameWrapperKey { id, to: _ } => {
            if !exists(db, "SELECT 1 FROM wrapper_keys WHERE id = ?1", [id.to_string()])? {
                return Err(CommitError::LostRace);
            }
        }
        Change::SetWrapperKeyRegions { id, from, to } => {
            let sql = "UPDATE wrapper_keys SET regions = ?3 WHERE id = ?1 AND regions = ?2";
            if execute(db, sql, params![id.to_string(), rows::regions(from)?, rows::regions(to)?])? == 0 {
                return Err(CommitError::LostRace);
            }
        }
        Change::SetFrozen(frozen) => {
            execute_one(db, "UPDATE meta SET frozen = ?1", [frozen])?;
            head.frozen = *frozen;
        }
        Change::BeginIncarnation(_) => {}
        Change::RemoveEntries { through } => {
            let pending = verified.batch.pending.iter().filter_map(|(entry, _)| entry.removed_through).max().unwrap_or(0);
            if *through <= pending.max(verified.state.removed_through) || *through > head.sequence {
                return Err(CommitError::LostRace);
            }
        }
    }
    Ok(None)
}

pub(super) fn update_key(db: &Connection, update: &KeyUpdate) -> Result<(), CommitError> {
    let KeyUpdate { key, if_revision, to, row_tag, reinstate_wrap } = update;
    let id = key.to_string();
    let sql = "UPDATE keys SET revision = ?3, lifecycle = ?4, successor = ?5, delete_at = ?6, row_tag = ?7,
               sealed = CASE WHEN ?8 THEN NULL ELSE sealed END WHERE id = ?1 AND revision = ?2";
    let destroyed = to.lifecycle.is_destroyed();
    let values = params![
        id,
        signed(*if_revision)?,
        signed(to.revision)?,
        to.lifecycle.to_string(),
        to.successor.map(|id| id.to_string()),
        to.delete_at.map(Timestamp::micros),
        row_tag,
        destroyed
    ];
    if execute(db, sql, values)? == 0 {
        return Err(CommitError::LostRace);
    }
    if destroyed {
        execute(db, "DELETE FROM wraps WHERE key = ?1", [&id])?;
    }
    if let Some(wrapper_key) = reinstate_wrap {
        let sql = "UPDATE wraps SET quarantined = 0 WHERE key = ?1 AND wrapper_key = ?2
                   AND generation = (SELECT generation FROM keys WHERE id = ?1)";
        execute(db, sql, params![id, wrapper_key.to_string()])?;
    }
    Ok(())
}

fn rename(db: &Connection, key: KeyId, from: Option<&KeyName>, to: Option<&KeyName>) -> Result<(), CommitError> {
    let sql = "UPDATE keys SET name = ?3 WHERE id = ?1 AND name IS ?2";
    let changed = execute(db, sql, params![key.to_string(), from.map(KeyName::as_str), to.map(KeyName::as_str)])?;
    if changed == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}

fn set_aside(db: &Connection, verified: &Verified<'_>, key: KeyId, to: StateChange) -> Result<(), CommitError> {
    if verified.view().key(key).map_or(0, |logged| logged.revision).saturating_add(1) != to.revision {
        return Err(CommitError::LostRace);
    }
    let sql = "UPDATE keys SET revision = ?2, lifecycle = ?3, successor = ?4, delete_at = ?5, row_tag = NULL WHERE id = ?1";
    let (successor, delete_at) = (to.successor.map(|id| id.to_string()), to.delete_at.map(Timestamp::micros));
    let changed = execute(db, sql, params![key.to_string(), signed(to.revision)?, to.lifecycle.to_string(), successor, delete_at])?;
    if changed == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}

fn quarantine_wrap(db: &Connection, key: KeyId, wrapper_key: WrapperKeyId, generation: u32, wrapped: &[u8]) -> Result<(), CommitError> {
    let sql = "UPDATE wraps SET quarantined = 1 WHERE key = ?1 AND wrapper_key = ?2 AND generation = ?3 AND wrapped = ?4";
    let changed = execute(db, sql, params![key.to_string(), wrapper_key.to_string(), generation, wrapped])?;
    if changed == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}

/// Inserts a wrap of the current generation. It replaces a quarantined wrap only.
fn add_wrap(db: &Connection, key: KeyId, wrap: &Wrap) -> Result<(), CommitError> {
    let (id, wrapper_key) = (key.to_string(), wrap.wrapper_key.to_string());
    let filled = "SELECT 1 FROM wrapper_keys WHERE id = ?1 AND state IN ('active', 'standby')";
    if !exists(db, filled, [&wrapper_key])? {
        return Err(CommitError::WrapperKeyNotFilled);
    }
    if !exists(db, "SELECT 1 FROM keys WHERE id = ?1 AND generation = ?2 AND sealed IS NOT NULL", params![id, wrap.generation])? {
        return Err(CommitError::LostRace);
    }
    let broken = "DELETE FROM wraps WHERE key = ?1 AND wrapper_key = ?2 AND generation = ?3 AND (quarantined = 1 OR verified_at IS NULL)";
    execute(db, broken, params![id, wrapper_key, wrap.generation])?;
    if exists(db, "SELECT 1 FROM wraps WHERE key = ?1 AND wrapper_key = ?2 AND generation = ?3", params![id, wrapper_key, wrap.generation])?
    {
        return Err(CommitError::LostRace);
    }
    Ok(rows::insert_wrap(db, &id, wrap)?)
}

pub(super) fn exists(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<bool, StoreError> {
    Ok(db.prepare_cached(sql)?.exists(values)?)
}

pub(super) fn active_wrapper_key(db: &Connection) -> Result<Option<String>, StoreError> {
    let mut sql = db.prepare_cached("SELECT id FROM wrapper_keys WHERE state = 'active'")?;
    Ok(sql.query_row([], |row| row.get(0)).optional()?)
}

/// Numbers the event and writes its entry. With a `position`, the entry is the next state change of the chain.
pub(super) fn log(
    db: &Connection,
    source: &Source,
    head: &mut Head,
    event: &AuditEvent,
    position: Option<StatePosition>,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let sequence = head.sequence + 1;
    let failed = |error: EntryError| StoreError::Failed(error.to_string());
    let change = position.map(|position| {
        let position = StatePosition { revision: head.store_revision + 1, previous: Some(head.chain), ..position };
        Entry::new(sequence, source, event, position)
    });
    let bytes = match &change {
        Some(entry) => entry.encode().map_err(failed)?,
        None => encode_use(sequence, source, event, head.store_revision).map_err(failed)?,
    };
    let leaf = leaf_hash(&bytes);
    let state_revision = change.as_ref().and_then(|entry| entry.state_revision);
    let changed_key = event.change.and(event.key).map(|id| id.to_string());
    let sql = "INSERT INTO audit_entries (sequence, entry, leaf, state_revision, changed_key) VALUES (?1, ?2, ?3, ?4, ?5)";
    execute_one(db, sql, params![signed(sequence)?, bytes, leaf, state_revision.map(signed).transpose()?, changed_key])?;
    for wrapper_key in &event.kms.wrapper_keys {
        let sql = "UPDATE wrapper_keys SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE id = ?1";
        execute(db, sql, params![wrapper_key.to_string(), event.at.micros()])?;
    }
    head.sequence = sequence;
    batch.leaves.push(leaf);
    if let Some((entry, revision)) = change.zip(state_revision) {
        (head.store_revision, head.chain) = (revision, leaf);
        batch.pending.push((entry, leaf));
    }
    Ok(())
}

/// Executes a statement that must change exactly one row. Another number shows that the database does something else than it was told.
pub(super) fn execute_one(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
    match execute(db, sql, values)? {
        1 => Ok(()),
        changed => {
            Err(StoreError::Failed(format!("a statement changed {changed} rows instead of one: check the structure of the database")))
        }
    }
}

pub(super) fn execute(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize, StoreError> {
    Ok(db.prepare_cached(sql)?.execute(values)?)
}

fn run(db: &Connection, sql: &str) -> Result<(), StoreError> {
    execute(db, sql, []).map(|_| ())
}
