//! Inspects the database of a store without opening the store: it takes no lock and writes nothing.

use tokio::sync::RwLock;

use super::{
    PostgresConfig, StoreError, chain,
    connect::{Db, number, optional, pools},
    jobs,
    open::{identify, known_schema, refuse_incomplete_copy},
    read, structure, tree,
};
use crate::{
    domain::{JobKind, Timestamp, VaultId, WrapperState},
    storage::{Coverage, KeyRequirement, OpenStoreError, StoreFacts},
};

/// What the database of a store contains.
#[derive(Debug)]
pub struct PostgresInspection {
    /// The number of keys, including destroyed ones.
    pub keys: u64,
    /// The replicas that are alive.
    pub live: u64,
    /// What the checks of a start look at.
    pub facts: StoreFacts,
}

/// Inspects the database of a store, whether it is in use or not. `None` if it is empty.
///
/// # Errors
/// Why a start would not open it.
pub async fn inspect_postgres(config: &PostgresConfig, vault: &VaultId) -> Result<Option<PostgresInspection>, OpenStoreError> {
    let db = pools(config)?.readers.get().await.map_err(StoreError::from)?;
    refuse_incomplete_copy(&db).await?;
    if known_schema(&db).await?.0 == 0 {
        return Ok(None);
    }
    structure::check(&db).await?;
    identify(&db, vault, config.mode).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    db.batch_execute(begin).await.map_err(StoreError::from)?;
    let state = RwLock::new(chain::verify(&db, NO_INSTANCE, "").await?);
    let used = read::wrapper_keys(&db, &state, true).await?.unwrap_or_default();
    let (wrapper_keys, keys): (Vec<_>, Vec<_>) = used.into_iter().map(|used| (used.key, used.keys)).unzip();
    let active = wrapper_keys.iter().find(|key| key.state == WrapperState::Active);
    let active_coverage: Option<Coverage> = match active {
        Some(active) => Some(jobs::coverage(&db, KeyRequirement::WrapUnder(active.id)).await?),
        None => None,
    };
    let rotating =
        read::state(&db, &state).await?.and_then(|state| state.running_job).is_some_and(|job| job.work.kind() == JobKind::Rotation);
    let facts = StoreFacts {
        wrapper_keys,
        keys,
        active_coverage,
        rotating,
        newest_entry_at: tree::newest_entry_at(&db).await?,
        database_clock: Some(clock(&db).await?),
        unsafe_settings: unsafe_settings(&db).await?,
    };
    Ok(Some(PostgresInspection {
        keys: number(&db, "SELECT count(*) FROM keys", &[]).await?,
        live: number(&db, LIVE, &[&f64::from(crate::storage::LEASE_SECONDS)]).await?,
        facts,
    }))
}

/// The clock of the server.
pub(super) async fn clock(db: &Db) -> Result<Timestamp, StoreError> {
    let row = optional(db, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[]).await?;
    let micros = row.map(|row| row.try_get(0)).transpose()?;
    micros.map(Timestamp::from_micros).ok_or_else(|| StoreError::Failed("PostgreSQL does not say what time it is".into()))
}

/// The settings of the server with which a confirmed commit can be lost.
pub(super) async fn unsafe_settings(db: &Db) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for (setting, safe, risk) in SAFE_SETTINGS {
        let row = optional(db, "SELECT current_setting($1, true)", &[setting]).await?;
        let value: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
        if let Some(value) = value.filter(|value| !safe.contains(&value.as_str())) {
            found.push(format!("PostgreSQL has {setting} = {value}: {risk}"));
        }
    }
    Ok(found)
}

/// Settings, their safe values, and what happens otherwise (PostgreSQL 18, sections 19.5 and 19.6).
const SAFE_SETTINGS: &[(&str, &[&str], &str)] = &[
    ("fsync", &["on"], "a crash of the machine can lose or damage what was confirmed"),
    ("synchronous_commit", &["on", "remote_apply"], "a crash or a failover can lose what was confirmed"),
    ("full_page_writes", &["on"], "a crash of the machine can damage the database"),
];

/// The number of no instance.
const NO_INSTANCE: i32 = 0;

const LIVE: &str = "SELECT count(*) FROM instances WHERE seen_at > clock_timestamp() - make_interval(secs => $1)";
