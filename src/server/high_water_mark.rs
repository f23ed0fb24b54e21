//! The high-water mark: a file outside the database with the newest checkpoint of the audit log, so that an older copy of the database is noticed.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{audit::MAX_NOTE, files, vault::CheckpointSink};

/// The file.
pub(crate) struct HighWaterMark(PathBuf);

impl HighWaterMark {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The checkpoint in the file. `None` if there is no file yet.
    ///
    /// # Errors
    /// If the file cannot be read. A start must not go on then, because an unreadable mark would hide a rollback.
    pub(crate) fn read(&self) -> io::Result<Option<String>> {
        match files::read(&self.0, MAX_NOTE as u64) {
            Ok(bytes) => String::from_utf8(bytes.to_vec()).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl CheckpointSink for HighWaterMark {
    /// Replaces the file as a whole: a crash leaves the old or the new checkpoint.
    fn publish(&self, note: &str) -> Result<(), String> {
        replace(&self.0, note).map_err(|error| format!("[audit] high_water_mark {}: {error}", self.0.display()))
    }
}

fn replace(path: &Path, note: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}
