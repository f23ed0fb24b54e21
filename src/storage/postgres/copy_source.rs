//! A PostgreSQL database as the source of a copy: all rows of one snapshot, in the order of their tables.

use async_trait::async_trait;
use deadpool_postgres::Object;
use tokio_postgres::{Row as PgRow, types::FromSql};

use super::{
    OpenStoreError, PostgresConfig, StoreError,
    connect::{Db, optional, pools, rows},
    error::{LOCKED, corrupt},
    open::{known_schema, lock_schema, refuse_incomplete_copy},
    structure,
    writer::lock_instance,
};
use crate::storage::copy::{CHAIN, Column, CopyStoreError, Kind, Log, Meta, ROWS_AT_ONCE, Row, Source, Table, Value};

/// A database that is read in one snapshot. Its session ends with it.
pub(in crate::storage) struct PostgresSource {
    db: Option<Object>,
    /// The instances whose logs are read.
    logs: Vec<Instance>,
    table: Option<&'static Table>,
}

/// An instance with its log.
#[derive(Debug, Default)]
struct Instance {
    number: i32,
    name: String,
    removal_position: i64,
    has_entries: bool,
}

impl PostgresSource {
    /// Opens a database, whether vaults use it or not. The log of `instance` is the first one.
    pub(in crate::storage) async fn open(config: &PostgresConfig, instance: &str) -> Result<Self, CopyStoreError> {
        Self::of(Self::connect(config).await?, Some(instance)).await
    }

    /// Opens a database that no vault uses, and lets none begin. The log of `instance` is the first one.
    pub(in crate::storage) async fn lock(config: &PostgresConfig, instance: Option<&str>) -> Result<Self, CopyStoreError> {
        let db = Self::connect(config).await?;
        lock_schema(&db).await.map_err(|error| in_use(error, "that starts or is copied"))?;
        for Instance { number, name, .. } in instances(&db).await.map_err(CopyStoreError::source)? {
            lock_instance(&db, number).await.map_err(|error| in_use(error, &name))?;
        }
        Self::of(db, instance).await
    }

    async fn connect(config: &PostgresConfig) -> Result<Object, CopyStoreError> {
        let pools = pools(config).map_err(CopyStoreError::source)?;
        let db = pools.readers.get().await.map_err(StoreError::from).map_err(CopyStoreError::source)?;
        refuse_incomplete_copy(&db).await.map_err(CopyStoreError::source)?;
        match known_schema(&db).await.map_err(CopyStoreError::source)? {
            (0, _) => Err(CopyStoreError::source(OpenStoreError::Database("the database has no tables of a key vault".into()))),
            (found, known) if found < known => Err(CopyStoreError::EarlierSchema { found, known }),
            // A vault can work with it, but a copy would lack what the later schema added.
            (found, known) if found > known => Err(CopyStoreError::source(OpenStoreError::NewerSchema { found, known })),
            _ => {
                structure::check(&db).await.map_err(CopyStoreError::source)?;
                Ok(db)
            }
        }
    }

    /// Begins the snapshot, and chooses the log that is the first one.
    async fn of(db: Object, instance: Option<&str>) -> Result<Self, CopyStoreError> {
        begin(&db).await.map_err(CopyStoreError::source)?;
        let mut logs = instances(&db).await.map_err(CopyStoreError::source)?;
        if logs.iter().any(|log| log.has_entries) {
            logs.retain(|log| log.has_entries);
        } else {
            logs.truncate(1);
        }
        let known = || logs.iter().map(|log| log.name.as_str()).collect::<Vec<_>>().join(", ");
        let first = match instance {
            Some(instance) => logs
                .iter()
                .position(|log| log.name == instance)
                .ok_or_else(|| CopyStoreError::NoLog { instance: instance.to_owned(), known: known() })?,
            None if logs.len() > 1 => return Err(CopyStoreError::SeveralLogs(known())),
            None => 0,
        };
        // SQLite has the others in the order of their names.
        let first = if first < logs.len() { logs.remove(first) } else { Instance::default() };
        logs.sort_by(|one, other| one.name.cmp(&other.name));
        logs.insert(0, first);
        Ok(Self { db: Some(db), logs, table: None })
    }

    /// Opens the logs that were just written.
    pub(super) async fn written(db: Object, numbers: &[i32]) -> Result<Self, StoreError> {
        begin(&db).await?;
        let mut found = instances(&db).await?;
        found.sort_by_key(|log| numbers.iter().position(|number| *number == log.number));
        Ok(Self { db: Some(db), logs: found, table: None })
    }

    fn db(&self) -> Result<&Db, StoreError> {
        self.db.as_deref().ok_or(StoreError::Closed)
    }
}

impl Drop for PostgresSource {
    fn drop(&mut self) {
        self.db.take().map(Object::take);
    }
}

/// The reason if a lock is not free.
fn in_use(error: StoreError, instance: &str) -> CopyStoreError {
    match error {
        StoreError::Failed(why) if why == LOCKED => CopyStoreError::InUse(instance.to_owned()),
        error => CopyStoreError::source(error),
    }
}

/// Begins a snapshot that lasts as long as the copy.
async fn begin(db: &Db) -> Result<(), StoreError> {
    db.batch_execute(
        "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    )
    .await?;
    Ok(())
}

/// The instances, by their numbers.
async fn instances(db: &Db) -> Result<Vec<Instance>, StoreError> {
    let sql = "SELECT number, name, removal_position, EXISTS (SELECT 1 FROM audit_entries WHERE instance = number)
               FROM instances ORDER BY number";
    let instance = |row: &PgRow| {
        Ok(Instance { number: row.try_get(0)?, name: row.try_get(1)?, removal_position: row.try_get(2)?, has_entries: row.try_get(3)? })
    };
    rows(db, sql, &[]).await?.iter().map(instance).collect()
}

#[async_trait(?Send)]
impl Source for PostgresSource {
    async fn meta(&mut self) -> Result<Meta, StoreError> {
        let sql = "SELECT vault, mode, hash_key, created_at, store_revision, frozen FROM meta";
        let row = optional(self.db()?, sql, &[]).await?.ok_or_else(|| corrupt("meta", "its row is missing"))?;
        Ok(Meta {
            vault: row.try_get(0)?,
            mode: row.try_get(1)?,
            hash_key: row.try_get(2)?,
            created_at: row.try_get(3)?,
            store_revision: row.try_get(4)?,
            frozen: row.try_get(5)?,
            logs: self.logs.iter().map(|log| Log { instance: log.name.clone(), removal_position: log.removal_position }).collect(),
        })
    }

    async fn begin(&mut self, table: &'static Table, log: usize) -> Result<(), StoreError> {
        let condition = match (table.other, self.logs.get(log)) {
            (Some(_), Some(log)) => format!("WHERE instance = {}", log.number),
            _ if std::ptr::eq(table, &raw const CHAIN) => "WHERE state_revision IS NOT NULL".to_owned(),
            _ => String::new(),
        };
        let order = |column: &Column| match column.kind {
            // The order of SQLite, whatever the locale of the database is.
            Kind::Text => format!("{} COLLATE \"C\"", column.name),
            _ => column.name.to_owned(),
        };
        let order = table.order_columns().iter().map(order).collect::<Vec<_>>().join(", ");
        let end = if self.table.is_some() { "CLOSE copied; " } else { "" };
        let columns = table.column_list();
        let sql = format!("{end}DECLARE copied NO SCROLL CURSOR FOR SELECT {columns} FROM {} {condition} ORDER BY {order}", table.name);
        self.db()?.batch_execute(&sql).await?;
        self.table = Some(table);
        Ok(())
    }

    async fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        let Some(table) = self.table else { return Ok(Vec::new()) };
        let found = self.db()?.query(&format!("FETCH {ROWS_AT_ONCE} FROM copied"), &[]).await?;
        let row = |row: &PgRow| table.columns.iter().enumerate().map(|(number, column)| value(row, number, column.kind)).collect();
        found.iter().map(row).collect()
    }
}

fn value(row: &PgRow, number: usize, kind: Kind) -> Result<Value, StoreError> {
    fn of<'a, T: FromSql<'a>>(row: &'a PgRow, number: usize, value: impl FnOnce(T) -> Value) -> Result<Value, StoreError> {
        Ok(row.try_get::<_, Option<T>>(number)?.map_or(Value::Null, value))
    }
    match kind {
        Kind::Integer => of(row, number, Value::Integer),
        Kind::Small => of(row, number, |small: i32| Value::Integer(small.into())),
        Kind::Flag => of(row, number, |flag: bool| Value::Integer(flag.into())),
        Kind::Text => of(row, number, Value::Text),
        Kind::Bytes => of(row, number, Value::Bytes),
    }
}
