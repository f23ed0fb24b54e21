//! Inspects the file of a store without opening the store: it locks nothing and writes nothing.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{
    Mode, OpenStoreError, StoreError, WrapperKeyUse, backup,
    error::corrupt,
    open::{check_structure, connect, looks_like_sqlite},
    read,
    rows::unsigned,
};
use crate::audit::leaf_hash;

/// The content of the file of a store.
#[derive(Debug)]
pub struct Inspection {
    /// The vault that the file belongs to.
    pub vault: String,
    /// `dev` or `production`.
    pub mode: String,
    /// The number of keys, including destroyed ones.
    pub keys: u64,
    /// The wrapper keys with their use.
    pub wrapper_keys: Vec<WrapperKeyUse>,
    /// The findings of SQLite's `quick_check`, of the check of the structure, and of the chain of state changes. Empty if there are none.
    pub damage: Vec<String>,
}

/// Inspects the file of a store.
///
/// # Errors
/// [`StoreError`] if it is none, or cannot be read.
pub fn inspect(path: &Path) -> Result<Inspection, StoreError> {
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let (vault, mode) = db.query_row("SELECT vault, mode FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys: i64 = db.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?;
    let mut damage = damaged_pages(&db)?;
    damage.extend(check_structure(&db, path).err().map(|error| error.to_string()));
    Ok(Inspection { vault, mode, keys: u64::try_from(keys).unwrap_or(0), wrapper_keys: read::keys_by_wrapper_key(&db)?, damage })
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
