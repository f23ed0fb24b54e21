//! Opens the store that the configuration names, and reads what the checks of a start look at.

use std::{path::Path, sync::Arc};

use crate::{
    audit::{Entry, Source},
    config::Config,
    crypto::Random,
    domain::{JobKind, Timestamp, WrapperState},
    storage::{KeyRequirement, KeyStore, Mode, SqliteConfig, SqliteStore, StoreError, StoreFacts},
};

use super::run::clock;

/// The store of a configuration. With `accept_state`, a store whose chain of state changes is broken is opened too.
///
/// # Errors
/// Why it cannot be opened.
pub(super) async fn open_store(config: &Config, mode: Mode, accept_state: bool, random: &dyn Random) -> anyhow::Result<Arc<dyn KeyStore>> {
    #[cfg(feature = "postgresql")]
    if let Some(options) = postgres_config(config, mode) {
        let options = crate::storage::PostgresConfig { accept_state, ..options };
        let store = crate::storage::PostgresStore::open(options, source(config), &config.vault.id, random, clock()()).await;
        return Ok(Arc::new(store.map_err(anyhow::Error::from)?));
    }
    let path = config.storage.path.as_deref().unwrap_or_else(|| Path::new(""));
    Ok(Arc::new(open_sqlite(config, path, mode, accept_state, random)?))
}

/// The options of the store in PostgreSQL. `None` if the store is a file.
#[cfg(feature = "postgresql")]
pub(crate) fn postgres_config(config: &Config, mode: Mode) -> Option<crate::storage::PostgresConfig> {
    let (commit_timeout, query_time) = (config.storage.commit_timeout, config.storage.query_time);
    config.storage.postgresql.clone().map(|options| crate::storage::PostgresConfig { mode, commit_timeout, query_time, ..options })
}

/// A store in this file, with the options of the configuration.
///
/// # Errors
/// Why it cannot be opened.
pub(crate) fn open_sqlite(
    config: &Config,
    path: &Path,
    mode: Mode,
    accept_state: bool,
    random: &dyn Random,
) -> anyhow::Result<SqliteStore> {
    let (commit_timeout, query_time) = (config.storage.commit_timeout, config.storage.query_time);
    let sqlite = SqliteConfig { commit_timeout, query_time, accept_state, ..SqliteConfig::new(path, mode) };
    SqliteStore::open(sqlite, source(config), &config.vault.id, random, clock()()).map_err(anyhow::Error::from)
}

fn source(config: &Config) -> Source {
    Source { vault: config.vault.id.to_string(), instance: config.vault.instance().to_owned(), version: env!("CARGO_PKG_VERSION").into() }
}

/// The time of the newest audit entry. `None` if there is none, or if it was removed.
pub(super) async fn newest_entry_at(store: &dyn KeyStore) -> Option<Timestamp> {
    let newest = store.log_head().size.checked_sub(1)?;
    let bytes = store.entry_bytes(newest, 1).await.ok()?;
    Entry::decode(bytes.first()?).ok().map(|entry| entry.at)
}

/// What the checks of a start look at. A vault with too many keys to count them within the time limit of a read starts without the count, and counts
/// again while it serves.
///
/// # Errors
/// [`StoreError`] if the store cannot be read.
pub(super) async fn read_facts(store: &dyn KeyStore, newest_entry_at: Option<Timestamp>) -> Result<StoreFacts, StoreError> {
    let wrapper_keys = store.wrapper_keys().await?;
    let active_coverage = match wrapper_keys.iter().find(|key| key.state == WrapperState::Active) {
        Some(active) => match store.coverage(KeyRequirement::WrapUnder(active.id)).await {
            Ok(coverage) => Some(coverage),
            Err(error @ StoreError::TooSlow(_)) => {
                tracing::warn!(%error, "the keys without a wrap under the active wrapper key were not counted; the vault counts them while it serves");
                None
            }
            Err(error) => return Err(error),
        },
        None => None,
    };
    let rotating = store.state().await?.running_job.is_some_and(|job| job.work.kind() == JobKind::Rotation);
    let (database_clock, unsafe_settings) = match store.replication() {
        Some(replication) => (Some(replication.clock().await?), replication.unsafe_settings().await?),
        None => (None, Vec::new()),
    };
    Ok(StoreFacts { wrapper_keys, keys: Vec::new(), active_coverage, rotating, newest_entry_at, database_clock, unsafe_settings })
}
