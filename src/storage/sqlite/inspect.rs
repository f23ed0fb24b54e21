//! Inspects the file of a store without opening the store: it locks nothing and writes nothing.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{
    Coverage, KeyRequirement, Mode, OpenStoreError, StoreError, backup, chain,
    error::corrupt,
    jobs,
    open::{check_openable, check_structure, connect, looks_like_sqlite},
    read,
    rows::unsigned,
};
use crate::{
    audit::leaf_hash,
    domain::{JobKind, Timestamp, VaultId, WrapperKey, WrapperState},
};

/// The content of the file of a store.
#[derive(Debug)]
pub struct Inspection {
    /// The number of keys, including destroyed ones.
    pub keys: u64,
    /// The findings of SQLite's `quick_check`. Empty if there are none.
    pub damage: Vec<String>,
}

/// Inspects the file of a store, whether it is in use or not.
///
/// # Errors
/// Why a start would not open it.
pub fn inspect(path: &Path, vault: &VaultId, mode: Mode) -> Result<Inspection, OpenStoreError> {
    if !looks_like_sqlite(path).map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })? {
        return Err(OpenStoreError::NotAVault(path.to_owned()));
    }
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if !check_openable(&db, path, vault, mode)? {
        return Ok(Inspection { keys: 0, damage: Vec::new() });
    }
    let keys: i64 = db.query_row("SELECT count(*) FROM keys", [], |row| row.get(0)).map_err(StoreError::from)?;
    Ok(Inspection { keys: unsigned(keys)?, damage: damaged_pages(&db)? })
}

/// What the file of a store says about its wrapper keys and its age. For reports, not for decisions: the log is not consulted.
#[derive(Debug, Default)]
pub struct StoreFacts {
    /// The wrapper keys, oldest first.
    pub wrapper_keys: Vec<WrapperKey>,
    /// The number of keys with a wrap under each wrapper key, in the same order. Empty if they were not counted.
    pub keys: Vec<u64>,
    /// The keys with a verified wrap under the active wrapper key. `None` without an active one, or if they were not counted.
    pub active_coverage: Option<Coverage>,
    /// Whether a rotation runs.
    pub rotating: bool,
    /// The time of the newest audit entry.
    pub newest_entry_at: Option<Timestamp>,
    /// The clock of the server of the database. `None` for a file.
    pub database_clock: Option<Timestamp>,
    /// Settings of the database with which a confirmed commit can be lost, each as a sentence. Empty for a file.
    pub unsafe_settings: Vec<String>,
}

/// Reads the facts of a store, whether it is in use or not. The time grows with the number of keys.
///
/// # Errors
/// [`StoreError`] if the file cannot be read.
pub fn facts(path: &Path) -> Result<StoreFacts, StoreError> {
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let (wrapper_keys, keys): (Vec<_>, Vec<_>) = read::keys_by_wrapper_key(&db)?.into_iter().map(|used| (used.key, used.keys)).unzip();
    let active = wrapper_keys.iter().find(|key| key.state == WrapperState::Active);
    let active_coverage = active.map(|active| jobs::coverage(&db, KeyRequirement::WrapUnder(active.id))).transpose()?;
    let rotating = jobs::running(&db)?.is_some_and(|job| job.work.kind() == JobKind::Rotation);
    let newest_entry_at = chain::newest_entry(&db)?.map(|entry| entry.at);
    Ok(StoreFacts { wrapper_keys, keys, active_coverage, rotating, newest_entry_at, database_clock: None, unsafe_settings: Vec::new() })
}

/// What identifies the content of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHead {
    /// The vault that the backup belongs to.
    pub vault: String,
    /// What the store was created for.
    pub mode: Mode,
    /// The number of rows of keys, including those that cannot be read.
    pub keys: u64,
    /// The sequence number of the newest audit entry. 0 if there is none.
    pub sequence: u64,
    /// The leaf hash of the newest audit entry, from its bytes. `None` if there is none.
    pub leaf: Option<[u8; 32]>,
    /// The revision of the store.
    pub store_revision: u64,
}

/// Reads the head of a backup of unknown origin. The structure is checked before any table is read, because a table could be a view or compute its
/// columns.
///
/// # Errors
/// [`OpenStoreError`] if the file is no store, is damaged, or has another structure or a broken chain of state changes.
pub fn backup_head(path: &Path) -> Result<BackupHead, OpenStoreError> {
    let io = |source| OpenStoreError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.len() == 0 || !looks_like_sqlite(path).map_err(io)? {
        return Err(OpenStoreError::NotAVault(path.to_owned()));
    }
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check_structure(&db, path)?;
    if let Some(damage) = damaged_pages(&db)?.first() {
        return Err(StoreError::Failed(format!("the file is damaged: {damage}")).into());
    }
    Ok(head(&db)?)
}

fn head(db: &Connection) -> Result<BackupHead, StoreError> {
    let (vault, mode, revision): (String, String, i64) =
        db.query_row("SELECT vault, mode, store_revision FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mode = [Mode::Dev, Mode::Production].into_iter().find(|known| known.as_str() == mode);
    let newest = "SELECT sequence, entry FROM audit_entries ORDER BY sequence DESC LIMIT 1";
    let newest: Option<(i64, Vec<u8>)> = db.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(BackupHead {
        vault,
        mode: mode.ok_or_else(|| corrupt("meta", "its mode is neither dev nor production"))?,
        keys: unsigned(db.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?)?,
        sequence: newest.as_ref().map_or(Ok(0), |(sequence, _)| unsigned(*sequence))?,
        leaf: newest.map(|(_, entry)| leaf_hash(&entry)),
        store_revision: unsigned(revision)?,
    })
}

/// The findings of SQLite's `quick_check`, at most 20.
fn damaged_pages(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut check = db.prepare("PRAGMA quick_check(20)")?;
    let found = check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// Copies a store to a new file, whether it is in use or not. The copy is complete, readable by the owner only, and durable when this
/// returns.
///
/// # Errors
/// [`StoreError`] if `from` is no database, or `to` exists or cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    backup::copy(from, None, to)
}
