//! Refuses a database whose tables are not those that the migrations of this program make: a trigger could silence the audit log, and a missing index lets
//! two things exist of which the vault has one. Writes nothing.

use std::collections::BTreeMap;

use super::{
    OpenStoreError, StoreError,
    connect::{Db, rows},
    open::known_schema,
};

/// The query for the parts of tables.
const QUERY: &str = include_str!("structure.sql");

/// What the query answers about a new database: one part a line, with its table, its kind, its name and its definition. A test makes it.
const MADE: &str = include_str!("structure.txt");

/// The parts of the tables, each with its definition.
type Parts = BTreeMap<Part, String>;

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    table: String,
    kind: String,
    name: String,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, kind, name } = self;
        if kind == "table" { write!(f, "the table {table}") } else { write!(f, "the {kind} {name} of the table {table}") }
    }
}

/// Compares the tables of the database with those that this program makes. Other tables are not looked at. Of a newer schema, which this program can work
/// with, only the columns that it knows are compared, and that nothing runs at a change.
///
/// # Errors
/// [`OpenStoreError::ForeignSchema`] names the first part that is missing, changed or added.
pub(super) async fn check(db: &Db) -> Result<(), OpenStoreError> {
    let (found, known) = known_schema(db).await?;
    if found < known {
        // The migration at the next start makes the rest.
        return Ok(());
    }
    let made = made();
    let tables: Vec<&str> = made.keys().filter(|part| part.kind == "table").map(|part| part.table.as_str()).collect();
    match difference(&made, &read(db, &tables).await?, found > known) {
        Some(difference) => Err(OpenStoreError::ForeignSchema(difference)),
        None => Ok(()),
    }
}

/// The first difference, as the end of a sentence about the database.
fn difference(made: &Parts, found: &Parts, is_newer: bool) -> Option<String> {
    // A newer version may add what is checked, and how it is found.
    let may_differ = |part: &Part| is_newer && matches!(part.kind.as_str(), "index" | "constraint");
    // A table that is missing is named before its columns.
    let tables = made.iter().filter(|(part, _)| part.kind == "table");
    for (part, definition) in tables.chain(made).filter(|(part, _)| !may_differ(part)) {
        match found.get(part) {
            None => return Some(format!("it lacks {part}")),
            Some(other) if other != definition => return Some(format!("{part} is `{other}` instead of `{definition}`")),
            Some(_) => {}
        }
    }
    let may_be_added = |part: &Part| is_newer && matches!(part.kind.as_str(), "column" | "index" | "constraint");
    let added = found.iter().find(|(part, _)| !made.contains_key(part) && !may_be_added(part));
    added.map(|(part, definition)| format!("it has {part}, which is `{definition}`"))
}

fn made() -> Parts {
    let part = |line: &str| {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let (table, kind, name) = (words.next()?, words.next()?, words.next()?);
        Some((Part { table, kind, name }, words.next()?))
    };
    MADE.lines().filter_map(part).collect()
}

async fn read(db: &Db, tables: &[&str]) -> Result<Parts, StoreError> {
    let part = |row: &tokio_postgres::Row| {
        let part = Part { table: row.try_get("table")?, kind: row.try_get("kind")?, name: row.try_get("name")? };
        Ok((part, row.try_get("definition")?))
    };
    rows(db, QUERY, &[&tables]).await?.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(table: &str, kind: &str, name: &str) -> Part {
        Part { table: table.into(), kind: kind.into(), name: name.into() }
    }

    #[test]
    fn every_line_of_the_file_is_a_part() {
        let made = made();
        assert_eq!(made.len(), MADE.lines().count());
        assert_eq!(made[&part("keys", "column", "node")], "text NOT NULL");
    }

    #[test]
    fn a_newer_schema_may_have_more_but_nothing_that_runs() {
        let made = made();
        assert_eq!(difference(&made, &made, false), None);
        for (kind, newer) in
            [("column", true), ("index", true), ("constraint", true), ("trigger", false), ("rule", false), ("policy", false)]
        {
            let mut found = made.clone();
            found.insert(part("keys", kind, "more"), "more".into());
            let said = difference(&made, &found, false).unwrap();
            assert_eq!(said, format!("it has the {kind} more of the table keys, which is `more`"));
            assert_eq!(difference(&made, &found, true).is_none(), newer, "{kind}");
        }
        let mut found = made.clone();
        found.insert(part("keys", "column", "node"), "integer NOT NULL".into());
        for is_newer in [false, true] {
            let said = difference(&made, &found, is_newer).unwrap();
            assert_eq!(said, "the column node of the table keys is `integer NOT NULL` instead of `text NOT NULL`");
        }
    }
}
