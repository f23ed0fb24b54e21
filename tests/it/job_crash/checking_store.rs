//! A store that is checked after every commit: the rows in the file must open every key.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use canton_keyvault::{
    crypto::envelope,
    domain::{
        EncryptionContext, Job, JobId, JobKind, KeyAttributes, KeyId, KeyRecord, KeyState, Lifecycle, NodeScope, ProviderKind, SealedKey,
        Timestamp, VaultId, WrapperKey, WrapperKeyId, WrapperState,
    },
    storage::{
        Change, Commit, CommitError, Coverage, Dependents, EntryFilter, EntryPage, IdempotencyRecord, IdempotencyScope, KeyFilter,
        KeyRequirement, KeyStore, LogHead, LoggedUse, PageRequest, Positioned, Receipt, SinkCursor, SqliteStore, StoreError, StoreState,
        StoredCheckpoint, StoredKey, Totals, TotalsQuery, TreeQuery, UnreadableKey, WrapperKeyUse,
    },
};
use rusqlite::{Connection, OpenFlags, Row};

use tokio::sync::oneshot;

use crate::storage_disk::Disk;

use super::faulty_kms::FaultyKms;

/// The store, and who looks at it.
pub(crate) struct Watched {
    pub(crate) store: Arc<SqliteStore>,
    disk: Arc<Disk>,
    sky: Arc<FaultyKms>,
    vault: VaultId,
    beside: Mutex<Connection>,
    /// What was found to open before: (sealed bytes, wrapped data key).
    known: Mutex<HashSet<(Vec<u8>, Vec<u8>)>>,
    plan: Mutex<Option<Cut>>,
    found: Mutex<Found>,
    spoil: Option<Spoil>,
    /// The delay of the response to a commit of this step.
    linger: Mutex<Option<(&'static str, Duration)>>,
    /// The next look-up of a key is answered once this is.
    hold: Mutex<Option<oneshot::Receiver<()>>>,
}

/// When the power goes: within a commit of a step.
pub(crate) struct Cut {
    pub(crate) step: &'static str,
    /// After so many others of that step.
    pub(crate) after: u64,
    /// After so many writes and syncs of it.
    pub(crate) operations: u64,
    pub(crate) seed: u64,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Found {
    /// What must not be.
    pub(crate) wrong: Vec<String>,
    /// Commits looked at, by step.
    pub(crate) commits: BTreeMap<&'static str, u64>,
    /// What the first commit that failed for want of power was about to do.
    pub(crate) cut_in: Option<&'static str>,
}

/// The control: what a broken vault or store would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// A wrap of another data key is added.
    ForeignWrap,
    /// A re-seal keeps the wrap of the data key before.
    StaleWrap,
    /// A retirement that begins takes the wraps at once.
    EarlyDrop,
    /// A rotation leaves nothing active.
    NothingActive,
}

impl Watched {
    pub(crate) fn new(
        store: Arc<SqliteStore>,
        path: &Path,
        disk: Arc<Disk>,
        sky: Arc<FaultyKms>,
        vault: VaultId,
        spoil: Option<Spoil>,
    ) -> Self {
        let beside = Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, disk.vfs().as_str()).unwrap();
        beside.busy_timeout(Duration::from_secs(5)).unwrap();
        Self {
            store,
            disk,
            sky,
            vault,
            beside: Mutex::new(beside),
            known: Mutex::default(),
            plan: Mutex::default(),
            found: Mutex::default(),
            spoil,
            linger: Mutex::default(),
            hold: Mutex::default(),
        }
    }

    /// Holds the answer to the next look-up of a key back, until the sender is dropped.
    pub(crate) fn hold_next_look_up(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.hold.lock().unwrap() = Some(held);
        release
    }

    pub(crate) fn holds_none(&self) -> bool {
        self.hold.lock().unwrap().is_none()
    }

    pub(crate) fn linger_after(&self, step: &'static str, time: Duration) {
        *self.linger.lock().unwrap() = Some((step, time));
    }

    pub(crate) fn plan(&self, cut: Cut) {
        *self.plan.lock().unwrap() = Some(cut);
    }

    pub(crate) fn found(&self) -> Found {
        std::mem::take(&mut self.found.lock().unwrap())
    }

    fn wrong(&self, what: String) {
        self.found.lock().unwrap().wrong.push(what);
    }

    fn cut_if_planned(&self, step: &'static str) {
        let mut plan = self.plan.lock().unwrap();
        let Some(cut) = plan.as_mut().filter(|cut| cut.step == step) else { return };
        if cut.after > 0 {
            cut.after -= 1;
        } else if let Some(cut) = plan.take() {
            self.disk.cut_power_after(cut.operations, cut.seed);
        }
    }

    /// Checks the file as it is now.
    pub(crate) async fn look(&self, after: &str) {
        let seen = match look(&self.beside.lock().unwrap()) {
            Ok(seen) => seen,
            Err(_) if self.disk.is_off() => return,
            Err(error) => return self.wrong(format!("after {after} the file cannot be read: {error}")),
        };
        if (seen.active, seen.running) != (seen.registered.min(1), seen.running.min(1)) {
            self.wrong(format!("after {after} {} wrapper keys are active and {} jobs run", seen.active, seen.running));
        }
        for key in &seen.keys {
            let mut opens = false;
            for wrap in &key.wraps {
                let good = self.opens(key, wrap).await;
                if !good {
                    self.wrong(format!("after {after} the wrap of {} under {} ({}) does not open it", key.id, wrap.under, wrap.state));
                }
                opens |= good && wrap.state != WrapperState::Retired;
            }
            if !opens {
                self.wrong(format!(
                    "after {after} nothing opens {}: {:?}",
                    key.id,
                    key.wraps.iter().map(|wrap| wrap.state).collect::<Vec<_>>()
                ));
            }
        }
    }

    async fn opens(&self, key: &SeenKey, wrap: &SeenWrap) -> bool {
        if !wrap.verified || wrap.quarantined || wrap.generation != key.generation {
            return false;
        }
        let this = (key.sealed.clone(), wrap.wrapped.clone());
        if self.known.lock().unwrap().contains(&this) {
            return true;
        }
        let Some(wrapper) = self.sky.plain(wrap.under) else { return false };
        let context: EncryptionContext = key.attributes.encryption_context(&self.vault);
        let Ok(unwrapped) = wrapper.unwrap(&wrap.wrapped, &context).await else { return false };
        let good = envelope::commits(&unwrapped.data_key, &SealedKey::from_stored(key.sealed.clone()), &context);
        if good {
            self.known.lock().unwrap().insert(this);
        }
        good
    }

    /// Does what a broken vault or store would do.
    fn spoil(&self, commit: &mut Commit) {
        match (self.spoil, &mut commit.change) {
            (Some(Spoil::ForeignWrap), Some(Change::AddWrap { wrap, .. })) => {
                let db = self.beside.lock().unwrap();
                wrap.wrapped = db
                    .query_row(
                        "SELECT wrapped FROM wraps WHERE wrapped != ?1 AND wrapper_key = ?2",
                        (&wrap.wrapped, wrap.wrapper_key.to_string()),
                        |row| row.get(0),
                    )
                    .unwrap_or_else(|_| vec![1; wrap.wrapped.len()]);
            }
            (Some(Spoil::StaleWrap), Some(Change::Reseal(reseal))) => {
                let db = self.beside.lock().unwrap();
                let sql = "SELECT wrapped FROM wraps WHERE key = ?1 LIMIT 1";
                reseal.wrap.wrapped = db.query_row(sql, [reseal.update.key.to_string()], |row| row.get(0)).unwrap();
            }
            (Some(Spoil::EarlyDrop), Some(Change::BeginRetirement(_))) => {
                self.beside.lock().unwrap().execute("DELETE FROM wraps", []).unwrap();
            }
            (Some(Spoil::NothingActive), Some(Change::StartJob(_))) => {
                self.beside.lock().unwrap().execute("UPDATE wrapper_keys SET state = 'draining' WHERE state = 'active'", []).unwrap();
            }
            _ => {}
        }
    }
}

/// What a commit does, in a word.
fn step(change: Option<&Change>) -> &'static str {
    match change {
        None => "entry",
        Some(Change::InsertKey { .. }) => "insert",
        Some(Change::UpdateKey(_)) => "update",
        Some(Change::Withdraw(_)) => "withdraw",
        Some(Change::Rename { .. }) => "rename",
        Some(Change::SetAside { .. }) => "set aside",
        Some(Change::QuarantineWrap { .. }) => "quarantine",
        Some(Change::AddWrap { .. }) => "add wrap",
        Some(Change::Reseal(_)) => "reseal",
        Some(Change::StartJob(_)) => "start job",
        Some(Change::EndJob(_)) => "end job",
        Some(Change::BeginRetirement(_)) => "begin retirement",
        Some(Change::Retire(_)) => "retire",
        Some(Change::InsertWrapperKey(_)) => "insert wrapper key",
        Some(Change::RenameWrapperKey { .. }) => "rename wrapper key",
        Some(Change::SetWrapperKeyRegions { .. }) => "set regions",
        Some(Change::SetFrozen(_)) => "freeze",
        Some(Change::BeginIncarnation(_)) => "incarnation",
        Some(Change::RemoveEntries { .. }) => "remove entries",
    }
}

/// The steps of jobs and of what races them: where the power is cut on purpose.
pub(crate) const STEPS: [&str; 9] =
    ["start job", "add wrap", "reseal", "end job", "begin retirement", "retire", "insert", "update", "insert wrapper key"];

struct Seen {
    registered: u32,
    active: u32,
    running: u32,
    keys: Vec<SeenKey>,
}

struct SeenKey {
    id: KeyId,
    attributes: KeyAttributes,
    generation: u32,
    sealed: Vec<u8>,
    wraps: Vec<SeenWrap>,
}

struct SeenWrap {
    under: WrapperKeyId,
    state: WrapperState,
    generation: u32,
    wrapped: Vec<u8>,
    verified: bool,
    quarantined: bool,
}

fn text<T: FromStr<Err: std::fmt::Debug>>(row: &Row<'_>, column: &str) -> T {
    row.get::<_, String>(column).unwrap().parse().unwrap()
}

/// One snapshot.
fn look(db: &Connection) -> rusqlite::Result<Seen> {
    let transaction = db.unchecked_transaction()?;
    let count = |sql| transaction.query_row(sql, [], |row| row.get(0));
    let registered = count("SELECT count(*) FROM wrapper_keys")?;
    let active = count("SELECT count(*) FROM wrapper_keys WHERE state = 'active'")?;
    let running = count("SELECT count(*) FROM jobs WHERE state = 'running'")?;
    let mut wraps = transaction.prepare_cached(
        "SELECT wraps.*, wrapper_keys.state AS state FROM wraps JOIN wrapper_keys ON wrapper_keys.id = wraps.wrapper_key WHERE key = ?1",
    )?;
    let mut sql = transaction.prepare_cached("SELECT * FROM keys WHERE sealed IS NOT NULL")?;
    let keys = sql.query_map([], |row| {
        let id: KeyId = text(row, "id");
        let wraps = wraps.query_map([id.to_string()], |row| {
            Ok(SeenWrap {
                under: text(row, "wrapper_key"),
                state: text(row, "state"),
                generation: row.get("generation")?,
                wrapped: row.get("wrapped")?,
                verified: row.get::<_, Option<i64>>("verified_at")?.is_some(),
                quarantined: row.get("quarantined")?,
            })
        })?;
        Ok(SeenKey {
            id,
            attributes: KeyAttributes {
                id,
                node: text(row, "node"),
                purpose: text(row, "purpose"),
                spec: text(row, "spec"),
                usages: text(row, "usages"),
                class: text(row, "class"),
                origin: text(row, "origin"),
                exportable: row.get("exportable")?,
            },
            generation: row.get("generation")?,
            sealed: row.get("sealed")?,
            wraps: wraps.collect::<Result<_, _>>()?,
        })
    })?;
    Ok(Seen { registered, active, running, keys: keys.collect::<Result<_, _>>()? })
}

#[async_trait]
impl KeyStore for Watched {
    async fn commit(&self, mut commit: Commit) -> Result<Receipt, CommitError> {
        let step = step(commit.change.as_ref());
        self.cut_if_planned(step);
        self.spoil(&mut commit);
        let result = self.store.commit(commit).await;
        match &result {
            Ok(_) => {
                *self.found.lock().unwrap().commits.entry(step).or_default() += 1;
                self.look(step).await;
                let linger = *self.linger.lock().unwrap();
                if let Some((_, time)) = linger.filter(|(after, _)| *after == step) {
                    tokio::time::sleep(time).await;
                }
            }
            Err(CommitError::Unavailable(_)) if self.disk.is_off() => {
                self.found.lock().unwrap().cut_in.get_or_insert(step);
            }
            Err(CommitError::Unavailable(error)) => self.wrong(format!("{step}: {error}")),
            Err(_) => {}
        }
        result
    }

    async fn key(&self, id: KeyId) -> Result<Option<StoredKey>, StoreError> {
        let found = self.store.key(id).await;
        let held = self.hold.lock().unwrap().take();
        if let Some(held) = held {
            let _ = held.await;
        }
        found
    }

    async fn unreadable_key(&self, id: KeyId) -> Result<Option<UnreadableKey>, StoreError> {
        self.store.unreadable_key(id).await
    }

    async fn keys(&self, filter: &KeyFilter, page: PageRequest) -> Result<Vec<Positioned<KeyRecord>>, StoreError> {
        self.store.keys(filter, page).await
    }

    async fn count_keys(&self, filter: &KeyFilter) -> Result<u64, StoreError> {
        self.store.count_keys(filter).await
    }

    async fn due_for_destruction(&self, now: Timestamp, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        self.store.due_for_destruction(now, limit).await
    }

    async fn keys_by_state(&self) -> Result<Vec<(KeyState, u64)>, StoreError> {
        self.store.keys_by_state().await
    }

    async fn wrapper_keys(&self) -> Result<Vec<WrapperKey>, StoreError> {
        self.store.wrapper_keys().await
    }

    async fn keys_by_wrapper_key(&self) -> Result<Vec<WrapperKeyUse>, StoreError> {
        self.store.keys_by_wrapper_key().await
    }

    async fn wraps_by_state(&self) -> Result<Vec<(ProviderKind, WrapperState, u64)>, StoreError> {
        self.store.wraps_by_state().await
    }

    async fn keys_missing(&self, wanted: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError> {
        self.store.keys_missing(wanted, page).await
    }

    async fn coverage(&self, requirement: KeyRequirement) -> Result<Coverage, StoreError> {
        self.store.coverage(requirement).await
    }

    async fn dependents(&self, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError> {
        self.store.dependents(wrapper_key, holders).await
    }

    async fn jobs(&self, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError> {
        self.store.jobs(kind, page).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.store.job(id).await
    }

    async fn state(&self) -> Result<StoreState, StoreError> {
        self.store.state().await
    }

    async fn idempotency_record(&self, scope: &IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.store.idempotency_record(scope, now).await
    }

    async fn entries(&self, filter: &EntryFilter, page: PageRequest) -> Result<EntryPage, StoreError> {
        self.store.entries(filter, page).await
    }

    fn removed_through(&self) -> u64 {
        self.store.removed_through()
    }

    async fn remove_some_entries(&self) -> Result<bool, StoreError> {
        self.store.remove_some_entries().await
    }

    async fn delete_retired_wraps(&self) -> Result<bool, StoreError> {
        self.store.delete_retired_wraps().await
    }

    async fn digest_log(&self) -> Result<bool, StoreError> {
        self.store.digest_log().await
    }

    async fn totals(&self, query: TotalsQuery) -> Result<Totals, StoreError> {
        self.store.totals(query).await
    }

    async fn key_state_at(&self, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError> {
        self.store.key_state_at(id, at).await
    }

    async fn store_policy(&self, digest: &str, text: &str) -> Result<(), StoreError> {
        self.store.store_policy(digest, text).await
    }

    async fn policy_text(&self, digest: &str) -> Result<Option<String>, StoreError> {
        self.store.policy_text(digest).await
    }

    async fn find_keys(&self, text: &str, nodes: &NodeScope, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        self.store.find_keys(text, nodes, limit).await
    }

    async fn use_since_import(&self, id: KeyId) -> Result<Option<LoggedUse>, StoreError> {
        self.store.use_since_import(id).await
    }

    fn log_head(&self) -> LogHead {
        self.store.log_head()
    }

    async fn tree(&self, query: TreeQuery) -> Result<Vec<[u8; 32]>, StoreError> {
        self.store.tree(query).await
    }

    async fn inclusion_proofs(&self, leaves: Vec<u64>, size: u64) -> Result<Vec<Vec<[u8; 32]>>, StoreError> {
        self.store.inclusion_proofs(leaves, size).await
    }

    async fn entry_bytes(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store.entry_bytes(from, count).await
    }

    async fn entries_for_sinks(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store.entries_for_sinks(from, count).await
    }

    async fn sink_cursor(&self, sink: &str) -> Result<Option<SinkCursor>, StoreError> {
        self.store.sink_cursor(sink).await
    }

    async fn store_sink_cursor(&self, sink: &str, cursor: SinkCursor) -> Result<(), StoreError> {
        self.store.store_sink_cursor(sink, cursor).await
    }

    async fn store_checkpoint(&self, checkpoint: StoredCheckpoint) -> Result<(), StoreError> {
        self.store.store_checkpoint(checkpoint).await
    }

    async fn checkpoints(&self, after: u64, before: u64) -> Result<Vec<StoredCheckpoint>, StoreError> {
        self.store.checkpoints(after, before).await
    }

    async fn newest_checkpoint(&self, origin: &str) -> Result<Option<StoredCheckpoint>, StoreError> {
        self.store.newest_checkpoint(origin).await
    }

    async fn idempotency_hash_key(&self) -> Result<[u8; 32], StoreError> {
        self.store.idempotency_hash_key().await
    }

    fn commit_timeout(&self) -> std::time::Duration {
        self.store.commit_timeout()
    }

    fn known_revision(&self) -> u64 {
        self.store.known_revision()
    }

    fn schema(&self) -> u32 {
        self.store.schema()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
