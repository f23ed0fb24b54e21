//! Looking at a store's file from outside, while its process runs or without one: nothing is locked, nothing written.

use std::path::Path;

use rusqlite::OpenFlags;

use super::{StoreError, WrapperKeyUse, backup, open::connect, read};

/// What a store's file says of itself.
#[derive(Debug)]
pub struct Inspection {
    /// The vault that it belongs to.
    pub vault: String,
    /// `dev` or `production`.
    pub mode: String,
    /// How many keys it holds, tombstones included.
    pub keys: u64,
    /// Its wrapper keys, each with what stands under it.
    pub wrapper_keys: Vec<WrapperKeyUse>,
    /// What SQLite's `quick_check` found; empty if all is well.
    pub damage: Vec<String>,
}

/// Looks at a store's file.
///
/// # Errors
/// [`StoreError`] if it is none, or cannot be read.
pub fn inspect(path: &Path) -> Result<Inspection, StoreError> {
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let (vault, mode) = db.query_row("SELECT vault, mode FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys: i64 = db.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?;
    let mut check = db.prepare("PRAGMA quick_check(20)")?;
    let found = check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let damage = found.into_iter().filter(|line| line != "ok").collect();
    Ok(Inspection { vault, mode, keys: u64::try_from(keys).unwrap_or(0), wrapper_keys: read::keys_by_wrapper_key(&db)?, damage })
}

/// Copies a store, running or not, to a new file: complete in itself, private to the user, durable when this returns.
///
/// # Errors
/// [`StoreError`] if `from` is no database, or `to` exists or cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    backup::copy(from, None, to)
}
