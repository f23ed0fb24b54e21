//! A new SQLite file as the target of a copy. Until the copy is complete, the file has another application id, so that no program opens it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use super::{
    OpenStoreError, StoreError, backup,
    copy_source::{FileLock, SqliteSource},
    digests,
    error::corrupt,
    open::{APPLICATION_ID, INCOMPLETE_COPY, connect, create_private, create_tables, looks_like_sqlite, with_suffix},
};
use crate::{
    audit::Entry,
    storage::copy::{CopyStoreError, DIGESTS, ENTRIES, Log, Meta, Row, Source, Table, Target, Value},
};

/// A file that is being written.
pub(in crate::storage) struct SqliteTarget {
    db: Connection,
    path: PathBuf,
    /// The instances of the logs after the first one.
    others: Vec<String>,
    _lock: Option<FileLock>,
}

impl SqliteTarget {
    /// Begins a copy in a new file, in an empty one, or in one with an incomplete copy, which is replaced.
    pub(in crate::storage) fn create(path: &Path) -> Result<Self, CopyStoreError> {
        let lock = FileLock::take(path).map_err(CopyStoreError::target)?;
        if is_occupied(path).map_err(CopyStoreError::target)? {
            return Err(CopyStoreError::NotEmpty(format!("the file {} exists", path.display())));
        }
        let db = begin(path).map_err(CopyStoreError::target)?;
        Ok(Self { db, path: path.to_owned(), others: Vec::new(), _lock: lock })
    }

    /// Removes the file of a backup that is not complete.
    pub(in crate::storage) fn remove(self) {
        let Self { db, path, .. } = self;
        drop(db);
        remove(&path);
    }
}

/// Whether the file has something other than an incomplete copy.
fn is_occupied(path: &Path) -> Result<bool, OpenStoreError> {
    let io = |source| OpenStoreError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io(error)),
        Ok(found) if found.is_file() && found.len() == 0 => return Ok(false),
        Ok(_) if !looks_like_sqlite(path).map_err(io)? => return Ok(true),
        Ok(_) => {}
    }
    let db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let id: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(StoreError::from)?;
    Ok(id != INCOMPLETE_COPY)
}

fn remove(path: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let _ = fs::remove_file(with_suffix(path, suffix));
    }
}

/// Makes the file with the mark, then its tables.
fn begin(path: &Path) -> Result<Connection, OpenStoreError> {
    remove(path);
    create_private(path).map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })?;
    let mut db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mark = || -> rusqlite::Result<()> {
        db.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;")?;
        db.pragma_update(None, "application_id", INCOMPLETE_COPY)
    };
    mark().map_err(StoreError::from)?;
    create_tables(&mut db)?;
    db.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from)?;
    Ok(db)
}

#[async_trait(?Send)]
impl Target for SqliteTarget {
    async fn meta(&mut self, meta: &Meta) -> Result<(), StoreError> {
        let Meta { vault, mode, hash_key, created_at, store_revision, frozen, logs } = meta;
        let removal_position = logs.first().map_or(0, |log| log.removal_position);
        let sql = "INSERT INTO meta (only_row, vault, mode, hash_key, created_at, store_revision, frozen, removal_position)
                   VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.db.execute(sql, params![vault, mode, hash_key, created_at, store_revision, frozen, removal_position])?;
        for Log { instance, removal_position } in logs.iter().skip(1) {
            self.db.execute("INSERT INTO other_logs (name, removal_position) VALUES (?1, ?2)", params![instance, removal_position])?;
            self.others.push(instance.clone());
        }
        Ok(())
    }

    async fn rows(&mut self, table: &'static Table, log: usize, mut rows: Vec<Row>) -> Result<(), StoreError> {
        let mut columns = table.column_list();
        if table.name == ENTRIES {
            columns.push_str(", changed_key");
            rows.iter_mut().try_for_each(|row| {
                let key = changed_key(row)?;
                row.push(key);
                Ok::<_, StoreError>(())
            })?;
        }
        let other = log.checked_sub(1).and_then(|other| self.others.get(other)).zip(table.other);
        if let Some((instance, _)) = other {
            columns.push_str(", instance");
            for row in &mut rows {
                row.push(Value::Text(instance.clone()));
            }
        }
        let name = other.map_or(table.name, |(_, name)| name);
        let places = vec!["?"; rows.first().map_or(0, Vec::len)].join(", ");
        let mut sql = self.db.prepare_cached(&format!("INSERT INTO {name} ({columns}) VALUES ({places})"))?;
        for row in &rows {
            sql.execute(params_from_iter(row))?;
        }
        if name == DIGESTS {
            let blocks = rows.iter().filter_map(|row| row.first().and_then(Value::integer));
            blocks.filter_map(|block| u64::try_from(block).ok()).try_for_each(|block| digests::store_summary(&self.db, block))?;
        }
        Ok(())
    }

    async fn read_back(&mut self) -> Result<Box<dyn Source>, OpenStoreError> {
        self.db.execute_batch("COMMIT").map_err(StoreError::from)?;
        Ok(Box::new(SqliteSource::written(&self.path)?))
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        self.db.pragma_update(None, "application_id", APPLICATION_ID)?;
        let failed = |error: io::Error| StoreError::Failed(format!("{}: {error}", self.path.display()));
        let file = File::open(&self.path).map_err(failed)?;
        backup::sync(&file, &self.path).map_err(failed)
    }
}

/// The key whose state an entry changes.
fn changed_key(row: &Row) -> Result<Value, StoreError> {
    let bytes = row.get(1).and_then(Value::bytes).filter(|bytes| !bytes.is_empty());
    let entry = bytes.map(Entry::decode).transpose().map_err(|error| corrupt(ENTRIES, error))?;
    let key = entry.and_then(|entry| entry.revision.and(entry.key_id));
    Ok(key.map_or(Value::Null, |key| Value::Text(key.to_string())))
}
