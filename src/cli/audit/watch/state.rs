//! The state file of `audit watch`: the last checkpoint, and when it was first seen. It is replaced as a whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    audit::{Checkpoint, SignedNote},
    cli::Failure,
    domain::Timestamp,
    files,
};

/// The last checkpoint that was seen.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    last: Option<(Checkpoint, Timestamp)>,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The signed note.
    checkpoint: String,
    /// When it was first seen.
    seen_at: Timestamp,
}

impl State {
    /// Reads the file. A file that does not exist is an empty state; one that cannot be read is refused, because beginning again would hide a change.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("--state {}: {why}", path.display()));
        let bytes = match files::read(path, files::MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path: path.to_owned(), last: None }),
            Err(error) => return Err(unusable(&error)),
        };
        let Stored { checkpoint, seen_at } = serde_json::from_slice(&bytes).map_err(|error| unusable(&error))?;
        let note = SignedNote::parse(checkpoint.as_bytes()).map_err(|error| unusable(&error))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| unusable(&error))?;
        Ok(Self { path: path.to_owned(), last: Some((checkpoint, seen_at)) })
    }

    /// The last checkpoint.
    pub(super) fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref().map(|(checkpoint, _)| checkpoint)
    }

    /// When it was first seen.
    pub(super) fn seen_at(&self) -> Option<Timestamp> {
        self.last.as_ref().map(|(_, at)| *at)
    }

    /// Keeps a newer checkpoint.
    ///
    /// # Errors
    /// The error of the system. The state is unchanged then.
    pub(super) fn keep(&mut self, note: &SignedNote, checkpoint: Checkpoint, seen_at: Timestamp) -> io::Result<()> {
        let stored = Stored { checkpoint: note.to_string(), seen_at };
        files::replace(&self.path, &serde_json::to_vec(&stored)?)?;
        self.last = Some((checkpoint, seen_at));
        Ok(())
    }
}
