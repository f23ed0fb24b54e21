//! The effect of one commit inside the transaction of its batch: check the precondition, apply the change, store the idempotency record,
//! make the entry. The entries of a batch are written together at its end.

use super::{
    CommitError, Receipt, StoreError,
    connect::{Db, execute, execute_one, exists, optional, rows},
    error::{corrupt, signed},
    follow::has_lease,
    jobs,
    rows::{self as key_rows, revision_of},
};
use crate::{
    audit::{Entry, Source, StatePosition, leaf_hash},
    domain::{AuditEvent, KeyId, KeyName, StateChange, Timestamp, Wrap, WrapperKeyId, WrapperState},
    storage::{
        Change, Commit, KeyPrecondition, KeyUpdate, NewIdempotencyRecord, VerifiedState, idempotency_digest,
        pending::{Batch, View},
    },
};

/// The end of the log of this instance and of the chain, including the open transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The sequence number of the newest entry of this instance. 0 if there is none.
    pub(super) sequence: u64,
    /// The number of the newest state change.
    pub(super) store_revision: u64,
    /// Whether the vault is frozen.
    pub(super) frozen: bool,
    /// The leaf hash of the newest state change.
    pub(super) chain: [u8; 32],
}

impl Head {
    /// The same end of the log, and the end of the chain in `state` if it is further.
    pub(super) const fn with_state(self, state: &VerifiedState) -> Self {
        if state.revision <= self.store_revision {
            return self;
        }
        Self { sequence: self.sequence, store_revision: state.revision, frozen: state.frozen, chain: state.head }
    }
}

/// An entry to write.
pub(super) struct NewEntry {
    pub(super) entry: Entry,
    pub(super) bytes: Vec<u8>,
    pub(super) leaf: [u8; 32],
}

/// The open transaction of a batch.
pub(super) struct Open<'a> {
    pub(super) instance: i32,
    pub(super) source: &'a Source,
    pub(super) state: &'a VerifiedState,
    pub(super) head: Head,
    pub(super) batch: Batch,
    pub(super) entries: Vec<NewEntry>,
}

impl<'a> Open<'a> {
    /// A transaction without commits.
    pub(super) const fn new(instance: i32, source: &'a Source, state: &'a VerifiedState, head: Head) -> Self {
        Self { instance, source, state, head, batch: Batch { pending: Vec::new(), leaves: Vec::new() }, entries: Vec::new() }
    }

    /// The state that commits are checked against.
    pub(super) fn view(&self) -> View<'_> {
        View { state: self.state, pending: &self.batch.pending }
    }

    /// Whether the commit is an entry alone that needs no look at the database.
    pub(super) fn is_plain(&self, commit: &Commit) -> bool {
        // The statement that writes the entry writes nothing if the state is no longer the newest one.
        let holds = |precondition: &KeyPrecondition| {
            precondition.store_revision == self.head.store_revision
                || self.view().key(precondition.key).is_some_and(|known| known.revision == precondition.revision)
        };
        self.view().is_entries_alone(commit) && commit.precondition.as_ref().is_none_or(holds)
    }

    /// Applies a commit for which [`Open::is_plain`] holds.
    pub(super) fn plain(&mut self, commit: &Commit) -> Result<Receipt, CommitError> {
        if self.head.frozen && commit.precondition.is_some() {
            return Err(CommitError::Stale);
        }
        self.log(&commit.event, None)?;
        for event in &commit.further {
            self.log(event, None)?;
        }
        Ok(Receipt { sequence: self.head.sequence, store_revision: self.head.store_revision })
    }

    /// Applies one commit completely or not at all. The other commits of the batch are not affected.
    pub(super) async fn isolated(&mut self, db: &Db, commit: &Commit) -> Result<Receipt, CommitError> {
        if self.is_plain(commit) {
            return self.plain(commit);
        }
        let before = (self.head, self.batch.pending.len(), self.batch.leaves.len(), self.entries.len());
        execute(db, "SAVEPOINT one", &[]).await?;
        let result = self.whole(db, commit).await;
        if result.is_err() {
            self.head = before.0;
            self.batch.pending.truncate(before.1);
            self.batch.leaves.truncate(before.2);
            self.entries.truncate(before.3);
            execute(db, "ROLLBACK TO SAVEPOINT one", &[]).await?;
        }
        execute(db, "RELEASE SAVEPOINT one", &[]).await?;
        result
    }

    async fn whole(&mut self, db: &Db, commit: &Commit) -> Result<Receipt, CommitError> {
        let Commit { change, idempotency, precondition, event, further } = commit;
        if let Some(precondition) = precondition {
            self.check(db, precondition).await?;
        }
        if !has_lease(db, self.instance, commit).await? {
            return Err(CommitError::LostRace);
        }
        if let Some(idempotency) = idempotency {
            remember(db, idempotency, event.at).await?;
        }
        let changes_state = self.view().changes_state(commit);
        let mut link = None;
        if let Some(change) = change {
            link = self.apply(db, change).await?;
            if let Change::SetFrozen(frozen) = change {
                self.head.frozen = *frozen;
            }
        }
        let digest = idempotency.as_ref().map(|new| idempotency_digest(&new.scope, &new.record));
        let position = changes_state.then(|| StatePosition { idempotency: digest, ..self.view().position(change.as_ref()) });
        self.log(event, position)?;
        for event in further {
            self.log(event, None)?;
        }
        let sequence = self.head.sequence;
        if let Some(link) = link {
            self.log(link, Some(StatePosition::default()))?;
        }
        for event in std::iter::once(event).chain(further).chain(link) {
            for wrapper_key in &event.kms.wrapper_keys {
                let sql = "UPDATE wrapper_keys SET last_used_at = greatest(coalesce(last_used_at, 0), $2) WHERE id = $1";
                execute(db, sql, &[&wrapper_key.to_string(), &event.at.micros()]).await?;
            }
        }
        Ok(Receipt { sequence, store_revision: self.head.store_revision })
    }

    /// Refuses a result whose precondition no longer holds.
    async fn check(&self, db: &Db, precondition: &KeyPrecondition) -> Result<(), CommitError> {
        let moved_on = precondition.store_revision != self.head.store_revision;
        if self.head.frozen || (moved_on && revision_of(db, precondition.key).await? != Some(precondition.revision)) {
            return Err(CommitError::Stale);
        }
        Ok(())
    }

    /// Refuses a change whose preconditions read columns that the log does not confirm.
    async fn check_wrapper_keys(&self, db: &Db) -> Result<(), StoreError> {
        for row in rows(db, "SELECT id, state FROM wrapper_keys", &[]).await? {
            let (id, state): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let verified = id.parse().ok().and_then(|id| self.view().wrapper_key(id));
            if verified.map(WrapperState::as_str) != Some(state) {
                return Err(corrupt("wrapper_keys", format_args!("{id} is {state}, and the log says {verified:?}")));
            }
        }
        Ok(())
    }

    /// Numbers the event and makes its entry. With a `position`, the entry is the next state change of the chain.
    pub(super) fn log(&mut self, event: &AuditEvent, position: Option<StatePosition>) -> Result<(), StoreError> {
        let sequence = self.head.sequence + 1;
        let position = match position {
            Some(position) => StatePosition { revision: self.head.store_revision + 1, previous: Some(self.head.chain), ..position },
            None => StatePosition::unchanged(self.head.store_revision),
        };
        let entry = Entry::new(sequence, self.source, event, position);
        let bytes = entry.encode().map_err(|error| StoreError::Failed(error.to_string()))?;
        let leaf = leaf_hash(&bytes);
        self.head.sequence = sequence;
        self.batch.leaves.push(leaf);
        if let Some(revision) = entry.state_revision.filter(|_| entry.changes_state()) {
            (self.head.store_revision, self.head.chain) = (revision, leaf);
            self.batch.pending.push((entry.clone(), leaf));
        }
        self.entries.push(NewEntry { entry, bytes, leaf });
        Ok(())
    }

    /// Applies the change. Returns the event of a second entry, if the change has one.
    async fn apply<'c>(&self, db: &Db, change: &'c Change) -> Result<Option<&'c AuditEvent>, CommitError> {
        let reads_no_wrapper_key = matches!(
            change,
            Change::UpdateKey(_)
                | Change::Withdraw(_)
                | Change::Rename { .. }
                | Change::SetAside { .. }
                | Change::QuarantineWrap { .. }
                | Change::SetFrozen(_)
                | Change::BeginIncarnation(_)
                | Change::RemoveEntries { .. }
        );
        if !reads_no_wrapper_key {
            self.check_wrapper_keys(db).await?;
        }
        match change {
            Change::InsertKey { record, active, link, replaces } => {
                let id = record.attributes.id;
                match (replaces, revision_of(db, id).await?) {
                    (None, None) => {}
                    (None, Some(_)) => return Err(CommitError::KeyExists),
                    (Some(revision), found) => {
                        let destroyed = |logged: StateChange| logged.lifecycle.is_destroyed() && logged.revision == *revision;
                        if found != Some(*revision) || !self.view().key(id).is_some_and(destroyed) {
                            return Err(CommitError::LostRace);
                        }
                        key_rows::delete_key(db, id).await?;
                    }
                }
                if active_wrapper_key(db).await? != Some(active.to_string()) {
                    return Err(CommitError::ActiveWrapperChanged);
                }
                key_rows::insert_key(db, record).await?;
                if let Some((update, _)) = link {
                    update_key(db, update).await?;
                }
                return Ok(link.as_ref().map(|(_, event)| &**event));
            }
            Change::UpdateKey(update) => update_key(db, update).await?,
            Change::Withdraw(update) => {
                if self.view().is_used(update.key) {
                    return Err(CommitError::LostRace);
                }
                update_key(db, update).await?;
            }
            Change::Rename { key, from, to } => rename(db, *key, from.as_ref(), to.as_ref()).await?,
            Change::SetAside { key, to } => self.set_aside(db, *key, *to).await?,
            Change::QuarantineWrap { key, wrapper_key, generation, wrapped } => {
                quarantine_wrap(db, *key, *wrapper_key, *generation, wrapped).await?;
            }
            Change::AddWrap { key, wrap } => add_wrap(db, *key, wrap).await?,
            Change::Reseal(reseal) => jobs::reseal(db, reseal).await?,
            Change::StartJob(job) => jobs::start(db, job).await?,
            Change::EndJob(end) => jobs::end(db, end).await?,
            Change::BeginRetirement(wrapper_key) => jobs::begin_retirement(db, *wrapper_key).await?,
            Change::Retire(retirement) => jobs::retire(db, retirement).await?,
            Change::InsertWrapperKey(wrapper_key) => {
                if exists(db, "SELECT 1 FROM wrapper_keys WHERE identity = $1", &[&wrapper_key.identity]).await? {
                    return Err(CommitError::WrapperKeyExists);
                }
                if wrapper_key.state == WrapperState::Active && active_wrapper_key(db).await?.is_some() {
                    return Err(CommitError::ActiveWrapperChanged);
                }
                key_rows::insert_wrapper_key(db, wrapper_key).await?;
            }
            Change::RenameWrapperKey { id, to: _ } => {
                if !exists(db, "SELECT 1 FROM wrapper_keys WHERE id = $1", &[&id.to_string()]).await? {
                    return Err(CommitError::LostRace);
                }
            }
            Change::SetWrapperKeyRegions { id, from, to } => {
                let sql = "UPDATE wrapper_keys SET regions = $3 WHERE id = $1 AND regions = $2";
                changed(execute(db, sql, &[&id.to_string(), &key_rows::regions(from)?, &key_rows::regions(to)?]).await?)?;
            }
            Change::SetFrozen(frozen) => execute_one(db, "UPDATE meta SET frozen = $1", &[frozen]).await?,
            Change::BeginIncarnation(_) => {}
            Change::RemoveEntries { through } => {
                let pending = self.batch.pending.iter().filter_map(|(entry, _)| entry.removed_through).max().unwrap_or(0);
                if *through <= pending.max(self.state.removed_through) || *through > self.head.sequence {
                    return Err(CommitError::LostRace);
                }
            }
        }
        Ok(None)
    }

    async fn set_aside(&self, db: &Db, key: KeyId, to: StateChange) -> Result<(), CommitError> {
        if self.view().key(key).map_or(0, |logged| logged.revision).saturating_add(1) != to.revision {
            return Err(CommitError::LostRace);
        }
        let sql = "UPDATE keys SET revision = $2, lifecycle = $3, successor = $4, delete_at = $5, row_tag = NULL WHERE id = $1";
        let (successor, delete_at) = (to.successor.map(|id| id.to_string()), to.delete_at.map(Timestamp::micros));
        let (revision, lifecycle) = (signed(to.revision)?, to.lifecycle.to_string());
        changed(execute(db, sql, &[&key.to_string(), &revision, &lifecycle, &successor, &delete_at]).await?)
    }
}

/// Deletes at most `limit` expired idempotency records. Returns their number.
pub(super) async fn purge(db: &Db, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM idempotency WHERE (principal, route, key) IN
               (SELECT principal, route, key FROM idempotency WHERE expires_at <= $1 LIMIT $2)";
    execute(db, sql, &[&now.micros(), &i64::from(limit)]).await
}

async fn remember(db: &Db, idempotency: &NewIdempotencyRecord, now: Timestamp) -> Result<(), CommitError> {
    let NewIdempotencyRecord { scope, record, expires_at } = idempotency;
    let sql = "INSERT INTO idempotency (principal, route, key, body_hash, answer, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (principal, route, key) DO UPDATE
               SET body_hash = excluded.body_hash, answer = excluded.answer, expires_at = excluded.expires_at
               WHERE idempotency.expires_at <= $7";
    let hash = record.body_hash.as_slice();
    let values: super::connect::Values<'_> =
        &[&scope.principal, &scope.route, &scope.key, &hash, &record.answer, &expires_at.micros(), &now.micros()];
    if execute(db, sql, values).await? == 0 { Err(CommitError::IdempotencyKeyTaken) } else { Ok(()) }
}

pub(super) async fn update_key(db: &Db, update: &KeyUpdate) -> Result<(), CommitError> {
    let KeyUpdate { key, if_revision, to, row_tag, reinstate_wrap } = update;
    let id = key.to_string();
    let sql = "UPDATE keys SET revision = $3, lifecycle = $4, successor = $5, delete_at = $6, row_tag = $7,
               sealed = CASE WHEN $8 THEN NULL ELSE sealed END WHERE id = $1 AND revision = $2";
    let destroyed = to.lifecycle.is_destroyed();
    let (successor, delete_at) = (to.successor.map(|id| id.to_string()), to.delete_at.map(Timestamp::micros));
    let (from, revision, lifecycle) = (signed(*if_revision)?, signed(to.revision)?, to.lifecycle.to_string());
    let row_tag = row_tag.as_ref().map(<[u8; 32]>::as_slice);
    changed(execute(db, sql, &[&id, &from, &revision, &lifecycle, &successor, &delete_at, &row_tag, &destroyed]).await?)?;
    if destroyed {
        execute(db, "DELETE FROM wraps WHERE key = $1", &[&id]).await?;
    }
    if let Some(wrapper_key) = reinstate_wrap {
        let sql = "UPDATE wraps SET quarantined = false WHERE key = $1 AND wrapper_key = $2
                   AND generation = (SELECT generation FROM keys WHERE id = $1)";
        execute(db, sql, &[&id, &wrapper_key.to_string()]).await?;
    }
    Ok(())
}

async fn rename(db: &Db, key: KeyId, from: Option<&KeyName>, to: Option<&KeyName>) -> Result<(), CommitError> {
    let sql = "UPDATE keys SET name = $3 WHERE id = $1 AND name IS NOT DISTINCT FROM $2";
    changed(execute(db, sql, &[&key.to_string(), &from.map(KeyName::as_str), &to.map(KeyName::as_str)]).await?)
}

async fn quarantine_wrap(db: &Db, key: KeyId, wrapper_key: WrapperKeyId, generation: u32, wrapped: &[u8]) -> Result<(), CommitError> {
    let sql = "UPDATE wraps SET quarantined = true WHERE key = $1 AND wrapper_key = $2 AND generation = $3 AND wrapped = $4";
    changed(execute(db, sql, &[&key.to_string(), &wrapper_key.to_string(), &i64::from(generation), &wrapped]).await?)
}

/// Inserts a wrap of the current generation. It replaces a quarantined wrap only.
async fn add_wrap(db: &Db, key: KeyId, wrap: &Wrap) -> Result<(), CommitError> {
    let (id, wrapper_key, generation) = (key.to_string(), wrap.wrapper_key.to_string(), i64::from(wrap.generation));
    let filled = "SELECT 1 FROM wrapper_keys WHERE id = $1 AND state IN ('active', 'standby')";
    if !exists(db, filled, &[&wrapper_key]).await? {
        return Err(CommitError::WrapperKeyNotFilled);
    }
    if !exists(db, "SELECT 1 FROM keys WHERE id = $1 AND generation = $2 AND sealed IS NOT NULL", &[&id, &generation]).await? {
        return Err(CommitError::LostRace);
    }
    let broken = "DELETE FROM wraps WHERE key = $1 AND wrapper_key = $2 AND generation = $3 AND (quarantined OR verified_at IS NULL)";
    execute(db, broken, &[&id, &wrapper_key, &generation]).await?;
    let present = "SELECT 1 FROM wraps WHERE key = $1 AND wrapper_key = $2 AND generation = $3";
    if exists(db, present, &[&id, &wrapper_key, &generation]).await? {
        return Err(CommitError::LostRace);
    }
    Ok(key_rows::insert_wrap(db, &id, wrap).await?)
}

pub(super) async fn active_wrapper_key(db: &Db) -> Result<Option<String>, StoreError> {
    let row = optional(db, "SELECT id FROM wrapper_keys WHERE state = 'active'", &[]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// A compare-and-swap that changed no row lost its race.
const fn changed(rows: u64) -> Result<(), CommitError> {
    if rows == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}
