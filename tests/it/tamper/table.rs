//! Every column that must not be edited, and every byte of sealed keys and wraps.

use rusqlite::{Transaction, params};

use super::cases::{Case, Edit, Taken, run};

/// An `UPDATE keys SET …` of the one row.
fn set(assignment: &'static str, taken: Taken) -> Case {
    Case { name: assignment.into(), edit: sql(format!("UPDATE keys SET {assignment} WHERE id = ?1")), taken, before: &[] }
}

fn sql(text: String) -> Edit {
    Box::new(move |db, id, _| assert_eq!(db.execute(&text, [id]).unwrap(), 1, "{text}"))
}

/// One bit of a blob, at a place that is counted from the end where it is negative.
fn flip(table: &'static str, column: &'static str, place: isize, taken: Taken) -> Case {
    let (key, name) = (if table == "keys" { "id" } else { "key" }, format!("bit {place} of {table}.{column}"));
    let edit = move |db: &Transaction<'_>, id: &str, _: &str| {
        let mut bytes: Vec<u8> =
            db.query_row(&format!("SELECT CAST({column} AS BLOB) FROM {table} WHERE {key} = ?1"), [id], |row| row.get(0)).unwrap();
        let at = usize::try_from(place).unwrap_or_else(|_| bytes.len() - place.unsigned_abs());
        bytes[at] ^= 1;
        let typed = if table == "keys" && !["sealed", "public_key", "row_tag"].contains(&column) { "CAST(?2 AS TEXT)" } else { "?2" };
        db.execute(&format!("UPDATE {table} SET {column} = {typed} WHERE {key} = ?1"), params![id, bytes]).unwrap();
    };
    Case { name, edit: Box::new(edit), taken, before: &[] }
}

/// Two rows' blobs change places.
fn exchange(table: &'static str, column: &'static str) -> Case {
    let key = if table == "keys" { "id" } else { "key" };
    let edit = move |db: &Transaction<'_>, id: &str, partner: &str| {
        let read = |id: &str| -> Vec<u8> {
            db.query_row(&format!("SELECT {column} FROM {table} WHERE {key} = ?1"), [id], |row| row.get(0)).unwrap()
        };
        let (mine, other) = (read(id), read(partner));
        let write = |id: &str, bytes: Vec<u8>| {
            db.execute(&format!("UPDATE {table} SET {column} = ?2 WHERE {key} = ?1"), params![id, bytes]).unwrap()
        };
        write(id, other);
        write(partner, mine);
    };
    Case { name: format!("{table}.{column} exchanged"), edit: Box::new(edit), taken: Taken::ForGood, before: &[] }
}

#[tokio::test]
async fn an_edit_of_a_bound_fact_does_not_open() {
    run(vec![
        set("spec = 'ec-p256'", Taken::ForGood),
        set("purpose = 'encryption'", Taken::ForGood),
        set("usages = 'namespace'", Taken::ForGood),
        set("class = 'permanent'", Taken::ForGood),
        set("origin = 'imported'", Taken::ForGood),
        set("exportable = 1", Taken::ForGood),
        set("public_key = (SELECT public_key FROM keys WHERE position = 1)", Taken::ForGood),
        set("public_key = NULL", Taken::ForGood),
        set("node = 'participant2'", Taken::Unknown),
        flip("keys", "node", 0, Taken::Unknown),
        flip("keys", "purpose", 0, Taken::Unreadable),
        flip("keys", "spec", 0, Taken::Unreadable),
        flip("keys", "class", 0, Taken::Unreadable),
        flip("keys", "origin", 0, Taken::Unreadable),
        set("usages = 'protocom'", Taken::Unreadable),
        flip("keys", "public_key", -1, Taken::ForGood),
    ])
    .await;
}

#[tokio::test]
async fn an_edit_of_what_is_sealed_or_wrapped_does_not_open() {
    // version(1) ‖ salt(32) ‖ commitment(32) ‖ ciphertext(48) ‖ tag(16)
    let sealed = [0, 1, 32, 33, 64, 65, 112, -16, -1].map(|place| flip("keys", "sealed", place, Taken::ForGood));
    // version(1) ‖ nonce(12) ‖ ciphertext(32) ‖ tag(16)
    let wrapped = [0, 1, 13, -16, -1].map(|place| flip("wraps", "wrapped", place, Taken::ForGood));
    let mut cases: Vec<Case> = sealed.into_iter().chain(wrapped).collect();
    cases.extend([
        set("sealed = substr(sealed, 1, 40)", Taken::ForGood),
        set("sealed = x''", Taken::ForGood),
        set("sealed = NULL", Taken::ForGood),
        set("generation = 2", Taken::ForGood),
        exchange("keys", "sealed"),
        exchange("wraps", "wrapped"),
        Case { name: "wraps deleted".into(), edit: sql("DELETE FROM wraps WHERE key = ?1".into()), taken: Taken::ForGood, before: &[] },
    ]);
    run(cases).await;
}

#[tokio::test]
async fn an_edit_of_a_state_gives_nothing() {
    let restored = |db: &Transaction<'_>, id: &str, _: &str| {
        // What the row was before it was disabled: revision 1, active. Its tag of that time is with the old row below.
        db.execute("UPDATE keys SET lifecycle = 'active', revision = 1 WHERE id = ?1", [id]).unwrap();
    };
    let mut cases = vec![
        set("lifecycle = 'disabled'", Taken::UntilEnabled),
        set("lifecycle = 'superseded'", Taken::UntilEnabled),
        set("lifecycle = 'destroyed pending-deletion'", Taken::UntilEnabled),
        set("revision = 2", Taken::UntilEnabled),
        set("revision = 0", Taken::UntilEnabled),
        set("row_tag = NULL", Taken::UntilEnabled),
        set("delete_at = 1", Taken::UntilEnabled),
        set("successor = (SELECT id FROM keys WHERE position = 1)", Taken::UntilEnabled),
        flip("keys", "row_tag", 0, Taken::UntilEnabled),
        set("lifecycle = 'nonsense'", Taken::UntilEnabled),
        set("successor = 'nonsense'", Taken::UntilEnabled),
        set("revision = -1", Taken::UntilEnabled),
    ];
    cases.push(Case { name: "enabled by hand".into(), edit: Box::new(restored), taken: Taken::UntilEnabled, before: &["disable"] });
    run(cases).await;
}
