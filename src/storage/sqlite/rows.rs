//! Converts between rows and domain types. Only this file knows the columns of keys, wraps and wrapper keys.

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, params, types::FromSql};

use super::{
    StoreError,
    apply::{execute, execute_one},
    error::{corrupt, signed},
};
use crate::domain::{KeyAttributes, KeyId, KeyName, KeyRecord, Lifecycle, SealedKey, Timestamp, Wrap, WrapperKey};

/// The columns that [`key`] reads, in its order.
pub(super) const KEY_COLUMNS: &str = "position, id, node, purpose, spec, usages, class, origin, exportable, name, public_key, predecessor, \
                                      created_at, generation, revision, lifecycle, successor, delete_at, row_tag, sealed";

/// The columns that [`wrapper_key`] reads, in its order.
pub(super) const WRAPPER_KEY_COLUMNS: &str = "id, provider, identity, reference, regions, state, canary, created_at";

/// A key, from [`KEY_COLUMNS`], and its wraps.
///
/// # Errors
/// [`StoreError::Corrupt`] names the key and the first column that cannot be read.
pub(super) fn key(db: &Connection, row: &Row<'_>) -> Result<KeyRecord, StoreError> {
    let row = Columns { table: "keys", row, id: row.get("id").ok() };
    let lifecycle = row.text("lifecycle")?;
    assemble(db, &row, lifecycle)
}

/// As [`key`], but a key whose lifecycle cannot be read is shown as quarantined.
pub(super) fn key_for_list(db: &Connection, row: &Row<'_>) -> Result<KeyRecord, StoreError> {
    let row = Columns { table: "keys", row, id: row.get("id").ok() };
    let lifecycle = row.text("lifecycle").unwrap_or(Lifecycle::QUARANTINED);
    assemble(db, &row, lifecycle)
}

fn assemble(db: &Connection, row: &Columns<'_>, lifecycle: Lifecycle) -> Result<KeyRecord, StoreError> {
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
        wraps: wraps(db, attributes.id)?,
        attributes,
        name: row.optional_text("name")?,
        public_key: row.value("public_key")?,
        created_at: row.time("created_at")?,
        generation: row.value("generation")?,
        revision: u64::try_from(row.value::<i64>("revision")?).map_err(|error| row.corrupt("revision", &error))?,
        lifecycle,
        successor: row.optional_text("successor")?,
        predecessor: row.optional_text("predecessor")?,
        delete_at: row.value::<Option<i64>>("delete_at")?.map(Timestamp::from_micros),
        row_tag: row.value("row_tag")?,
        sealed: row.value::<Option<Vec<u8>>>("sealed")?.map(SealedKey::from_stored),
    })
}

fn wraps(db: &Connection, key: KeyId) -> Result<Vec<Wrap>, StoreError> {
    let id = key.to_string();
    let sql = "SELECT wrapper_key, generation, wrapped, created_at, verified_at, quarantined FROM wraps WHERE key = ?1 ORDER BY position";
    let mut sql = db.prepare_cached(sql)?;
    let mut rows = sql.query([&id])?;
    let mut wraps = Vec::new();
    while let Some(row) = rows.next()? {
        let row = Columns { table: "wraps", row, id: Some(id.clone()) };
        wraps.push(Wrap {
            wrapper_key: row.text("wrapper_key")?,
            generation: row.value("generation")?,
            wrapped: row.value("wrapped")?,
            created_at: row.time("created_at")?,
            verified_at: row.value::<Option<i64>>("verified_at")?.map(Timestamp::from_micros),
            quarantined: row.value("quarantined")?,
        });
    }
    Ok(wraps)
}

/// A wrapper key, from [`WRAPPER_KEY_COLUMNS`].
pub(super) fn wrapper_key(row: &Row<'_>) -> Result<WrapperKey, StoreError> {
    let row = Columns { table: "wrapper_keys", row, id: row.get("id").ok() };
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
pub(super) fn insert_key(db: &Connection, record: &KeyRecord) -> Result<(), StoreError> {
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
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?12)";
    execute_one(
        db,
        sql,
        params![
            id,
            node.as_str(),
            purpose.as_str(),
            spec.as_str(),
            usages.to_string(),
            class.as_str(),
            origin.as_str(),
            exportable,
            name.as_ref().map(KeyName::as_str),
            public_key,
            predecessor.map(|id| id.to_string()),
            created_at.micros(),
            generation,
            signed(*revision)?,
            lifecycle.to_string(),
            successor.map(|id| id.to_string()),
            delete_at.map(Timestamp::micros),
            row_tag,
            sealed.as_ref().map(SealedKey::as_bytes)
        ],
    )?;
    wraps.iter().try_for_each(|wrap| insert_wrap(db, &id, wrap))
}

/// Deletes the row of a destroyed key, so that a key with this id can be inserted again.
pub(super) fn delete_key(db: &Connection, id: KeyId) -> Result<(), StoreError> {
    // A destroyed key has no wraps. An edited row may have some.
    execute(db, "DELETE FROM wraps WHERE key = ?1", [id.to_string()])?;
    execute_one(db, "DELETE FROM keys WHERE id = ?1", [id.to_string()])
}

pub(super) fn insert_wrap(db: &Connection, key: &str, wrap: &Wrap) -> Result<(), StoreError> {
    let Wrap { wrapper_key, generation, wrapped, created_at, verified_at, quarantined } = wrap;
    let sql = "INSERT INTO wraps (key, wrapper_key, generation, wrapped, created_at, verified_at, quarantined)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    execute_one(
        db,
        sql,
        params![key, wrapper_key.to_string(), generation, wrapped, created_at.micros(), verified_at.map(Timestamp::micros), quarantined],
    )
}

/// Inserts a new wrapper key.
pub(super) fn insert_wrapper_key(db: &Connection, wrapper_key: &WrapperKey) -> Result<(), StoreError> {
    let WrapperKey { id, name: _, provider, identity, reference, regions, state, canary, created_at } = wrapper_key;
    let regions = self::regions(regions)?;
    let sql = "INSERT INTO wrapper_keys (id, provider, identity, reference, regions, state, canary, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    execute_one(
        db,
        sql,
        params![id.to_string(), provider.as_str(), identity, reference, regions, state.as_str(), canary, created_at.micros()],
    )
}

/// The stored form of regions.
pub(super) fn regions(regions: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(regions).map_err(|error| StoreError::Failed(error.to_string()))
}

/// The revision of the row of a key. `None` if the key does not exist.
pub(super) fn revision_of(db: &Connection, key: KeyId) -> Result<Option<u64>, StoreError> {
    let mut sql = db.prepare_cached("SELECT revision FROM keys WHERE id = ?1")?;
    sql.query_row([key.to_string()], |row| row.get(0)).optional()?.map(unsigned).transpose()
}

/// A count or revision. It was not negative when it was written.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Failed(format!("the store holds {number} where a count belongs")))
}

/// A row whose columns are read by name. Its errors name the row and the column.
struct Columns<'a> {
    table: &'static str,
    row: &'a Row<'a>,
    id: Option<String>,
}

impl Columns<'_> {
    fn value<T: FromSql>(&self, column: &str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|error| self.corrupt(column, &error))
    }

    fn text<T: FromStr<Err: std::fmt::Display>>(&self, column: &str) -> Result<T, StoreError> {
        self.value::<String>(column)?.parse().map_err(|error| self.corrupt(column, &error))
    }

    fn optional_text<T: FromStr<Err: std::fmt::Display>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.value(column)?;
        text.map(|text| text.parse().map_err(|error| self.corrupt(column, &error))).transpose()
    }

    fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.value(column).map(Timestamp::from_micros)
    }

    fn corrupt(&self, column: &str, error: &dyn std::fmt::Display) -> StoreError {
        let id = self.id.as_deref().unwrap_or("a row without a readable id");
        corrupt(self.table, format_args!("{id}: {column}: {error}"))
    }
}
