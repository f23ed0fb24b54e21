//! Each way to change a real log is detected by `audit verify`, which names the first bad entry: in the database, in an export, and against a checkpoint
//! that was seen before.

mod export;
mod log;

use std::fs;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use self::log::{Facts, Log, entry, set_entry};
use crate::support::{api::Caller, vault::TestVault};

/// A change of the database, and the first and the last entry that can be the first bad one, with the code of the reason.
type Case = (&'static str, fn(&Connection, &Facts), fn(&Facts) -> (Option<u64>, Option<u64>), &'static str);

fn whole(_: &Facts) -> (Option<u64>, Option<u64>) {
    (None, None)
}

fn at_use(facts: &Facts) -> (Option<u64>, Option<u64>) {
    (Some(facts.used), Some(facts.used))
}

fn at_change(facts: &Facts) -> (Option<u64>, Option<u64>) {
    (Some(facts.changed), Some(facts.changed))
}

fn between_checkpoints(facts: &Facts) -> (Option<u64>, Option<u64>) {
    (Some(facts.first + 1), Some(facts.second))
}

/// The bytes of an entry with another principal.
fn edited(db: &Connection, sequence: u64) -> Vec<u8> {
    let text = String::from_utf8(entry(db, sequence)).unwrap();
    let changed = text.replacen("/participant1\"", "/participant2\"", 1);
    assert_ne!(text, changed);
    changed.into_bytes()
}

/// Makes room for an entry before the one with this number.
fn shift(db: &Connection, from: u64) {
    db.execute("UPDATE audit_entries SET sequence = -sequence - 1, state_revision = NULL WHERE sequence >= ?1", [from.cast_signed()])
        .unwrap();
    db.execute("UPDATE audit_entries SET sequence = -sequence WHERE sequence < 0", []).unwrap();
}

fn insert(db: &Connection, at: u64, bytes: &[u8]) {
    shift(db, at);
    let sql = "INSERT INTO audit_entries (sequence, entry, leaf) VALUES (?1, ?2, zeroblob(32))";
    db.execute(sql, params![at.cast_signed(), bytes]).unwrap();
    set_entry(db, at, bytes);
}

fn run(db: &Connection, sql: &str) {
    assert!(db.execute(sql, []).unwrap() > 0, "{sql}");
}

const DATABASE: &[Case] = &[
    (
        "an edited entry",
        |db, f| run(db, &format!("UPDATE audit_entries SET entry = CAST(replace(entry, 'ok', 'no') AS BLOB) WHERE sequence = {}", f.used)),
        at_use,
        "wrong_leaf_hash",
    ),
    ("an edited use, with its hash", |db, f| set_entry(db, f.used, &edited(db, f.used)), between_checkpoints, "changed_entries"),
    ("an edited state change, with its hash", |db, f| set_entry(db, f.changed, &edited(db, f.changed)), at_change, "broken_state_chain"),
    ("bytes that are no entry", |db, f| set_entry(db, f.used, b"nothing"), at_use, "not_an_entry"),
    ("a deleted use", |db, f| run(db, &format!("DELETE FROM audit_entries WHERE sequence = {}", f.used)), at_use, "missing_entry"),
    (
        "a deleted state change",
        |db, f| run(db, &format!("DELETE FROM audit_entries WHERE sequence = {}", f.changed)),
        at_change,
        "missing_entry",
    ),
    ("the first entry deleted", |db, _| run(db, "DELETE FROM audit_entries WHERE sequence = 1"), |_| (Some(1), Some(1)), "missing_entry"),
    ("an inserted entry", |db, f| insert(db, f.used + 1, &edited(db, f.used)), at_use, "inserted_entry"),
    ("a duplicate", |db, f| insert(db, f.used + 1, &entry(db, f.used)), at_use, "duplicate_entry"),
    (
        "exchanged entries",
        |db, f| {
            let (one, other) = (f.used, f.used + 1);
            run(db, &format!("UPDATE audit_entries SET sequence = -1 WHERE sequence = {one}"));
            run(db, &format!("UPDATE audit_entries SET sequence = {one} WHERE sequence = {other}"));
            run(db, &format!("UPDATE audit_entries SET sequence = {other} WHERE sequence = -1"));
        },
        at_use,
        "moved_entry",
    ),
    (
        "a truncated log",
        |db, f| run(db, &format!("DELETE FROM audit_entries WHERE sequence >= {}", f.size - 2)),
        |f| (Some(f.size - 2), Some(f.size - 2)),
        "truncated",
    ),
    (
        "exchanged checkpoints",
        |db, f| {
            let note = |size: u64| {
                db.query_row("SELECT note FROM audit_checkpoints WHERE size = ?1", [size.cast_signed()], |row| row.get::<_, Vec<u8>>(0))
                    .unwrap()
            };
            let (first, second) = (note(f.first), note(f.second));
            for (size, note) in [(f.first, second), (f.second, first)] {
                db.execute("UPDATE audit_checkpoints SET note = ?2 WHERE size = ?1", params![size.cast_signed(), note]).unwrap();
            }
        },
        whole,
        "malformed_checkpoint",
    ),
    (
        "an edited checkpoint",
        |db, f| {
            run(
                db,
                &format!(
                    "UPDATE audit_checkpoints SET note = CAST(replace(note, 'state-chain ', 'state-chain 1') AS BLOB) WHERE size = {}",
                    f.second
                ),
            );
        },
        whole,
        "wrong_signature",
    ),
    ("no checkpoints", |db, _| run(db, "DELETE FROM audit_checkpoints"), whole, "no_checkpoint"),
    (
        "a use that is listed as a change of a key",
        |db, f| run(db, &format!("UPDATE audit_entries SET changed_key = 'sym-0' WHERE sequence = {}", f.used)),
        at_use,
        "wrong_index_columns",
    ),
    (
        "a change that is not listed as one of its key",
        |db, f| run(db, &format!("UPDATE audit_entries SET changed_key = NULL WHERE sequence = {}", f.changed)),
        at_change,
        "wrong_index_columns",
    ),
    (
        "a use that is numbered as a state change",
        |db, f| run(db, &format!("UPDATE audit_entries SET state_revision = 999 WHERE sequence = {}", f.used)),
        at_use,
        "wrong_index_columns",
    ),
    (
        "a value left out of the summary",
        |db, _| run(db, "DELETE FROM audit_blocks WHERE block = 0 AND value = 'keys.sign'"),
        |_| (Some(1), Some(1023)),
        "wrong_summary",
    ),
    (
        "a key left out of the summary",
        |db, _| run(db, "DELETE FROM audit_key_parts WHERE part = 0"),
        |_| (Some(1), Some(1023)),
        "wrong_summary",
    ),
    (
        "an edited hash of the tree",
        |db, _| run(db, "UPDATE audit_tree SET hash = zeroblob(32) WHERE level = 1 AND position = 0"),
        |f| (Some(f.second + 1), Some(256)),
        "wrong_tree_hash",
    ),
    ("an edited revision of the store", |db, _| run(db, "UPDATE meta SET store_revision = store_revision + 1"), whole, "wrong_state"),
    ("another vault", |db, _| run(db, "UPDATE meta SET vault = 'other'"), whole, "other_log"),
];

/// What `audit verify` says, and its exit code.
fn verify(vault: &TestVault, arguments: &[&str]) -> (i32, Value) {
    let output = vault.command(&[&["audit", "verify", "--output", "json"], arguments].concat()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let result = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), result)
}

fn assert_found(what: &str, (code, result): &(i32, Value), (from, to): (Option<u64>, Option<u64>), reason: &str) {
    assert_eq!((*code, &result["verified"], result["code"].as_str()), (4, &json!(false), Some(reason)), "{what}: {result}");
    assert_eq!(result["first_bad_entry"], json!({ "from": from, "to": to }), "{what}: {result}");
}

#[tokio::test]
async fn each_change_of_the_database_is_found_at_its_first_bad_entry() {
    let Log { vault, facts } = Log::make().await;
    let (code, result) = verify(&vault, &["--database", "keyvault.db", "--verifier-key", "keys"]);
    assert_eq!((code, &result["verified"], &result["covered"]), (0, &json!(true), &json!(facts.size)), "{result}");
    assert_eq!((&result["log"], &result["checkpoints"], &result["complete"]), (&json!("dev/main"), &json!(4), &json!(true)), "{result}");
    for (what, change, place, reason) in DATABASE {
        fs::copy(vault.path("keyvault.db"), vault.path("changed.db")).unwrap();
        let db = Connection::open(vault.path("changed.db")).unwrap();
        change(&db, &facts);
        drop(db);
        let found = verify(&vault, &["--database", "changed.db", "--verifier-key", "keys"]);
        assert_found(what, &found, place(&facts), reason);
        // The file is not changed by the verification, and no other file appears.
        assert!(!vault.path("changed.db.lock").exists());
    }
    for (what, change, place, reason) in export::CASES {
        let mut lines = Facts::export(&vault);
        change(&mut lines, &facts);
        fs::write(vault.path("changed.ndjson"), lines.concat()).unwrap();
        let found = verify(&vault, &["changed.ndjson", "--verifier-key", "keys"]);
        assert_found(what, &found, place(&facts), reason);
    }
}

#[tokio::test]
async fn exports_that_the_command_line_wrote_are_verified() {
    let Log { mut vault, facts } = Log::make().await;
    let (code, result) = verify(&vault, &["export.ndjson", "--verifier-key", "keys"]);
    let exported = result["entries"].as_u64().unwrap();
    assert_eq!((code, &result["checkpoints"], &result["complete"]), (0, &json!(3), &json!(true)), "{result}");
    assert!(exported > facts.second && exported < facts.size, "{result}");

    // Resumed after an interruption in the middle of a line, and after its end.
    let whole = fs::read(vault.path("export.ndjson")).unwrap();
    fs::write(vault.path("cut.ndjson"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(verify(&vault, &["cut.ndjson", "--verifier-key", "keys"]).0, 4);
    vault.serve();
    for (file, arguments) in [
        ("cut.ndjson", ["audit", "export", "--resume", "--out", "cut.ndjson"].as_slice()),
        ("export.ndjson", &["audit", "export", "--resume", "--out", "export.ndjson"]),
        ("some.ndjson", &["audit", "export", "--operation", "keys.sign", "--out", "some.ndjson"]),
        ("later.ndjson", &["audit", "export", "--after", "100", "--out", "later.ndjson"]),
    ] {
        let output = log::auditor_command(&vault, arguments).output().unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        let (code, result) = verify(&vault, &[file, "--verifier-key", "keys"]);
        assert_eq!(code, 0, "{file}: {result}");
        let expected = match file {
            "some.ndjson" => (json!(false), json!(facts.used), json!(2 + 16 * 64)),
            "later.ndjson" => (json!(true), json!(101), result["entries"].clone()),
            _ => (json!(true), json!(1), result["entries"].clone()),
        };
        assert_eq!((result["complete"].clone(), result["first"].clone(), result["entries"].clone()), expected, "{file}: {result}");
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_is_found_and_a_rotated_one_is_followed() {
    let Log { mut vault, .. } = Log::make().await;
    let other = Log::make().await;
    fs::copy(other.vault.path("keys"), vault.path("other-keys")).unwrap();
    let found = verify(&vault, &["--database", "keyvault.db", "--verifier-key", "other-keys"]);
    assert_found("another key", &found, (None, None), "unknown_key");

    vault.serve();
    let [auditor, admin] = ["auditor", "wrapper-admin"].map(|who| Caller::new(&vault, who));
    let new = admin.post("/v1/audit/verifier-keys", &json!({})).await.success()["verifier_key"].as_str().unwrap().to_owned();
    auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    vault.terminate();
    let (code, result) = verify(&vault, &["--database", "keyvault.db", "--verifier-key", "keys"]);
    assert_eq!((code, &result["verifier_key"]), (0, &json!(new)), "{result}");
    // Without the entry of the rotation, the new key is an unknown one.
    let db = Connection::open(vault.path("keyvault.db")).unwrap();
    let rotated: i64 = db
        .query_row("SELECT min(sequence) FROM audit_entries WHERE entry ->> '$.operation' = 'audit.rotate-checkpoint-key'", [], |row| {
            row.get(0)
        })
        .unwrap();
    let rotated = rotated.cast_unsigned();
    let text = String::from_utf8(entry(&db, rotated)).unwrap();
    let (before, _) = text.split_once(",\"note\":").unwrap();
    set_entry(&db, rotated, format!("{before}}}").as_bytes());
    drop(db);
    let found = verify(&vault, &["--database", "keyvault.db", "--verifier-key", "keys"]);
    assert_eq!((found.0, &found.1["first_bad_entry"]["from"]), (4, &json!(rotated)), "{}", found.1);
}

#[tokio::test]
async fn a_rollback_and_a_fork_are_found_by_a_checkpoint_that_was_seen_before() {
    let Log { mut vault, facts } = Log::make().await;
    fs::copy(vault.path("keyvault.db"), vault.path("older.db")).unwrap();
    vault.serve();
    let auditor = Caller::new(&vault, "auditor");
    auditor.get("/v1/audit/entries?limit=1").await.success();
    let seen = auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    fs::write(vault.path("seen"), seen["note"].as_str().unwrap()).unwrap();
    let size = seen["size"].as_u64().unwrap();
    vault.terminate();
    let arguments = |database| ["--database", database, "--verifier-key", "keys", "--checkpoint", "seen"];
    assert_eq!(verify(&vault, &arguments("keyvault.db")).0, 0);
    // The older copy alone is a sound log.
    assert_eq!(verify(&vault, &arguments("older.db")[..4]).0, 0);
    assert_found("rolled back", &verify(&vault, &arguments("older.db")), (Some(facts.size + 1), Some(facts.size + 1)), "rolled_back");

    // Another history after the same beginning, signed by the same key.
    fs::copy(vault.path("older.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    let auditor = Caller::new(&vault, "auditor");
    while auditor.post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap() < size {}
    vault.terminate();
    let (code, result) = verify(&vault, &arguments("keyvault.db"));
    assert_eq!((code, &result["code"]), (4, &json!("forked")), "{result}");
    let first = result["first_bad_entry"]["from"].as_u64().unwrap();
    assert!(first > facts.size && first <= size, "{result}");
}

#[tokio::test]
async fn a_wrong_command_line_is_no_failed_verification() {
    let Log { vault, .. } = Log::make().await;
    let code = |arguments: &[&str]| vault.command(&[&["audit", "verify"], arguments].concat()).output().unwrap().status.code();
    assert_eq!(code(&["missing", "--verifier-key", "keys"]), Some(1));
    assert_eq!(code(&["keys", "--verifier-key", "missing"]), Some(2));
    assert_eq!(code(&["--database", "keys", "--verifier-key", "keys"]), Some(1));
    assert_eq!(code(&["--database", "keyvault.db", "--verifier-key", "keys", "--checkpoint", "keys"]), Some(2));
    assert_eq!(code(&["keyvault.toml", "--verifier-key", "keys"]), Some(4), "it is no export");
    let text = vault.command(&["audit", "verify", "--database", "keyvault.db", "--verifier-key", "keys"]).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().starts_with("verified: "));
}
