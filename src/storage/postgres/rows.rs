//! Converts between rows and domain types. Only this file knows the columns of keys, wraps and wrapper keys.

use std::str::FromStr;

use tokio_postgres::{Row, types::FromSql};

use super::{
    StoreError,
    connect::{Db, execute, execute_one, optional, rows},
    error::{corrupt, signed, unsigned},
};
use crate::domain::{KeyAttributes, KeyId, KeyName, KeyRecord, Lifecycle, SealedKey, Timestamp, Wrap, WrapperKey};

/// The columns that [`key`] reads.
pub(super) const KEY_COLUMNS: &str = "position, id, node, purpose, spec, usages, class, origin, exportable, name, public_key, predecessor, \
                                      created_at, generation, revision, lifecycle, successor, delete_at, row_tag, sealed";

/// The columns that [`wrapper_key`] reads.
pub(super) const WRAPPER_KEY_COLUMNS: &str = "id, provider, identity, reference, regions, state, canary, created_at";

/// A key, from [`KEY_COLUMNS`], and its wraps.
///
/// # Errors
/// [`StoreError::Corrupt`] names the key and the first column that cannot be read.
pub(super) async fn key(db: &Db, row: &Row) -> Result<KeyRecord, StoreError> {
    let row = Columns::of("keys", row);
    let lifecycle = row.text("lifecycle")?;
    assemble(db, &row, lifecycle).await
}

/// As [`key`], but a key whose lifecycle cannot be read is shown as quarantined.
pub(super) async fn key_for_list(db: &Db, row: &Row) -> Result<KeyRecord, StoreError> {
    let row = Columns::of("keys", row);
    let lifecycle = row.text("lifecycle").unwrap_or(Lifecycle::QUARANTINED);
    assemble(db, &row, lifecycle).await
}

async fn assemble(db: &Db, row: &Columns<'_>, lifecycle: Lifecycle) -> Result<KeyRecord, StoreError> {
    let attributes = KeyAttributes {
        id: row.text("id")?,
        node: row.text("node")?,
        purpose: row.text("purpose")?,
        spec: row.text("spec")?,
        usages: row.text("usages")?,
        class: row.text("class")?,
        origin: row.text("origin")?,
        exportable: row.value("exportable")?,
    };
    Ok(KeyRecord {
        wraps: wraps(db, attributes.id).await?,
        attributes,
        name: row.optional_text("name")?,
        public_key: row.value("public_key")?,
        created_at: row.time("created_at")?,
        generation: row.number("generation")?,
        revision: row.number("revision")?,
        lifecycle,
        successor: row.optional_text("successor")?,
        predecessor: row.optional_text("predecessor")?,
        delete_at: row.value::<Option<i64>>("delete_at")?.map(Timestamp::from_micros),
        row_tag: row.hash("row_tag")?,
        sealed: row.value::<Option<Vec<u8>>>("sealed")?.map(SealedKey::from_stored),
    })
}

async fn wraps(db: &Db, key: KeyId) -> Result<Vec<Wrap>, StoreError> {
    let id = key.to_string();
    let sql = "SELECT wrapper_key, generation, wrapped, created_at, verified_at, quarantined FROM wraps WHERE key = $1 ORDER BY position";
    let found = rows(db, sql, &[&id]).await?;
    let wrap = |row| {
        let row = Columns { table: "wraps", row, id: Some(id.clone()) };
        Ok(Wrap {
            wrapper_key: row.text("wrapper_key")?,
            generation: row.number("generation")?,
            wrapped: row.value("wrapped")?,
            created_at: row.time("created_at")?,
            verified_at: row.value::<Option<i64>>("verified_at")?.map(Timestamp::from_micros),
            quarantined: row.value("quarantined")?,
        })
    };
    found.iter().map(wrap).collect()
}

/// A wrapper key, from [`WRAPPER_KEY_COLUMNS`].
pub(super) fn wrapper_key(row: &Row) -> Result<WrapperKey, StoreError> {
    let row = Columns::of("wrapper_keys", row);
    let regions: String = row.value("regions")?;
    Ok(WrapperKey {
        id: row.text("id")?,
        // The verified state has it.
        name: None,
        provider: row.text("provider")?,
        identity: row.value("identity")?,
        reference: row.value("reference")?,
        regions: serde_json::from_str(&regions).map_err(|error| row.corrupt("regions", &error))?,
        state: row.text("state")?,
        canary: row.value("canary")?,
        created_at: row.time("created_at")?,
    })
}

/// Inserts a new key with its wraps.
pub(super) async fn insert_key(db: &Db, record: &KeyRecord) -> Result<(), StoreError> {
    // The record is destructured, so that a new field cannot be forgotten here.
    let KeyRecord {
        attributes,
        name,
        public_key,
        created_at,
        generation,
        revision,
        lifecycle,
        successor,
        predecessor,
        delete_at,
        row_tag,
        sealed,
        wraps,
    } = record;
    let KeyAttributes { id, node, purpose, spec, usages, class, origin, exportable } = attributes;
    let id = id.to_string();
    let sql = "INSERT INTO keys (id, node, purpose, spec, usages, class, origin, exportable, name, public_key, predecessor, created_at,
               generation, revision, lifecycle, successor, delete_at, row_tag, sealed, sealed_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $12)";
    execute_one(
        db,
        sql,
        &[
            &id,
            &node.as_str(),
            &purpose.as_str(),
            &spec.as_str(),
            &usages.to_string(),
            &class.as_str(),
            &origin.as_str(),
            exportable,
            &name.as_ref().map(KeyName::as_str),
            public_key,
            &predecessor.map(|id| id.to_string()),
            &created_at.micros(),
            &i64::from(*generation),
            &signed(*revision)?,
            &lifecycle.to_string(),
            &successor.map(|id| id.to_string()),
            &delete_at.map(Timestamp::micros),
            &row_tag.as_ref().map(<[u8; 32]>::as_slice),
            &sealed.as_ref().map(SealedKey::as_bytes),
        ],
    )
    .await?;
    for wrap in wraps {
        insert_wrap(db, &id, wrap).await?;
    }
    Ok(())
}

/// Deletes the row of a destroyed key, so that a key with this id can be inserted again.
pub(super) async fn delete_key(db: &Db, id: KeyId) -> Result<(), StoreError> {
    // A destroyed key has no wraps. An edited row may have some.
    execute(db, "DELETE FROM wraps WHERE key = $1", &[&id.to_string()]).await?;
    execute_one(db, "DELETE FROM keys WHERE id = $1", &[&id.to_string()]).await
}

pub(super) async fn insert_wrap(db: &Db, key: &str, wrap: &Wrap) -> Result<(), StoreError> {
    let Wrap { wrapper_key, generation, wrapped, created_at, verified_at, quarantined } = wrap;
    let sql = "INSERT INTO wraps (key, wrapper_key, generation, wrapped, created_at, verified_at, quarantined)
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (wrapper_key, verified_at) = (wrapper_key.to_string(), verified_at.map(Timestamp::micros));
    let generation = i64::from(*generation);
    execute_one(db, sql, &[&key, &wrapper_key, &generation, wrapped, &created_at.micros(), &verified_at, quarantined]).await
}

/// Inserts a new wrapper key.
pub(super) async fn insert_wrapper_key(db: &Db, wrapper_key: &WrapperKey) -> Result<(), StoreError> {
    let WrapperKey { id, name: _, provider, identity, reference, regions, state, canary, created_at } = wrapper_key;
    let regions = self::regions(regions)?;
    let sql = "INSERT INTO wrapper_keys (id, provider, identity, reference, regions, state, canary, created_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let (id, created_at) = (id.to_string(), created_at.micros());
    execute_one(db, sql, &[&id, &provider.as_str(), identity, reference, &regions, &state.as_str(), canary, &created_at]).await
}

/// The stored form of regions.
pub(super) fn regions(regions: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(regions).map_err(|error| StoreError::Failed(error.to_string()))
}

/// The revision of the row of a key. `None` if the key does not exist.
pub(super) async fn revision_of(db: &Db, key: KeyId) -> Result<Option<u64>, StoreError> {
    let row = optional(db, "SELECT revision FROM keys WHERE id = $1", &[&key.to_string()]).await?;
    row.map(|row| unsigned(row.try_get(0)?)).transpose()
}

/// A row whose columns are read by name. Its errors name the row and the column.
pub(super) struct Columns<'a> {
    table: &'static str,
    row: &'a Row,
    id: Option<String>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(table: &'static str, row: &'a Row) -> Self {
        Self { table, row, id: row.try_get("id").ok() }
    }

    pub(super) fn value<T: FromSql<'a>>(&self, column: &str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(column, &error))
    }

    pub(super) fn number<T: TryFrom<i64, Error: std::fmt::Display>>(&self, column: &str) -> Result<T, StoreError> {
        T::try_from(self.value::<i64>(column)?).map_err(|error| self.corrupt(column, &error))
    }

    fn hash(&self, column: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let bytes: Option<&[u8]> = self.value(column)?;
        bytes.map(|bytes| bytes.try_into().map_err(|error| self.corrupt(column, &error))).transpose()
    }

    pub(super) fn text<T: FromStr<Err: std::fmt::Display>>(&self, column: &str) -> Result<T, StoreError> {
        self.value::<&str>(column)?.parse().map_err(|error| self.corrupt(column, &error))
    }

    pub(super) fn optional_text<T: FromStr<Err: std::fmt::Display>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.value(column)?;
        text.map(|text| text.parse().map_err(|error| self.corrupt(column, &error))).transpose()
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.value(column).map(Timestamp::from_micros)
    }

    pub(super) fn corrupt(&self, column: &str, error: &dyn std::fmt::Display) -> StoreError {
        let id = self.id.as_deref().unwrap_or("a row without a readable id");
        corrupt(self.table, format_args!("{id}: {column}: {error}"))
    }
}
