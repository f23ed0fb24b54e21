//! A complete copy of a store in one file, made while the store is in use.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{StoreError, open::connect};

/// Copies the store at `from` to a new file that only the owner can read. The copy is durable when this returns. The WAL of the store grows
/// meanwhile.
///
/// # Errors
/// [`StoreError`] if the file exists or cannot be written; no part of a copy is left behind then.
pub(super) fn copy(from: &Path, vfs: Option<&str>, to: &Path) -> Result<(), StoreError> {
    copy_from(&connect(from, vfs, OpenFlags::SQLITE_OPEN_READ_ONLY)?, to)
}

/// As [`copy`], over an open connection.
pub(super) fn copy_from(from: &Connection, to: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Failed(format!("{}: {error}", to.display()));
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to).map_err(failed)?;
    let copied = pages(from, to).and_then(|()| sync(&file, to).map_err(failed));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

fn pages(from: &Connection, to: &Path) -> Result<(), StoreError> {
    let mut copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // No other process uses the file yet, so that it needs no journal, and one sync at the end.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    // One step is one snapshot. With several steps, every commit meanwhile would restart the copy.
    match Backup::new(from, &mut copy)?.step(-1)? {
        StepResult::Done => {}
        stopped => return Err(StoreError::Failed(format!("the copy stopped: {stopped:?}"))),
    }
    // The copied header requires a WAL. Without it, the file is complete.
    copy.execute_batch("PRAGMA journal_mode = DELETE;")?;
    copy.close().map_err(|(_, error)| error.into())
}

/// Makes a file and its entry in its folder durable.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}
