//! An empty PostgreSQL database as the target of a copy. Until the copy is complete, the database has the table `incomplete_copy`, and no process
//! opens it.

use std::pin::pin;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use tokio_postgres::{
    binary_copy::BinaryCopyInWriter,
    types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked},
};

use super::{
    OpenStoreError, PostgresConfig, StoreError,
    connect::{Pools, execute, execute_one, exists, optional, pools},
    copy_source::PostgresSource,
    error::{LOCKED, corrupt, unsigned},
    log,
    open::{COPY_MARK, has_table, lock_schema, run_migrations},
};
use crate::{
    audit::Entry,
    storage::copy::{Column, CopyStoreError, DIGESTS, ENTRIES, Kind, Log, Meta, Row, Source, TABLES, Table, Target, Value},
};

/// A database that is being written. Its session holds the lock of the schema, so that no process opens it meanwhile.
pub(in crate::storage) struct PostgresTarget {
    db: Option<Object>,
    readers: Pool,
    /// The numbers of the instances, in the order of the logs.
    instances: Vec<i32>,
}

impl PostgresTarget {
    /// Begins a copy in an empty database, or in one with an incomplete copy, which is replaced.
    pub(in crate::storage) async fn open(config: &PostgresConfig) -> Result<Self, CopyStoreError> {
        let Pools { writer, readers, .. } = pools(config).map_err(CopyStoreError::target)?;
        let mut target = Self { db: None, readers, instances: Vec::new() };
        let db = target.db.insert(writer.get().await.map_err(StoreError::from).map_err(CopyStoreError::target)?);
        if let Some(occupied) = prepare(db).await.map_err(CopyStoreError::target)? {
            return Err(CopyStoreError::NotEmpty(occupied));
        }
        Ok(target)
    }

    fn db(&self) -> Result<&Object, StoreError> {
        self.db.as_ref().ok_or(StoreError::Closed)
    }
}

impl Drop for PostgresTarget {
    fn drop(&mut self) {
        self.db.take().map(Object::take);
    }
}

/// Makes the mark and the tables, and begins the transaction. Returns what the database has, if it is not empty.
async fn prepare(db: &mut Object) -> Result<Option<String>, OpenStoreError> {
    db.batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0").await.map_err(StoreError::from)?;
    match lock_schema(db).await {
        Err(StoreError::Failed(why)) if why == LOCKED => return Ok(Some("another process opens the database or copies into it".into())),
        locked => locked?,
    }
    if has_table(db, COPY_MARK).await? {
        run_migrations(db).await?;
        let tables = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        db.batch_execute(&format!("TRUNCATE meta, instances, {tables} RESTART IDENTITY CASCADE")).await.map_err(StoreError::from)?;
    } else {
        for table in TABLES.iter().map(|table| table.name).chain(["meta", "instances"]) {
            if has_table(db, table).await? && exists(db, &format!("SELECT 1 FROM {table} LIMIT 1"), &[]).await? {
                return Ok(Some(format!("the table {table} of the database has rows")));
            }
        }
        db.batch_execute(&format!("CREATE TABLE {COPY_MARK} (only_row boolean PRIMARY KEY)")).await.map_err(StoreError::from)?;
        run_migrations(db).await?;
    }
    db.batch_execute("BEGIN").await.map_err(StoreError::from)?;
    Ok(None)
}

#[async_trait(?Send)]
impl Target for PostgresTarget {
    async fn meta(&mut self, meta: &Meta) -> Result<(), StoreError> {
        let Meta { vault, mode, hash_key, created_at, store_revision, frozen, logs } = meta;
        let sql = "INSERT INTO meta (only_row, vault, mode, hash_key, created_at, store_revision, frozen)
                   VALUES (true, $1, $2, $3, $4, $5, $6)";
        execute_one(self.db()?, sql, &[vault, mode, hash_key, created_at, store_revision, frozen]).await?;
        for Log { instance, removal_position } in logs {
            let sql = "INSERT INTO instances (name, removal_position) VALUES ($1, $2) RETURNING number";
            let row = optional(self.db()?, sql, &[instance, removal_position]).await?;
            self.instances.push(row.ok_or_else(|| corrupt("instances", "the row of the instance is missing"))?.try_get(0)?);
        }
        Ok(())
    }

    async fn rows(&mut self, table: &'static Table, log: usize, rows: Vec<Row>) -> Result<(), StoreError> {
        let instance = *self.instances.get(log).ok_or_else(|| corrupt("instances", "the row of the instance is missing"))?;
        let db = self.db()?;
        if table.name == DIGESTS {
            for row in &rows {
                let (Some(Value::Integer(block)), Some(Value::Bytes(filter))) = (row.first(), row.get(1)) else {
                    return Err(corrupt(DIGESTS, "a row has other columns"));
                };
                log::complete_digest(db, instance, unsigned(*block)?, filter).await?;
            }
            return Ok(());
        }
        let made: &[Column] = if table.name == ENTRIES { ENTRY_COLUMNS } else { &[] };
        let columns: Vec<&Column> = table.columns.iter().chain(made).collect();
        let names = columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        let (log, log_type) = if table.other.is_some() { ("instance, ", Some(Type::INT4)) } else { ("", None) };
        let types: Vec<Type> = log_type.into_iter().chain(columns.iter().map(|column| type_of(column.kind))).collect();
        let sink = db.copy_in(&format!("COPY {} ({log}{names}) FROM STDIN BINARY", table.name)).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        for mut row in rows {
            if table.name == ENTRIES {
                row.extend(made_of_entry(&row)?);
            }
            let number = Value::Integer(instance.into());
            let log = table.other.map(|_| Cell(&number, Kind::Small));
            let cells: Vec<Cell<'_>> =
                log.into_iter().chain(row.iter().zip(&columns).map(|(value, column)| Cell(value, column.kind))).collect();
            writer.as_mut().write_raw(cells.iter().map(|cell| cell as &(dyn ToSql + Sync))).await?;
        }
        writer.finish().await?;
        Ok(())
    }

    async fn read_back(&mut self) -> Result<Box<dyn Source>, OpenStoreError> {
        let db = self.db()?;
        for table in TABLES.iter().filter(|table| table.columns.first().is_some_and(|column| column.name == "position")) {
            // The next row gets the next position.
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{0}', 'position'), max(position)) FROM {0} HAVING max(position) IS NOT NULL",
                table.name
            );
            execute(db, &sql, &[]).await?;
        }
        db.batch_execute("COMMIT").await.map_err(StoreError::from)?;
        let reader = self.readers.get().await.map_err(StoreError::from)?;
        Ok(Box::new(PostgresSource::written(reader, &self.instances).await?))
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        self.db()?.batch_execute(&format!("DROP TABLE {COPY_MARK}")).await?;
        Ok(())
    }
}

/// The columns that are made from the entry.
const ENTRY_COLUMNS: &[Column] = &[
    Column { name: "at", kind: Kind::Integer },
    Column { name: "principal", kind: Kind::Text },
    Column { name: "operation", kind: Kind::Text },
    Column { name: "key_id", kind: Kind::Text },
    Column { name: "node", kind: Kind::Text },
    Column { name: "outcome", kind: Kind::Text },
    Column { name: "key_revision", kind: Kind::Integer },
];

/// The values of [`ENTRY_COLUMNS`]. A removed entry has none of them, and nothing reads its time.
fn made_of_entry(row: &Row) -> Result<Vec<Value>, StoreError> {
    let Some(bytes) = row.get(1).and_then(Value::bytes).filter(|bytes| !bytes.is_empty()) else {
        let empty = || Value::Text(String::new());
        return Ok(vec![Value::Integer(0), empty(), empty(), Value::Null, Value::Null, empty(), Value::Null]);
    };
    let entry = Entry::decode(bytes).map_err(|error| corrupt(ENTRIES, error))?;
    let optional = |text: Option<String>| text.map_or(Value::Null, Value::Text);
    let revision = entry.revision.map(super::error::signed).transpose()?;
    Ok(vec![
        Value::Integer(entry.at.micros()),
        Value::Text(entry.principal),
        Value::Text(entry.operation.as_str().to_owned()),
        optional(entry.key_id.map(|id| id.to_string())),
        optional(entry.node.map(|node| node.to_string())),
        Value::Text(entry.outcome.as_str().to_owned()),
        revision.map_or(Value::Null, Value::Integer),
    ])
}

const fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Integer => Type::INT8,
        Kind::Small => Type::INT4,
        Kind::Flag => Type::BOOL,
        Kind::Text => Type::TEXT,
        Kind::Bytes => Type::BYTEA,
    }
}

/// A value for a column of PostgreSQL.
#[derive(Debug)]
struct Cell<'a>(&'a Value, Kind);

impl ToSql for Cell<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (self.0, self.1) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(number), Kind::Integer) => number.to_sql(ty, out),
            (Value::Integer(number), Kind::Small) => i32::try_from(*number)?.to_sql(ty, out),
            (Value::Integer(number), Kind::Flag) => (*number != 0).to_sql(ty, out),
            (Value::Text(text), Kind::Text) => text.to_sql(ty, out),
            (Value::Bytes(bytes), Kind::Bytes) => bytes.to_sql(ty, out),
            (_, kind) => Err(format!("a value does not belong into a column of {kind:?}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
