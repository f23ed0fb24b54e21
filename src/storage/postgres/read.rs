//! Reads of single rows and pages of keys, with the verified state in place of columns that no hash covers.

use std::collections::HashSet;

use tokio::sync::RwLock;

use super::{
    IdempotencyRecord, IdempotencyScope, KeyFilter, PageRequest, Positioned, SinkCursor, StoreError, StoreState, StoredCheckpoint,
    StoredKey, UnreadableKey, VerifiedState, WrapperKeyUse,
    chain::{CHECKED_COLUMNS, checked_entry},
    connect::{Db, exists, number, optional, rows},
    error::{corrupt, signed, unsigned},
    jobs,
    rows::{self as key_rows, KEY_COLUMNS, WRAPPER_KEY_COLUMNS},
};
use crate::{
    audit::Entry,
    domain::{
        Class, KeyId, KeyName, KeyRecord, KeyState, Lifecycle, NodeName, NodeScope, Operation, Outcome, ProviderKind, Purpose, StateChange,
        Timestamp, WrapperKey, WrapperState,
    },
    storage::{KeyRows, LoggedUse, idempotency_digest},
};

/// What a read found. `None`: the snapshot and the verified state are not of the same moment, read again.
pub(super) type Snapshot<T> = Result<Option<T>, StoreError>;

/// The revision of the snapshot. `None` unless the verified state has at least this revision: the writer publishes it after its commit.
async fn revision(db: &Db) -> Result<u64, StoreError> {
    number(db, "SELECT store_revision FROM meta", &[]).await
}

/// A key, its wraps, its newest verified state and the revision of the store.
pub(super) async fn key(db: &Db, state: &RwLock<VerifiedState>, id: KeyId) -> Snapshot<Option<StoredKey>> {
    let row = optional(db, &format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = $1"), &[&id.to_string()]).await?;
    let Some(row) = row else { return Ok(Some(None)) };
    let record = key_rows::key(db, &row).await?;
    Ok(verified_key(db, state, id).await?.map(|(logged_state, store_revision)| Some(StoredKey { record, logged_state, store_revision })))
}

/// The newest state of a key and the revision of the snapshot.
async fn verified_key(db: &Db, state: &RwLock<VerifiedState>, id: KeyId) -> Snapshot<(Option<StateChange>, u64)> {
    let revision = revision(db).await?;
    let state = state.read().await;
    let key = state.key(id);
    let moved = revision > state.revision || key.is_some_and(|key| key.state_revision > revision);
    Ok((!moved).then(|| (key.map(|key| key.change), revision)))
}

/// What is known of a key whose row cannot be read.
pub(super) async fn unreadable_key(db: &Db, state: &RwLock<VerifiedState>, id: KeyId) -> Snapshot<Option<UnreadableKey>> {
    let row = optional(db, "SELECT node FROM keys WHERE id = $1", &[&id.to_string()]).await?;
    let Some(row) = row else { return Ok(Some(None)) };
    let node = row.try_get::<_, &str>(0).ok().and_then(|text| text.parse().ok());
    Ok(verified_key(db, state, id).await?.map(|(logged_state, _)| Some(UnreadableKey { node, logged_state })))
}

/// A use of an imported key since its import. The chain has the first one, because every program that writes to PostgreSQL writes it there. For a store
/// that was copied from SQLite, the entries about the key in the log of its import count as well: an earlier program wrote them.
pub(super) async fn use_since_import(db: &Db, state: &RwLock<VerifiedState>, id: KeyId) -> Snapshot<Option<LoggedUse>> {
    let Some((known, _)) = verified_key(db, state, id).await? else { return Ok(None) };
    let unproven = |what: &str| corrupt("audit_entries", what);
    if known.is_none() {
        return Err(unproven("it has no entry of the import of this key"));
    }
    if let Some(found) = state.read().await.first_use(id) {
        return Ok(Some(Some(found)));
    }
    let (key, import) = (id.to_string(), Operation::ImportKey.as_str());
    let sql = "SELECT instance, sequence FROM audit_entries
               WHERE instance IN (SELECT number FROM instances) AND key_id = $1 AND operation = $2 AND key_revision IS NOT NULL
               ORDER BY state_revision DESC NULLS LAST, sequence DESC LIMIT 1";
    let row = optional(db, sql, &[&key, &import]).await?.ok_or_else(|| unproven("it has no entry of the import of this key"))?;
    let (instance, sequence): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
    let sql = "SELECT 1 FROM instances WHERE number = $1 AND removal_position > $2";
    if exists(db, sql, &[&instance, &sequence]).await? {
        return Err(unproven("entries since the import of this key were archived and removed"));
    }
    let uses: Vec<&str> = Operation::ALL.iter().filter(|operation| operation.uses_key()).map(|operation| operation.as_str()).collect();
    let sql = format!(
        "SELECT {CHECKED_COLUMNS} FROM audit_entries WHERE instance = $1 AND key_id = $2 AND sequence > $3 AND operation = ANY($4)
         AND outcome = $5 ORDER BY sequence LIMIT 1"
    );
    let row = optional(db, &sql, &[&instance, &key, &sequence, &uses, &Outcome::Ok.as_str()]).await?;
    let entry = row.as_ref().map(checked_entry).transpose()?;
    Ok(Some(entry.and_then(|(entry, _)| LoggedUse::of(&entry))))
}

/// The wrapper keys with their verified states and their use.
pub(super) async fn wrapper_keys(db: &Db, state: &RwLock<VerifiedState>, with_use: bool) -> Snapshot<Vec<WrapperKeyUse>> {
    let count = if with_use { "(SELECT count(DISTINCT key) FROM wraps WHERE wrapper_key = wrapper_keys.id)" } else { "0::bigint" };
    let sql = format!("SELECT {WRAPPER_KEY_COLUMNS}, last_used_at, {count} AS keys FROM wrapper_keys ORDER BY position");
    let found = rows(db, &sql, &[]).await?;
    let revision = revision(db).await?;
    let state = state.read().await;
    if revision > state.revision {
        return Ok(None);
    }
    let mut all = Vec::with_capacity(found.len());
    for row in &found {
        let mut key = key_rows::wrapper_key(row)?;
        verify_wrapper_key(&mut key, &state)?;
        let last_used_at = row.try_get::<_, Option<i64>>("last_used_at")?.map(Timestamp::from_micros);
        all.push(WrapperKeyUse { key, keys: unsigned(row.try_get("keys")?)?, last_used_at });
    }
    Ok(Some(all))
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
pub(super) async fn due_for_destruction(db: &Db, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError> {
    let sql = "SELECT id FROM keys WHERE delete_at <= $1 AND state = 'pending-deletion' ORDER BY delete_at, position LIMIT $2";
    let found = rows(db, sql, &[&now.micros(), &i64::from(limit)]).await?;
    let mut ids = Vec::new();
    for row in &found {
        let id: &str = row.try_get(0)?;
        ids.extend(id.parse::<KeyId>().inspect_err(|error| tracing::error!(%id, %error, "a key that is due for destruction is skipped")));
    }
    Ok(ids)
}

/// Each state with its number of keys. A lifecycle that cannot be read counts as quarantined.
pub(super) async fn keys_by_state(db: &Db) -> Result<Vec<(KeyState, u64)>, StoreError> {
    let mut counts: Vec<(KeyState, u64)> = KeyState::ALL.iter().map(|state| (*state, 0)).collect();
    for row in rows(db, "SELECT state, count(*) FROM keys GROUP BY state", &[]).await? {
        let state = row.try_get::<_, &str>(0)?.parse().unwrap_or(KeyState::Quarantined);
        let number = unsigned(row.try_get(1)?)?;
        counts.iter_mut().filter(|(of, _)| *of == state).for_each(|(_, count)| *count += number);
    }
    Ok(counts)
}

/// The number of wraps that are not quarantined, by provider and state of their wrapper keys.
pub(super) async fn wraps_by_state(db: &Db) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError> {
    let sql = "SELECT provider, state, sum(wraps)::bigint FROM
                   (SELECT provider, state, (SELECT count(*) FROM wraps WHERE wrapper_key = wrapper_keys.id AND NOT quarantined) AS wraps
                    FROM wrapper_keys) AS counted
               GROUP BY provider, state ORDER BY provider, state";
    let found = rows(db, sql, &[]).await?;
    let one = |row: &tokio_postgres::Row| {
        let provider = row.try_get::<_, &str>(0)?.parse().map_err(|error| corrupt("wrapper_keys", error))?;
        let state = row.try_get::<_, &str>(1)?.parse().map_err(|error| corrupt("wrapper_keys", error))?;
        Ok((provider, state, unsigned(row.try_get(2)?)?))
    };
    found.iter().map(one).collect()
}

/// The idempotency record of an earlier request, if it has not expired. The log must confirm it.
pub(super) async fn idempotency_record(
    db: &Db,
    state: &RwLock<VerifiedState>,
    scope: &IdempotencyScope,
    now: Timestamp,
) -> Snapshot<Option<IdempotencyRecord>> {
    let IdempotencyScope { principal, route, key } = scope;
    let sql = "SELECT body_hash, answer FROM idempotency WHERE principal = $1 AND route = $2 AND key = $3 AND expires_at > $4";
    let Some(row) = optional(db, sql, &[principal, route, key, &now.micros()]).await? else { return Ok(Some(None)) };
    let body_hash = row.try_get::<_, &[u8]>(0)?.try_into().map_err(|_| corrupt("idempotency", "a hash has another length"))?;
    let record = IdempotencyRecord { body_hash, answer: row.try_get(1)? };
    let revision = revision(db).await?;
    let state = state.read().await;
    if revision > state.revision {
        return Ok(None);
    }
    if !state.has_idempotency(&idempotency_digest(scope, &record)) {
        return Err(corrupt("idempotency", "a record was changed: no entry of the log confirms it"));
    }
    Ok(Some(Some(record)))
}

/// The state of the store as a whole. The freeze is the verified one.
pub(super) async fn state(db: &Db, state: &RwLock<VerifiedState>) -> Snapshot<StoreState> {
    let running_job = jobs::running(db).await?;
    let revision = revision(db).await?;
    let state = state.read().await;
    let VerifiedState { frozen, incarnation, checkpoint_key, .. } = *state;
    Ok((revision <= state.revision).then_some(StoreState { revision, frozen, incarnation, checkpoint_key, running_job }))
}

/// How far a sink has the log.
pub(super) async fn sink_cursor(db: &Db, instance: i32, sink: &str) -> Result<Option<SinkCursor>, StoreError> {
    let sql = "SELECT sequence, leaf, at FROM audit_sinks WHERE instance = $1 AND name = $2";
    let Some(row) = optional(db, sql, &[&instance, &sink]).await? else { return Ok(None) };
    let leaf = row.try_get::<_, &[u8]>(1)?.try_into().map_err(|_| corrupt("audit_sinks", "a hash has another length"))?;
    Ok(Some(SinkCursor { sequence: unsigned(row.try_get(0)?)?, leaf, at: Timestamp::from_micros(row.try_get(2)?) }))
}

fn checkpoint(row: &tokio_postgres::Row) -> Result<StoredCheckpoint, StoreError> {
    let note = String::from_utf8(row.try_get("note")?).map_err(|error| corrupt("audit_checkpoints", error))?;
    let at = Timestamp::from_micros(row.try_get("at")?);
    Ok(StoredCheckpoint { origin: row.try_get("origin")?, size: unsigned(row.try_get("size")?)?, note, at })
}

/// The checkpoint of a log with the most entries.
pub(super) async fn newest_checkpoint(db: &Db, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
    let sql = "SELECT origin, size, note, at FROM audit_checkpoints WHERE origin = $1 ORDER BY size DESC LIMIT 1";
    optional(db, sql, &[&origin]).await?.map(|row| checkpoint(&row)).transpose()
}

/// The most checkpoints of one answer, about.
const MAX_CHECKPOINTS: u64 = 10_000;

/// Checkpoints of the log of an instance between two sizes. If there are too many, the last one of each part of the log.
pub(super) async fn checkpoints(db: &Db, log: &str, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
    let part = (before.saturating_sub(after) / MAX_CHECKPOINTS).max(1);
    let sql = "SELECT DISTINCT ON (size / $3) origin, size, note, at FROM audit_checkpoints
               WHERE size > $1 AND size < $2 AND starts_with(origin, $4) ORDER BY size / $3, size DESC";
    let found = rows(db, sql, &[&signed(after)?, &signed(before)?, &signed(part)?, &log]).await?;
    found.iter().map(checkpoint).collect()
}

/// The lifecycle of a key after its newest state change up to a time.
pub(super) async fn key_state_at(db: &Db, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError> {
    let sql = "SELECT sequence, entry FROM audit_entries WHERE state_revision IS NOT NULL AND key_id = $1 AND at <= $2
               AND key_revision IS NOT NULL ORDER BY state_revision DESC LIMIT 1";
    let Some(row) = optional(db, sql, &[&id.to_string(), &at.micros()]).await? else { return Ok(None) };
    let sequence: i64 = row.try_get(0)?;
    let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
    let entry = Entry::decode(row.try_get(1)?).map_err(|error| unreadable(&error))?;
    let change = entry.state_change().map_err(|error| unreadable(&error))?.filter(|_| entry.key_id == Some(id) && entry.at <= at);
    change.map(|change| Some(change.lifecycle)).ok_or_else(|| unreadable(&"its columns disagree with its bytes"))
}

/// The text of a policy.
pub(super) async fn policy_text(db: &Db, digest: &str) -> Result<Option<String>, StoreError> {
    let row = optional(db, "SELECT text FROM policies WHERE digest = $1", &[&digest]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The conditions of [`KeyFilter`], whose values are `$1` to `$12`.
const OF_FILTER: &str = "position > $1 AND ($2::text[] IS NULL OR node = ANY($2)) AND CASE WHEN $3::text IS NULL THEN node <> $4 ELSE node = $3 END
    AND ($5::text IS NULL OR purpose = $5) AND ($6::text IS NULL OR CASE WHEN $6 = 'quarantined' THEN NOT state = ANY($7::text[]) ELSE state = $6 END)
    AND ($8::text IS NULL OR class = $8) AND ($9::bigint IS NULL OR created_at < $9)
    AND ($10::text IS NULL OR name = $10) AND ($11::text IS NULL OR name = $11 OR starts_with(id, $11)) AND ($12::bigint IS NULL OR created_at >= $12)";

/// The values of [`OF_FILTER`].
struct FilterValues<'a> {
    scope: Option<Vec<&'a str>>,
    node: Option<&'a str>,
    vault: String,
    purpose: Option<&'static str>,
    state: Option<&'static str>,
    others: Vec<&'static str>,
    class: Option<&'static str>,
    before: Option<i64>,
    name: Option<&'a str>,
    key: Option<&'a str>,
    since: Option<i64>,
}

impl<'a> FilterValues<'a> {
    fn of(filter: &'a KeyFilter) -> Self {
        let KeyFilter { nodes, node, purpose, state, class, name, key, created_since, created_before } = filter;
        let scope = match nodes {
            NodeScope::All => None,
            NodeScope::Only(nodes) => Some(nodes.iter().map(NodeName::as_str).collect()),
        };
        Self {
            scope,
            node: node.as_ref().map(NodeName::as_str),
            vault: NodeName::vault().to_string(),
            purpose: purpose.map(Purpose::as_str),
            state: state.map(KeyState::as_str),
            // Also the rows whose state is not a valid text are quarantined.
            others: KeyState::ALL.iter().filter(|state| **state != KeyState::Quarantined).map(|state| state.as_str()).collect(),
            class: class.map(Class::as_str),
            before: created_before.map(Timestamp::micros),
            name: name.as_ref().map(KeyName::as_str),
            key: key.as_deref(),
            since: created_since.map(Timestamp::micros),
        }
    }

    fn after<'s>(&'s self, after: &'s i64) -> Vec<&'s (dyn tokio_postgres::types::ToSql + Sync)> {
        let Self { scope, node, vault, purpose, state, others, class, before, name, key, since } = self;
        vec![after, scope, node, vault, purpose, state, others, class, before, name, key, since]
    }
}

/// Keys in the order of their creation. A key whose lifecycle cannot be read is shown as quarantined. A key whose bound attributes cannot
/// be read is omitted and logged, so that it does not hide others.
pub(super) async fn keys(db: &Db, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError> {
    let sql = format!("SELECT {KEY_COLUMNS} FROM keys WHERE {OF_FILTER} ORDER BY position LIMIT $13");
    let (filter, mut after, limit) = (FilterValues::of(filter), signed(page.after)?, page.limit as usize);
    let mut keys = Vec::new();
    // An omitted row must not make the page look like the last one.
    while keys.len() < limit {
        let missing = i64::try_from(limit - keys.len()).unwrap_or(i64::MAX);
        let (from, mut values) = (after, Vec::new());
        values.extend(filter.after(&from));
        values.push(&missing);
        let found = rows(db, &sql, &values).await?;
        let Some(last) = found.last() else { break };
        after = last.try_get("position")?;
        for row in &found {
            match key_rows::key_for_list(db, row).await {
                Ok(item) => keys.push(Positioned { position: unsigned(row.try_get("position")?)?, item }),
                Err(error @ StoreError::Corrupt { .. }) => tracing::error!(%error, "a list skips a key, because its row cannot be read"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(keys)
}

/// The number of keys.
pub(super) async fn count_keys(db: &Db, filter: &KeyFilter) -> Result<u64, StoreError> {
    number(db, &format!("SELECT count(*) FROM keys WHERE {OF_FILTER}"), &FilterValues::of(filter).after(&0)).await
}

/// The ids of keys with this name, or whose id begins with this text.
pub(super) async fn find_keys(db: &Db, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError> {
    let filter = KeyFilter { nodes: nodes.clone(), key: Some(text.to_owned()), ..KeyFilter::all() };
    let filter = FilterValues::of(&filter);
    let sql = format!("SELECT id FROM keys WHERE {OF_FILTER} ORDER BY position LIMIT $13");
    let (limit, mut values) = (i64::from(limit), filter.after(&0));
    values.push(&limit);
    let found = rows(db, &sql, &values).await?;
    Ok(found.iter().filter_map(|row| row.try_get::<_, &str>(0).ok()?.parse().ok()).collect())
}

/// Every row of a key, without a limit, compared with the log.
pub(super) async fn key_rows(db: &Db, state: &RwLock<VerifiedState>) -> Snapshot<KeyRows> {
    let mut found = KeyRows::default();
    for row in rows(db, "SELECT position, id FROM keys ORDER BY position", &[]).await? {
        let position: i64 = row.try_get(0)?;
        match row.try_get::<_, &str>(1)?.parse::<KeyId>() {
            Ok(id) => found.ids.push(id),
            Err(why) => found.unreadable.push(format!("row {position} of the table keys has no readable id: {why}")),
        }
    }
    let revision = revision(db).await?;
    let state = state.read().await;
    let with_row: HashSet<KeyId> = found.ids.iter().copied().collect();
    found.missing = state.keys().filter(|id| !with_row.contains(id)).collect();
    found.missing.sort_unstable_by_key(KeyId::to_string);
    Ok((revision <= state.revision).then_some(found))
}
