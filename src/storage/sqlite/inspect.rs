//! Inspects the file of a store without opening the store: it locks nothing and writes nothing.

use std::path::Path;

use rusqlite::OpenFlags;

use super::{
    StoreError, WrapperKeyUse, backup,
    open::{check_structure, connect},
    read,
};

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
    let mut check = db.prepare("PRAGMA quick_check(20)")?;
    let found = check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut damage: Vec<String> = found.into_iter().filter(|line| line != "ok").collect();
    damage.extend(check_structure(&db, path).err().map(|error| error.to_string()));
    Ok(Inspection { vault, mode, keys: u64::try_from(keys).unwrap_or(0), wrapper_keys: read::keys_by_wrapper_key(&db)?, damage })
}

/// Copies a store to a new file, whether it is in use or not. The copy is complete, readable by the owner only, and durable when this
/// returns.
///
/// # Errors
/// [`StoreError`] if `from` is no database, or `to` exists or cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    backup::copy(from, None, to)
}
