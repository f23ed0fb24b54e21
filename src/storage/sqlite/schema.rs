//! Refuses files with tables, indexes, views or triggers that the migrations of this program do not make: a trigger could silence the audit log.

use std::collections::BTreeSet;

use refinery::Runner;
use rusqlite::{Connection, config::DbConfig};

use super::{OpenStoreError, StoreError};

/// Switches off what a file can bring along: views and triggers run nothing, functions of the schema are not trusted, and no statement can
/// change the schema table or the pages directly.
pub(super) fn defend(db: &Connection) -> Result<(), StoreError> {
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        db.set_db_config(option, on)?;
    }
    Ok(())
}

/// The most objects that a file may have. The schema of this program has fewer.
const MAX_OBJECTS: i64 = 64;

/// Checks the table of migrations, which is read before the version and with it the whole structure is known.
///
/// # Errors
/// [`OpenStoreError::ForeignSchema`] if it is a view or has other columns, or if the file has far more objects than this program makes.
pub(super) fn check_history(db: &Connection) -> Result<(), OpenStoreError> {
    let number: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(StoreError::from)?;
    if number > MAX_OBJECTS {
        return Err(OpenStoreError::ForeignSchema(format!("it has {number} tables, indexes, views and triggers")));
    }
    let mut made = Connection::open_in_memory().map_err(StoreError::from)?;
    Runner::new(&[]).run(&mut made).map_err(|error| StoreError::Failed(error.to_string()))?;
    let history = |db| Ok::<_, StoreError>(objects(db)?.into_iter().find(|(_, name, _)| name == HISTORY));
    let (found, made) = (history(db)?, history(&made)?);
    if found.is_some() && found == made {
        Ok(())
    } else {
        Err(OpenStoreError::ForeignSchema(format!("its table {HISTORY} is another one")))
    }
}

/// The table in which the migrations are recorded.
const HISTORY: &str = "refinery_schema_history";

/// Compares the structure of the file with what the migrations up to `version` make in an empty database.
///
/// # Errors
/// [`OpenStoreError::ForeignSchema`] names the first object that differs.
pub(super) fn check(db: &Connection, migrations: &Runner, version: u32) -> Result<(), OpenStoreError> {
    let mut expected = Connection::open_in_memory().map_err(StoreError::from)?;
    let migrations: Vec<_> =
        migrations.get_migrations().iter().filter(|migration| i64::from(migration.version()) <= i64::from(version)).cloned().collect();
    Runner::new(&migrations)
        .set_grouped(true)
        .run(&mut expected)
        .map_err(|error| OpenStoreError::from(StoreError::Failed(error.to_string())))?;
    let (found, expected) = (objects(db)?, objects(&expected)?);
    let differs = |what: &str, object: Option<&Object>| {
        object.map(|(kind, name, _)| OpenStoreError::ForeignSchema(format!("it {what} the {kind} {name}")))
    };
    let added = differs("has", found.difference(&expected).next());
    let missing = differs("lacks", expected.difference(&found).next());
    added.or(missing).map_or(Ok(()), Err)
}

/// Kind, name and definition of an object of the schema.
type Object = (String, String, Option<String>);

fn objects(db: &Connection) -> Result<BTreeSet<Object>, StoreError> {
    let mut sql = db.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
