//! Begins a new chain from the rows, in one transaction, because an operator accepts a broken chain or log. The log gets an entry for each entry that
//! is missing, one entry that restates the store, and one for each key. Only for a database with one log.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    OpenStoreError, StoreError,
    apply::{Head, NewEntry, Open},
    connect::{Db, execute, execute_one, number, rows},
    error::{corrupt, signed, unsigned},
    insert::insert,
    rows::{WRAPPER_KEY_COLUMNS, wrapper_key},
    writer::LOCK_CLASS,
};
use crate::{
    audit::{Entry, Source, StatePosition, leaf_hash, merkle::Frontier},
    domain::{AuditEvent, KeyId, NodeName, Operation, Principal, StateChange, Timestamp},
    storage::{CHAIN_START, VerifiedState, wrapper_key_names::WrapperKeyNames},
};

/// Entries that are read or written at once.
const PAGE: usize = 1024;
/// The most entries in a row that are replaced.
const MAX_GAP: u64 = 1_000_000;

/// What the bytes of the log say.
#[derive(Default)]
struct Read {
    /// The newest entry. 0 if there is none.
    last: u64,
    missing: Vec<u64>,
    /// Entries whose stored hash is not that of their bytes, and the right one.
    wrong: Vec<(u64, [u8; 32])>,
    /// The newest entry that was removed. 0 if none was.
    removed_through: u64,
    incarnation: u64,
    state_revision: u64,
    keys: BTreeMap<KeyId, (Option<NodeName>, StateChange)>,
    /// Keys with an entry that cannot be read, or whose column names another key: their state is not known.
    doubtful: BTreeSet<KeyId>,
    names: WrapperKeyNames,
}

/// Makes the log whole, and begins a new chain and a new incarnation of the log. Reads the whole log once.
///
/// # Errors
/// [`OpenStoreError::Database`] if the database has the log of another instance, [`OpenStoreError::InstanceInUse`] if another process runs on it. Nothing
/// is written then.
pub(super) async fn begin(db: &Db, instance: i32, source: &Source, now: Timestamp) -> Result<(), OpenStoreError> {
    db.batch_execute("ROLLBACK; BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        .await
        .map_err(StoreError::from)?;
    refuse_other_logs(db, instance).await?;
    let stored = number(db, "SELECT store_revision FROM meta FOR UPDATE", &[]).await?;
    let read = read(db, instance).await?;
    for (sequence, leaf) in &read.wrong {
        let sql = "UPDATE audit_entries SET leaf = $3 WHERE instance = $1 AND sequence = $2";
        execute_one(db, sql, &[&instance, &signed(*sequence)?, &leaf.as_slice()]).await?;
    }
    let mut entries = replacements(instance, source, now, &read.missing)?;
    let (restated, revision) = restate(db, instance, source, now, stored, read).await?;
    entries.extend(restated);
    for page in entries.chunks(PAGE) {
        insert(db, instance, stored, page, &[]).await.map_err(StoreError::from)?;
    }
    execute_one(db, "UPDATE meta SET store_revision = $1", &[&signed(revision)?]).await?;
    rebuild_tree(db, instance, revision).await?;
    db.batch_execute("COMMIT").await.map_err(StoreError::from)?;
    Ok(())
}

/// A new chain would restate the keys, but not what the chain says of other logs: their incarnations and the entries that were removed from them.
async fn refuse_other_logs(db: &Db, instance: i32) -> Result<(), OpenStoreError> {
    let sql =
        "SELECT number, name, EXISTS (SELECT FROM audit_entries WHERE instance = number) FROM instances WHERE number <> $1 ORDER BY name";
    for row in rows(db, sql, &[&instance]).await? {
        let read = || Ok::<(i32, String, bool), tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (other, name, has_entries) = read().map_err(StoreError::from)?;
        if has_entries {
            let what = format!(
                "--accept-state is for a database with one log, and this one has that of the instance {name} too: a new chain cannot restate what the \
                 chain says of other logs. Restore a backup"
            );
            return Err(OpenStoreError::Database(what));
        }
        if number(db, "SELECT pg_try_advisory_xact_lock($1, $2)::integer::bigint", &[&LOCK_CLASS, &other]).await? == 0 {
            return Err(OpenStoreError::InstanceInUse(name));
        }
    }
    Ok(())
}

async fn read(db: &Db, instance: i32) -> Result<Read, StoreError> {
    let mut read = Read { incarnation: 1, ..Read::default() };
    let sql = "SELECT sequence, entry, leaf, key_id, key_revision, state_revision FROM audit_entries
               WHERE instance = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
    loop {
        let found = rows(db, sql, &[&instance, &signed(read.last)?, &signed(PAGE as u64)?]).await?;
        if found.is_empty() {
            read.keys.retain(|id, _| !read.doubtful.contains(id));
            return Ok(read);
        }
        for row in &found {
            read.look(row)?;
        }
    }
}

impl Read {
    fn look(&mut self, row: &tokio_postgres::Row) -> Result<(), StoreError> {
        let sequence = unsigned(row.try_get("sequence")?)?;
        let first = self.last.saturating_add(1);
        if sequence.saturating_sub(first) > MAX_GAP {
            return Err(corrupt("audit_entries", format_args!("the entries {first} to {sequence} are missing")));
        }
        self.missing.extend(first..sequence);
        self.last = sequence;
        let numbered: Option<i64> = row.try_get("state_revision")?;
        self.state_revision = self.state_revision.max(numbered.map(unsigned).transpose()?.unwrap_or(0));
        let bytes: &[u8] = row.try_get("entry")?;
        if bytes.is_empty() {
            // A removed entry has its hash only.
            self.removed_through = sequence;
            return Ok(());
        }
        let leaf = leaf_hash(bytes);
        if row.try_get::<_, &[u8]>("leaf")? != leaf {
            self.wrong.push((sequence, leaf));
        }
        let entry = Entry::decode(bytes).ok();
        if let Some(entry) = &entry {
            self.names.look(entry);
        }
        let revision = entry.as_ref().and_then(|entry| entry.state_revision);
        self.state_revision = self.state_revision.max(revision.unwrap_or(0));
        self.incarnation = self.incarnation.max(entry.as_ref().and_then(|entry| entry.incarnation).unwrap_or(1));
        let revises: Option<i64> = row.try_get("key_revision")?;
        if revises.is_some() || entry.as_ref().is_none_or(|entry| entry.revision.is_some()) {
            let column: Option<KeyId> = row.try_get::<_, Option<&str>>("key_id")?.and_then(|id| id.parse().ok());
            self.look_at_key(sequence, entry, column);
        }
        Ok(())
    }

    /// An entry about the state of a key. `column` is the key that the row names.
    fn look_at_key(&mut self, sequence: u64, entry: Option<Entry>, column: Option<KeyId>) {
        let change = entry.as_ref().map(Entry::state_change).transpose().ok().flatten();
        let id = entry.as_ref().and_then(|entry| entry.key_id);
        if change.is_none() || id != column {
            tracing::error!(sequence, "this audit entry cannot be read; the key that it is about stays quarantined");
            self.doubtful.extend(id.into_iter().chain(column));
        }
        if let (Some(entry), Some(id), Some(Some(change))) = (entry, id, change) {
            self.keys.insert(id, (entry.node, change));
        }
    }
}

fn event(now: Timestamp, reason: &str) -> AuditEvent {
    AuditEvent { reason: Some(reason.to_owned()), ..AuditEvent::new(now, Principal::system(), Operation::RestateState, "-".into()) }
}

/// An entry in the place of each one that is missing.
fn replacements(instance: i32, source: &Source, now: Timestamp, missing: &[u64]) -> Result<Vec<NewEntry>, StoreError> {
    let state = VerifiedState::before(0);
    let mut made = Vec::with_capacity(missing.len());
    for sequence in missing {
        let head = Head { sequence: sequence.saturating_sub(1), store_revision: 0, frozen: false, chain: CHAIN_START };
        let mut open = Open::new(instance, source, &state, head);
        open.log(&event(now, "the entry with this number was missing when the operator accepted the log"), None)?;
        made.append(&mut open.entries);
    }
    Ok(made)
}

/// The first entries of the new chain: one restates the wrapper keys, the freeze and the removal of entries, and one each key. Returns the number of
/// the last state change too.
async fn restate(
    db: &Db,
    instance: i32,
    source: &Source,
    now: Timestamp,
    stored: u64,
    read: Read,
) -> Result<(Vec<NewEntry>, u64), StoreError> {
    execute(db, "UPDATE audit_entries SET state_revision = NULL WHERE state_revision IS NOT NULL", &[]).await?;
    // Nothing in the log confirms them. What occurs in the blocks of entries is found again.
    execute(db, "DELETE FROM idempotency", &[]).await?;
    execute(db, "DELETE FROM audit_digests WHERE instance = $1", &[&instance]).await?;
    execute(db, "DELETE FROM audit_totals WHERE instance = $1", &[&instance]).await?;
    let frozen = number(db, "SELECT frozen::integer::bigint FROM meta", &[]).await? > 0;
    let mut wrapper_keys = Vec::new();
    for row in rows(db, &format!("SELECT {WRAPPER_KEY_COLUMNS} FROM wrapper_keys ORDER BY position"), &[]).await? {
        wrapper_keys.push(read.names.restate(wrapper_key(&row)?));
    }
    let position = StatePosition {
        frozen: Some(frozen),
        wrapper_keys,
        incarnation: Some(read.incarnation.saturating_add(1)),
        removed_through: Some(read.removed_through).filter(|removed| *removed > 0),
        ..StatePosition::default()
    };
    let head = Head { sequence: read.last, store_revision: stored.max(read.state_revision), frozen, chain: CHAIN_START };
    let state = VerifiedState::before(0);
    let mut open = Open::new(instance, source, &state, head);
    let event = event(now, "the operator accepted the state of a broken chain");
    open.log(&event, Some(position))?;
    for (id, (node, change)) in read.keys {
        let event = AuditEvent { key: Some(id), node, change: Some(change), ..event.clone() };
        open.log(&event, Some(StatePosition::default()))?;
    }
    Ok((open.entries, open.head.store_revision))
}

/// Makes the hashes of the tree again, from the hashes of the entries.
async fn rebuild_tree(db: &Db, instance: i32, store_revision: u64) -> Result<(), StoreError> {
    execute(db, "DELETE FROM audit_tree WHERE instance = $1", &[&instance]).await?;
    let (mut frontier, mut completed) = (Frontier::default(), Vec::new());
    let sql = "SELECT leaf FROM audit_entries WHERE instance = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
    loop {
        let found = rows(db, sql, &[&instance, &signed(frontier.size())?, &signed(PAGE as u64)?]).await?;
        for row in &found {
            let leaf = row.try_get::<_, &[u8]>(0)?.try_into().map_err(|_| corrupt("audit_entries", "a hash has another length"))?;
            frontier.append(leaf, |hash| completed.push(hash));
        }
        insert(db, instance, store_revision, &[], &completed).await?;
        completed.clear();
        if found.is_empty() {
            return Ok(());
        }
    }
}
