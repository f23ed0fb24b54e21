//! How a SQLite store is opened, and why a file can be refused.

use std::{io, path::PathBuf, time::Duration};

use super::StoreError;
use crate::domain::VaultId;

/// Options of a SQLite store.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file. It is created if it does not exist, readable by the owner only. `-wal`, `-shm` and `.lock` are beside it.
    pub path: PathBuf,
    /// The purpose of the file, fixed when it is created.
    pub mode: Mode,
    /// Timeout of a commit or a read. Default 5 s.
    pub commit_timeout: Duration,
    /// Maximum number of commits that wait for the writer. Further ones are refused at once. Default 4096.
    pub queue: usize,
    /// Time of one query of the audit log. One that has not found enough by then gives a part of the page. Default 500 ms.
    pub query_time: Duration,
    /// Threads for reads of single rows. Default 2. Lists have a separate thread and queries of the audit log two, so that they do not delay
    /// signatures or each other.
    pub readers: usize,
    /// Pages (4 KiB) of the write-ahead log after which it is written into the database file. Default 4000. Fewer pages cost more syncs,
    /// more pages cost disk space.
    pub wal_pages: u32,
    /// Whether a store whose chain of state changes is broken is opened all the same. Its present state is then restated in a new chain.
    pub accept_state: bool,
    /// The name of another SQLite VFS, for tests of crashes.
    #[doc(hidden)]
    pub vfs: Option<String>,
}

impl SqliteConfig {
    /// The defaults for this file.
    pub fn new(path: impl Into<PathBuf>, mode: Mode) -> Self {
        Self {
            path: path.into(),
            mode,
            commit_timeout: Duration::from_secs(5),
            query_time: Duration::from_millis(500),
            queue: 4096,
            readers: 2,
            wal_pages: 4_000,
            accept_state: false,
            vfs: None,
        }
    }
}

/// The purpose of a store. A store that `dev` created, with its certificates and wrapper key beside it, never becomes a production store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Created by `dev`.
    Dev,
    /// Created by `serve`.
    Production,
}

impl Mode {
    /// The text form, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Production => "production",
        }
    }
}

/// Why a store was not opened. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process uses the file.
    #[error("{} is in use by another process: only one may run on a database", .0.display())]
    InUse(PathBuf),
    /// Another process writes the log of this instance.
    #[error("another process runs as the instance {0}: give each process over one database an instance name of its own")]
    InstanceInUse(String),
    /// The database cannot be used as it is configured.
    #[error("{0}")]
    Database(String),
    /// The file is not a database, or belongs to another program.
    #[error("{} is not a key vault's database", .0.display())]
    NotAVault(PathBuf),
    /// A copy of a store into this one was interrupted.
    #[error("{0} has an incomplete copy of a store, which no program can use: copy the store again with the same command")]
    IncompleteCopy(String),
    /// The file was written by a newer program.
    #[error("the database has schema {found}, this program knows up to {known}: run the newer version")]
    NewerSchema {
        /// The schema of the file.
        found: u32,
        /// The newest schema of this program.
        known: u32,
    },
    /// The file belongs to another vault.
    #[error("the database belongs to the vault {found}, and this is {expected}")]
    OtherVault {
        /// The vault of the file.
        found: String,
        /// The vault of the configuration.
        expected: VaultId,
    },
    /// The file was created for the other mode.
    #[error("the database was made for {found}, and this is {expected}: a development database stays one", expected = .expected.as_str())]
    OtherMode {
        /// The mode of the file.
        found: String,
        /// The mode of this process.
        expected: Mode,
    },
    /// The state changes in the log are not those that were written.
    #[error(
        "the state change {revision} in the audit log is missing or was changed: {why}. Restore a backup, or find out what happened and start once with serve --accept-state"
    )]
    BrokenChain {
        /// The number of the first state change that is not as written.
        revision: u64,
        /// What is wrong.
        why: String,
    },
    /// An entry at the end of the log, or the tree over the log, is not as it was written.
    #[error(
        "the audit log is not complete or was changed: {0}. Restore a backup, or find out what happened and start once with serve --accept-state"
    )]
    BrokenLog(String),
    /// The file has tables, indexes, views or triggers that this program did not make, or lacks some.
    #[error("the database has another structure than this program made: {0}. Undo that change, or restore a backup")]
    ForeignSchema(String),
    /// The migration failed and was rolled back.
    #[error("migration to schema {known} failed and was undone; the file as it was is at {}: {why}", .kept.display())]
    Migration {
        /// The target schema.
        known: u32,
        /// The copy of the old file.
        kept: PathBuf,
        /// The error of the database.
        why: String,
    },
    /// A file could not be created, locked or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The operating system provided no randomness.
    #[error("the system's random generator failed")]
    Random,
    /// An error of the database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
