//! Opens a store: the right vault, the right schema, one process for each instance.

use std::sync::{Arc, Mutex, RwLock as SyncRwLock, atomic::AtomicU64};

use deadpool_postgres::Object;
use tokio::sync::{RwLock, watch};
use tokio_postgres::Row;

use super::{
    Mode, OpenStoreError, PostgresConfig, PostgresStore, StoreError, accept, chain,
    connect::{Db, Pools, execute, exists, number, optional, pools},
    error::{LOCKED, with_causes},
    follow::{Follower, Known},
    queue::Writer,
    shared::{Shared, TreeHead},
    structure, tree,
    writer::{WriterTask, lock_instance},
};
use crate::{
    audit::{Source, merkle::Frontier},
    crypto::Random,
    domain::{Timestamp, VaultId},
    storage::VerifiedState,
};

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

/// The lock of the schema: `CKVault` in ASCII.
const SCHEMA_LOCK: i64 = 0x0043_4B56_6175_6C74;

/// The table that a database has while a copy into it is not complete.
pub(super) const COPY_MARK: &str = "incomplete_copy";

impl PostgresStore {
    /// Opens the store, or creates its tables in an empty database. `source` is written into every entry; its instance is the log of this process.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub async fn open(
        config: PostgresConfig,
        source: Source,
        vault: &VaultId,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Self, OpenStoreError> {
        let mut hash_key = [0; 32];
        random.fill(&mut hash_key).map_err(|_| OpenStoreError::Random)?;
        Self::open_with(config, source, vault.clone(), hash_key, now).await
    }

    async fn open_with(
        config: PostgresConfig,
        source: Source,
        vault: VaultId,
        hash_key: [u8; 32],
        now: Timestamp,
    ) -> Result<Self, OpenStoreError> {
        let Pools { writer, readers, connector } = pools(&config)?;
        let mut db = writer.get().await.map_err(StoreError::from)?;
        let schema = migrate(&mut db).await?;
        let hash_key = introduce(&db, &vault, config.mode, hash_key, now).await?;
        let name = source.instance.as_str();
        execute(&db, "INSERT INTO instances (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", &[&name]).await?;
        let row = optional(&db, "SELECT number FROM instances WHERE name = $1", &[&name]).await?;
        let instance: i32 =
            row.ok_or_else(|| StoreError::Failed("the row of the instance is missing".into()))?.try_get(0).map_err(StoreError::from)?;
        lock_instance(&db, instance).await.map_err(|error| match error {
            StoreError::Failed(why) if why == LOCKED => OpenStoreError::InstanceInUse(name.to_owned()),
            other => other.into(),
        })?;
        let (state, frontier) = match verify(&db, instance, name).await {
            Err(error @ (OpenStoreError::BrokenChain { .. } | OpenStoreError::BrokenLog(_))) if config.accept_state => {
                tracing::error!(%error, "the operator accepts a state that the audit log does not confirm");
                accept::begin(&db, instance, &source, now).await?;
                verify(&db, instance, name).await?
            }
            verified => verified?,
        };
        let shared = Shared {
            revision: Arc::new(AtomicU64::new(state.revision)),
            removed_through: Arc::new(AtomicU64::new(state.removed_through)),
            tree_head: Arc::new(SyncRwLock::new(TreeHead { frontier, state_revision: state.revision, state_head: state.head })),
            changes: Arc::new(watch::Sender::new(state.revision)),
            state: Arc::new(RwLock::new(state)),
        };
        let known = Arc::new(Known::new(instance, readers.clone()));
        let follower = Follower::start(shared.clone(), Arc::clone(&known), connector, source.version.clone());
        let log = format!("{}/{}/", source.vault, source.instance);
        let task = WriterTask::new(writer.clone(), db, instance, source, shared.clone(), config.commit_timeout);
        let commits = Writer::start(task, config.queue);
        Ok(Self {
            schema,
            hash_key,
            instance,
            log,
            shared,
            known,
            follower: Mutex::new(Some(follower)),
            commits,
            writer,
            readers,
            query_time: config.query_time,
        })
    }
}

/// The verified state, and the right edge of the tree over the log of the instance. Corrects the columns that repeat the log.
async fn verify(db: &Db, instance: i32, name: &str) -> Result<(VerifiedState, Frontier), OpenStoreError> {
    // In one snapshot, because other replicas change the store meanwhile.
    db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(StoreError::from)?;
    let mut state = chain::verify(db, instance, name).await?;
    db.batch_execute("COMMIT; BEGIN").await.map_err(StoreError::from)?;
    // The columns are compared with the newest state, and nobody changes it until the end of the transaction.
    number(db, "SELECT store_revision FROM meta FOR UPDATE", &[]).await?;
    chain::catch_up(db, &mut state).await?;
    for what in chain::repair_columns(db, &state).await? {
        tracing::error!(what, "the database disagrees with the audit log, which counts");
    }
    db.batch_execute("COMMIT").await.map_err(StoreError::from)?;
    let size = chain::newest(db, instance).await?;
    match tree::frontier(db, instance, size).await {
        Err(StoreError::Corrupt { what, .. }) => Err(OpenStoreError::BrokenLog(what)),
        frontier => Ok((state, frontier?)),
    }
}

/// Runs the migrations that are missing, one process at a time. Returns the schema.
async fn migrate(db: &mut Object) -> Result<u32, OpenStoreError> {
    // Another process may migrate: a wait for it has the limit of its lock only.
    db.batch_execute("SET statement_timeout = 0").await.map_err(StoreError::from)?;
    lock_schema(db).await?;
    refuse_incomplete_copy(db).await?;
    let schema = run_migrations(db).await?;
    structure::check(db).await?;
    execute(db, "SELECT pg_advisory_unlock($1)", &[&SCHEMA_LOCK]).await?;
    db.batch_execute("RESET statement_timeout").await.map_err(StoreError::from)?;
    Ok(schema)
}

/// Takes the lock of the schema for the session. A wait for another process ends with the limit of waits for locks.
pub(super) async fn lock_schema(db: &Db) -> Result<(), StoreError> {
    execute(db, "SELECT pg_advisory_lock($1)", &[&SCHEMA_LOCK]).await.map(drop)
}

/// Refuses a database with the mark of an incomplete copy.
pub(super) async fn refuse_incomplete_copy(db: &Db) -> Result<(), OpenStoreError> {
    if has_table(db, COPY_MARK).await? { Err(OpenStoreError::IncompleteCopy("the PostgreSQL database".into())) } else { Ok(()) }
}

/// Whether the database has a table.
pub(super) async fn has_table(db: &Db, name: &str) -> Result<bool, StoreError> {
    exists(db, "SELECT 1 WHERE to_regclass($1) IS NOT NULL", &[&name]).await
}

/// The schema of the database, 0 for an empty one, and the newest schema that this program knows.
///
/// # Errors
/// [`OpenStoreError::NewerSchema`] if this program cannot work with it. A schema says from which one on a program can: during an upgrade, replicas
/// of two adjacent versions run side by side.
pub(super) async fn known_schema(db: &Db) -> Result<(u32, u32), OpenStoreError> {
    let migrations = migrations::migrations::runner();
    let versions = migrations.get_migrations().iter().filter_map(|migration| u32::try_from(migration.version()).ok());
    let known = versions.max().unwrap_or(0);
    let has_history = has_table(db, "refinery_schema_history").await?;
    let found =
        if has_history { number(db, "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history", &[]).await? } else { 0 };
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found > known && number(db, "SELECT oldest_schema::bigint FROM meta", &[]).await? > u64::from(known) {
        return Err(OpenStoreError::NewerSchema { found, known });
    }
    Ok((found, known))
}

/// Runs the migrations that are missing. The caller has the lock of the schema.
pub(super) async fn run_migrations(db: &mut Object) -> Result<u32, OpenStoreError> {
    let (found, known) = known_schema(db).await?;
    if found < known {
        let client: &mut tokio_postgres::Client = db;
        let failed = |error: refinery::Error| {
            OpenStoreError::Database(format!("migration to schema {known} failed and was undone: {}", with_causes(&error)))
        };
        migrations::migrations::runner().set_grouped(true).run_async(client).await.map_err(failed)?;
    }
    Ok(found.max(known))
}

/// Makes the one row of `meta` in a new store, and checks it in another. Returns the key for hashes of request bodies.
async fn introduce(db: &Db, vault: &VaultId, mode: Mode, hash_key: [u8; 32], now: Timestamp) -> Result<[u8; 32], OpenStoreError> {
    let first = i64::try_from(chain::FIRST_REVISION).unwrap_or(1);
    let sql = "INSERT INTO meta (only_row, vault, mode, hash_key, created_at, store_revision, frozen)
               SELECT true, $1, $2, $3, $4, $5, false WHERE NOT EXISTS (SELECT 1 FROM audit_entries) ON CONFLICT DO NOTHING";
    execute(db, sql, &[&vault.as_str(), &mode.as_str(), &hash_key.as_slice(), &now.micros(), &first]).await?;
    let row = identify(db, vault, mode).await?;
    let bytes: &[u8] = row.try_get(2).map_err(StoreError::from)?;
    bytes.try_into().map_err(|_| super::error::corrupt("meta", "hash_key has another length").into())
}

/// The row of `meta`.
///
/// # Errors
/// The database belongs to another vault, or was created for another purpose.
pub(super) async fn identify(db: &Db, vault: &VaultId, mode: Mode) -> Result<Row, OpenStoreError> {
    let row = optional(db, "SELECT vault, mode, hash_key FROM meta", &[]).await?;
    let row = row.ok_or_else(|| super::error::corrupt("meta", "its row is missing"))?;
    let (found, found_mode): (String, String) = (row.try_get(0).map_err(StoreError::from)?, row.try_get(1).map_err(StoreError::from)?);
    if found != vault.as_str() {
        return Err(OpenStoreError::OtherVault { found, expected: vault.clone() });
    }
    if found_mode != mode.as_str() {
        return Err(OpenStoreError::OtherMode { found: found_mode, expected: mode });
    }
    Ok(row)
}
