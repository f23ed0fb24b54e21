//! The high-water mark: a file outside the database with the newest checkpoint of the audit log, so that an older copy of the database is noticed.

use std::{io, path::PathBuf};

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
        files::replace(&self.0, note.as_bytes()).map_err(|error| format!("[audit] high_water_mark {}: {error}", self.0.display()))
    }
}
