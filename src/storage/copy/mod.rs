//! Copies a store between SQLite and PostgreSQL: all of it, from one snapshot, compared row by row. No program opens a copy that is not complete.
//!
//! The target gets a mark first, then all rows in one transaction. They are read again and compared with the source, and then the mark is removed. A
//! copy that was interrupted leaves the mark: a start refuses the store, and the next copy replaces it.
//!
//! | file | holds |
//! |---|---|
//! | `tables` | every table and column: copied, or made again |
//! | `row` | rows of both databases, and their digests |
//! | `log` | the logs while they are read: hashes, tree, chain |
//!
//! The two ends are in `sqlite/copy_source.rs`, `sqlite/copy_target.rs` and their counterparts in `postgres`.

mod log;
mod row;
mod tables;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use self::{
    log::{ChainReader, LogReader},
    row::RowDigests,
};
use super::{
    OpenStoreError, PostgresConfig, StoreError,
    postgres::{PostgresSource, PostgresTarget},
    sqlite::{SqliteSource, SqliteTarget},
};

pub use self::{
    log::{ChainEnd, LogEnd},
    tables::copies_column,
};
pub(super) use self::{
    row::{Log, Meta, Row, Value},
    tables::{CHAIN, Column, DIGESTS, ENTRIES, Kind, TABLES, Table},
};

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// A SQLite file: of a vault, or a backup.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PostgresConfig>),
}

impl StorePlace {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }
}

/// What was copied and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedStore {
    /// The id of the vault.
    pub vault: String,
    /// The number of rows of each table, over all logs.
    pub rows: Vec<(&'static str, u64)>,
    /// The instances with a log, and the end of each log in both stores. A vault over SQLite continues the first one.
    pub logs: Vec<(String, LogEnd)>,
    /// The newest state change.
    pub chain: ChainEnd,
}

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyStoreError {
    /// Both ends are of the same kind.
    #[error(
        "both stores are {0}. Name one SQLite file and one PostgreSQL database. To copy a SQLite store, use canton-keyvault backup; to copy a PostgreSQL database, use pg_dump"
    )]
    SameKind(&'static str),
    /// The target has data.
    #[error("the target is not empty: {0}. Name a new file or an empty database")]
    NotEmpty(String),
    /// The source has an earlier schema.
    #[error("the source has schema {found}, and this program has schema {known}: start the vault on the source once with this version")]
    EarlierSchema {
        /// The schema of the source.
        found: u32,
        /// The schema of this program.
        known: u32,
    },
    /// A process uses the source.
    #[error("the source is in use by the instance {0}: stop every process of the vault first, so that the copy has its newest state")]
    InUse(String),
    /// Several instances have a log, and none was chosen.
    #[error("the source has a log of each of the instances {0}, and a vault over SQLite continues one of them: choose it with --instance")]
    SeveralLogs(String),
    /// The instance that was chosen has no log.
    #[error("the source has no log of the instance {instance}. It has a log of: {known}")]
    NoLog {
        /// The instance that was chosen.
        instance: String,
        /// Those that have one.
        known: String,
    },
    /// An instance was chosen for a copy that has all logs as they are.
    #[error("--instance chooses the log that a vault over SQLite continues: it has no meaning for a copy to PostgreSQL")]
    NothingToChoose,
    /// The source is not as a vault wrote it.
    #[error(
        "the source is not as it was written: {0}. Nothing can be concluded from a copy of it: restore a backup, or find out what happened"
    )]
    Unsound(StoreError),
    /// The target has other rows than the source.
    #[error("the rows {first} to {last} of the table {table} are not the same in the copy, which is not usable. Copy again")]
    Differs {
        /// The table.
        table: &'static str,
        /// The first row of a group in which one differs, from 1.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// One of the stores cannot be opened.
    #[error("{which}: {error}")]
    Open {
        /// The source or the target.
        which: &'static str,
        /// The error.
        error: OpenStoreError,
    },
}

impl CopyStoreError {
    pub(super) fn source(error: impl Into<OpenStoreError>) -> Self {
        match error.into() {
            OpenStoreError::Store(error @ StoreError::Corrupt { .. }) => Self::Unsound(error),
            error => Self::Open { which: "the source", error },
        }
    }

    pub(super) fn target(error: impl Into<OpenStoreError>) -> Self {
        Self::Open { which: "the target", error: error.into() }
    }
}

/// Reads a store in one snapshot.
#[async_trait(?Send)]
pub(super) trait Source {
    /// What is true of the store as a whole.
    async fn meta(&mut self) -> Result<Meta, StoreError>;

    /// Begins to read a table: the rows of one of the logs in [`Meta::logs`], or of a table that belongs to no log.
    async fn begin(&mut self, table: &'static Table, log: usize) -> Result<(), StoreError>;

    /// The next rows of the table, in its order. None at its end.
    async fn rows(&mut self) -> Result<Vec<Row>, StoreError>;
}

/// Writes a store that has the mark of an incomplete copy.
#[async_trait(?Send)]
pub(super) trait Target {
    /// Writes the one row of `meta`, and the logs.
    async fn meta(&mut self, meta: &Meta) -> Result<(), StoreError>;

    /// Writes rows of a table, which belong to one of the logs if the table has logs.
    async fn rows(&mut self, table: &'static Table, log: usize, rows: Vec<Row>) -> Result<(), StoreError>;

    /// Makes what was written durable, and opens it for reading.
    async fn read_back(&mut self) -> Result<Box<dyn Source>, OpenStoreError>;

    /// Removes the mark.
    async fn complete(&mut self) -> Result<(), StoreError>;
}

/// Copies a store that no vault uses to an empty place, and compares the two. A vault over a copy in SQLite continues the log of `instance`, which has
/// to be named only if there are several. Blocks the thread.
///
/// # Errors
/// [`CopyStoreError`]. The source is not changed. The target is as it was, or has the mark of an incomplete copy.
pub async fn copy_store(from: &StorePlace, to: &StorePlace, instance: Option<&str>) -> Result<CopiedStore, CopyStoreError> {
    match (from, to) {
        (StorePlace::Sqlite(_), StorePlace::Postgres(_)) if instance.is_some() => Err(CopyStoreError::NothingToChoose),
        (StorePlace::Sqlite(from), StorePlace::Postgres(to)) => {
            let mut source = SqliteSource::lock(from)?;
            let mut target = PostgresTarget::open(to).await?;
            copy(&mut source, &mut target).await
        }
        (StorePlace::Postgres(from), StorePlace::Sqlite(to)) => {
            let mut source = PostgresSource::lock(from, instance).await?;
            let mut target = SqliteTarget::create(to)?;
            copy(&mut source, &mut target).await
        }
        _ => Err(CopyStoreError::SameKind(from.kind())),
    }
}

/// Copies a PostgreSQL store to a new SQLite file while vaults use it. The copy has the state of one moment. A vault over it continues the log of
/// `instance`. Blocks the thread.
///
/// # Errors
/// [`CopyStoreError`]. No part of a copy is left behind, unless the process was killed.
pub async fn backup_postgres(from: &PostgresConfig, instance: &str, to: &Path) -> Result<CopiedStore, CopyStoreError> {
    let mut source = PostgresSource::open(from, instance).await?;
    let mut target = SqliteTarget::create(to)?;
    let copied = copy(&mut source, &mut target).await;
    if copied.is_err() {
        target.remove();
    }
    copied
}

async fn copy(source: &mut dyn Source, target: &mut dyn Target) -> Result<CopiedStore, CopyStoreError> {
    let meta = source.meta().await.map_err(CopyStoreError::source)?;
    target.meta(&meta).await.map_err(CopyStoreError::target)?;
    let copied = read(source, &meta, Some(target), CopyStoreError::source).await?;
    let mut written = target.read_back().await.map_err(CopyStoreError::target)?;
    let found = written.meta().await.map_err(CopyStoreError::target)?;
    if !is_same(&meta, &found) {
        return Err(CopyStoreError::Differs { table: "meta", first: 1, last: 1 });
    }
    let again = read(written.as_mut(), &found, None, CopyStoreError::target).await?;
    drop(written);
    for ((table, expected), (_, found)) in copied.tables.iter().zip(&again.tables) {
        if let Some((first, last)) = expected.difference(found) {
            return Err(CopyStoreError::Differs { table, first, last });
        }
    }
    if (&copied.logs, &copied.chain) != (&again.logs, &again.chain) {
        return Err(CopyStoreError::Differs {
            table: ENTRIES,
            first: 1,
            last: copied.logs.iter().map(|log| log.entries).max().unwrap_or(0),
        });
    }
    target.complete().await.map_err(CopyStoreError::target)?;
    let rows = TABLES.iter().map(|table| {
        let of_table = copied.tables.iter().filter(|(name, _)| *name == table.name);
        (table.name, of_table.map(|(_, digests)| digests.rows()).sum())
    });
    let logs = meta.logs.into_iter().map(|log| log.instance).zip(copied.logs).collect();
    Ok(CopiedStore { vault: meta.vault, rows: rows.collect(), logs, chain: copied.chain })
}

/// Whether two stores have the same row of `meta` and the same logs. A log without entries has no name in SQLite.
fn is_same(one: &Meta, other: &Meta) -> bool {
    let named = |meta: &Meta| {
        let mut meta = meta.clone();
        if let Some(first) = meta.logs.first_mut() {
            first.instance.clear();
        }
        meta
    };
    named(one) == named(other)
}

/// What was read from a store: for each table, or each log of a table, the digests of its rows.
struct Contents {
    tables: Vec<(&'static str, RowDigests)>,
    logs: Vec<LogEnd>,
    chain: ChainEnd,
}

/// Reads a whole store, and writes it to a target if there is one.
async fn read(
    source: &mut dyn Source,
    meta: &Meta,
    mut target: Option<&mut dyn Target>,
    of_source: fn(StoreError) -> CopyStoreError,
) -> Result<Contents, CopyStoreError> {
    let mut tables = Vec::new();
    let mut logs: Vec<LogReader> = meta.logs.iter().map(|_| LogReader::default()).collect();
    for table in TABLES {
        let reads = if table.other.is_some() { logs.as_mut_slice() } else { logs.get_mut(..1).unwrap_or_default() };
        for (number, log) in reads.iter_mut().enumerate() {
            let mut digests = RowDigests::default();
            source.begin(table, number).await.map_err(of_source)?;
            loop {
                let rows = source.rows().await.map_err(of_source)?;
                if rows.is_empty() {
                    break;
                }
                for row in &rows {
                    digests.add(row);
                    log.read(table.name, row).map_err(of_source)?;
                }
                if let Some(target) = target.as_mut() {
                    target.rows(table, number, rows).await.map_err(CopyStoreError::target)?;
                }
            }
            tables.push((table.name, digests));
        }
    }
    let mut chain = ChainReader::default();
    source.begin(&CHAIN, 0).await.map_err(of_source)?;
    loop {
        let rows = source.rows().await.map_err(of_source)?;
        if rows.is_empty() {
            break;
        }
        rows.iter().try_for_each(|row| chain.read(row)).map_err(of_source)?;
    }
    let logs = logs.into_iter().map(LogReader::end).collect::<Result<_, _>>().map_err(of_source)?;
    Ok(Contents { tables, logs, chain: chain.end(meta.store_revision).map_err(of_source)? })
}

/// Rows that are read or written at once.
pub(super) const ROWS_AT_ONCE: usize = 512;
