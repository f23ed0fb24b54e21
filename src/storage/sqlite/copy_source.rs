//! A SQLite file as the source of a copy: all rows of one snapshot, in the order of their tables.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, ToSql, params_from_iter, types::ValueRef};

use super::{
    OpenStoreError, StoreError, chain,
    error::corrupt,
    open::{connect, known_schema, lock, looks_like_sqlite, with_suffix},
};
use crate::storage::copy::{CHAIN, CopyStoreError, Log, Meta, ROWS_AT_ONCE, Row, Source, Table, Value};

/// A file that is read in one snapshot.
pub(in crate::storage) struct SqliteSource {
    db: Connection,
    /// The instances of the logs after the first one.
    others: Vec<String>,
    /// The rows that are read: the columns, the table with its condition, and the order.
    select: Option<(&'static Table, String)>,
    /// The instance of the rows that are read, if the table has that of other logs.
    instance: Option<String>,
    /// The values that order the row that was read last.
    after: Row,
    _lock: Option<FileLock>,
}

impl SqliteSource {
    /// Opens the file of a vault that does not run, or a backup.
    pub(in crate::storage) fn lock(path: &Path) -> Result<Self, CopyStoreError> {
        let (source, found, known) = Self::lock_any(path).map_err(CopyStoreError::source)?;
        if found < known { Err(CopyStoreError::EarlierSchema { found, known }) } else { Ok(source) }
    }

    /// A file of any schema that this program knows, its schema and the newest one.
    fn lock_any(path: &Path) -> Result<(Self, u32, u32), OpenStoreError> {
        let io = |source| OpenStoreError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(io)?.len() == 0 || !looks_like_sqlite(path).map_err(io)? {
            return Err(OpenStoreError::NotAVault(path.to_owned()));
        }
        let source = Self::open(path, FileLock::take(path)?)?;
        let (found, known) = known_schema(&source.db, path)?;
        Ok((source, found, known))
    }

    /// Opens a file that was just written.
    pub(super) fn written(path: &Path) -> Result<Self, StoreError> {
        Self::open(path, None)
    }

    fn open(path: &Path, lock: Option<FileLock>) -> Result<Self, StoreError> {
        let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.execute_batch("BEGIN")?;
        Ok(Self { db, others: Vec::new(), select: None, instance: None, after: Row::new(), _lock: lock })
    }
}

#[async_trait(?Send)]
impl Source for SqliteSource {
    async fn meta(&mut self) -> Result<Meta, StoreError> {
        // The log has the name under which the vault wrote its newest entry.
        let instance = chain::newest_entry(&self.db)?.map_or_else(|| FIRST_INSTANCE.to_owned(), |entry| entry.instance);
        let sql = "SELECT vault, mode, hash_key, created_at, store_revision, frozen, removal_position FROM meta";
        let mut sql = self.db.prepare(sql)?;
        let mut rows = sql.query([])?;
        let row = rows.next()?.ok_or_else(|| corrupt("meta", "its row is missing"))?;
        let mut logs = vec![Log { instance, removal_position: row.get(6)? }];
        let mut others = self.db.prepare("SELECT name, removal_position FROM other_logs ORDER BY name")?;
        for log in others.query_map([], |row| Ok(Log { instance: row.get(0)?, removal_position: row.get(1)? }))? {
            logs.push(log?);
        }
        self.others = logs.iter().skip(1).map(|log| log.instance.clone()).collect();
        Ok(Meta {
            vault: row.get(0)?,
            mode: row.get(1)?,
            hash_key: row.get(2)?,
            created_at: row.get(3)?,
            store_revision: row.get(4)?,
            frozen: row.get(5)?,
            logs,
        })
    }

    async fn begin(&mut self, table: &'static Table, log: usize) -> Result<(), StoreError> {
        self.instance = log.checked_sub(1).and_then(|other| self.others.get(other)).cloned();
        let columns = table.column_list();
        let from = match (table.other, &self.instance) {
            (Some(other), Some(_)) => format!("{other} WHERE instance = ?1"),
            _ if std::ptr::eq(table, &raw const CHAIN) => format!("({ALL_CHANGES}) WHERE ?1 IS NULL"),
            _ => format!("{} WHERE ?1 IS NULL", table.name),
        };
        self.select = Some((table, format!("SELECT {columns} FROM {from}")));
        self.after = Row::new();
        Ok(())
    }

    async fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        let Some((table, select)) = &self.select else { return Ok(Vec::new()) };
        let order = table.order_columns().iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        let places = vec!["?"; self.after.len()].join(", ");
        let after = if self.after.is_empty() { String::new() } else { format!("AND ({order}) > ({places})") };
        let mut sql = self.db.prepare_cached(&format!("{select} {after} ORDER BY {order} LIMIT {ROWS_AT_ONCE}"))?;
        let instance = self.instance.clone().map_or(Value::Null, Value::Text);
        let mut rows = sql.query(params_from_iter(std::iter::once(&instance).chain(&self.after)))?;
        let mut read = Vec::new();
        while let Some(row) = rows.next()? {
            let value = |(number, _)| value(table.name, row.get_ref(number)?);
            read.push(table.columns.iter().enumerate().map(value).collect::<Result<Row, StoreError>>()?);
        }
        if let Some(last) = read.last() {
            self.after = last.iter().take(table.order).cloned().collect();
        }
        Ok(read)
    }
}

/// The state changes of all logs.
const ALL_CHANGES: &str = "SELECT state_revision, entry, leaf FROM audit_entries WHERE state_revision IS NOT NULL UNION ALL
                           SELECT state_revision, entry, leaf FROM other_entries WHERE state_revision IS NOT NULL";

fn value(table: &'static str, value: ValueRef<'_>) -> Result<Value, StoreError> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Integer(number)),
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).map(Value::Text).map_err(|_| corrupt(table, "a text is not UTF-8")),
        ValueRef::Blob(bytes) => Ok(Value::Bytes(bytes.to_vec())),
        ValueRef::Real(_) => Err(corrupt(table, "a value is a fraction")),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(rusqlite::types::Null.into()),
            Self::Integer(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
        }
    }
}

/// The lock that a vault takes on its file. A lock file that was made here is removed with it.
pub(super) struct FileLock {
    made: Option<PathBuf>,
    _file: File,
}

impl FileLock {
    /// `None` for a folder that cannot be written: no vault can use a file there.
    pub(super) fn take(path: &Path) -> Result<Option<Self>, OpenStoreError> {
        let beside = with_suffix(path, ".lock");
        let made = (!beside.exists()).then_some(beside);
        match lock(path) {
            Ok(file) => Ok(Some(Self { made, _file: file })),
            Err(OpenStoreError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            let _ = fs::remove_file(made);
        }
    }
}

/// The instance of a log without entries.
const FIRST_INSTANCE: &str = "main";
