//! How a SQLite store is opened, and why a file may be refused.

use std::{io, path::PathBuf, time::Duration};

use super::StoreError;
use crate::domain::VaultId;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file; made, private to the user, where there is none. Beside it stand `-wal`, `-shm` and `.lock`.
    pub path: PathBuf,
    /// What the file is for; fixed when it is made.
    pub mode: Mode,
    /// How long a commit or a read may take before it is refused; 5 seconds by default.
    pub commit_timeout: Duration,
    /// How many commits may wait for the writer; more are refused at once. 4096 by default.
    pub queue: usize,
    /// Threads for look-ups; 2 by default. Lists and log queries have one more of their own, so that they delay no cold key.
    pub readers: usize,
    /// Pages (4 KiB) of write-ahead log after which it is folded into the file. 4000 by default: less costs syncs, more costs disk.
    pub wal_pages: u32,
    /// Another SQLite VFS by name: for tests of crashes.
    #[doc(hidden)]
    pub vfs: Option<String>,
}

impl SqliteConfig {
    /// The defaults, on this file.
    pub fn new(path: impl Into<PathBuf>, mode: Mode) -> Self {
        Self { path: path.into(), mode, commit_timeout: Duration::from_secs(5), queue: 4096, readers: 2, wal_pages: 4_000, vfs: None }
    }
}

/// What a store is for: one made by `dev`, whose certificates and wrapper key lie beside it, never becomes a production store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Made by `dev`.
    Dev,
    /// Made by `serve`.
    Production,
}

impl Mode {
    /// The word for it, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Production => "production",
        }
    }
}

/// Why a store was not opened. Nothing in the file was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has it.
    #[error("{} is in use by another process: only one may run on a database", .0.display())]
    InUse(PathBuf),
    /// Not a database, or another program's.
    #[error("{} is not a key vault's database", .0.display())]
    NotAVault(PathBuf),
    /// Written by a newer program.
    #[error("the database has schema {found}, this program knows up to {known}: run the newer version")]
    NewerSchema {
        /// What the file has.
        found: u32,
        /// What this program has.
        known: u32,
    },
    /// Another vault's.
    #[error("the database belongs to the vault {found}, and this is {expected}")]
    OtherVault {
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: VaultId,
    },
    /// Made for the other mode.
    #[error("the database was made for {found}, and this is {expected}: a development database stays one", expected = .expected.as_str())]
    OtherMode {
        /// What it was made for.
        found: String,
        /// What was asked.
        expected: Mode,
    },
    /// The migration failed; it was undone.
    #[error("migration to schema {known} failed and was undone; the file as it was is at {}: {why}", .kept.display())]
    Migration {
        /// The schema that it should have become.
        known: u32,
        /// Where a copy of the old file lies (not made for a new one).
        kept: PathBuf,
        /// What the database said.
        why: String,
    },
    /// A file could not be made, locked or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system's random generator failed")]
    Random,
    /// The database said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}
