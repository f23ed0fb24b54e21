//! Rows from other places: an older copy of the same row, a row of another vault or wrapper key, and a log with a gap.

use canton_keyvault::{crypto::SystemRandom, kms::create_key_file};
use rusqlite::{Connection, params};
use serde_json::json;

use crate::support::vault::{TestVault, problem};

use super::cases::{new_key, set_aside, sign};

/// The columns of a key's row that can be written.
const COLUMNS: &str = "id, node, purpose, spec, usages, class, origin, exportable, name, public_key, predecessor, created_at, lifecycle, \
                       revision, successor, delete_at, row_tag, generation, sealed";

pub(super) async fn code(vault: &TestVault, id: &str) -> String {
    problem(vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &sign()).await).code
}

pub(super) async fn signs(vault: &TestVault, id: &str) {
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &sign()).await.unwrap();
}

fn attach(db: &Connection, other: &std::path::Path) {
    db.execute("ATTACH ?1 AS other", [other.to_str().unwrap()]).unwrap();
}

#[tokio::test]
async fn a_row_from_before_its_disabling_stays_disabled() {
    let mut vault = TestVault::start();
    let id = new_key(&vault).await;
    // The whole old row, tag and wraps included, from a copy of the database.
    vault.kill();
    let old = vault.path("old.db");
    vault.database().execute("VACUUM INTO ?1", [old.to_str().unwrap()]).unwrap();
    vault.serve();
    vault.client("key-admin").post(&format!("/v1/keys/{id}/disable"), &json!({})).await.unwrap();
    assert_eq!(code(&vault, &id).await, "key_disabled");
    vault.kill();
    let db = vault.database();
    attach(&db, &old);
    db.execute_batch(&format!(
        "PRAGMA foreign_keys = OFF; DELETE FROM wraps; DELETE FROM keys;
         INSERT INTO keys ({COLUMNS}) SELECT {COLUMNS} FROM other.keys; INSERT INTO wraps SELECT * FROM other.wraps;"
    ))
    .unwrap();
    let (lifecycle, tag): (String, Option<Vec<u8>>) =
        db.query_row("SELECT lifecycle, row_tag FROM keys", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(lifecycle == "active" && tag.is_some(), "the old row is whole");
    drop(db);
    vault.serve();
    assert_eq!(code(&vault, &id).await, "key_quarantined");
    let key = vault.client("key-admin").get(&format!("/v1/keys/{id}")).await.unwrap();
    assert_eq!((&key["state"], &key["revision"]), (&json!("quarantined"), &json!(3)), "on from where the log stood, not from the row");
    assert_eq!(set_aside(&vault.database(), &id), 1);
}

#[tokio::test]
async fn rows_of_another_vault_do_not_open_not_even_with_their_entries_and_wrapper_key() {
    let (mut vault, mut other) = (TestVault::prepare(|config| config), TestVault::prepare(|config| config.replace("\"dev\"", "\"other\"")));
    // The very same wrapper key: only the vault's id tells them apart.
    std::fs::copy(vault.path("wrapper.key"), other.path("wrapper.key")).unwrap();
    vault.serve();
    other.serve();
    let own = new_key(&vault).await;
    let (bare, with_entries) = (new_key(&other).await, new_key(&other).await);
    vault.kill();
    other.kill();
    let db = vault.database();
    attach(&db, &other.path("keyvault.db"));
    for id in [&bare, &with_entries] {
        db.execute(&format!("INSERT INTO keys ({COLUMNS}) SELECT {COLUMNS} FROM other.keys WHERE id = ?1"), [id]).unwrap();
        let wraps = "INSERT INTO wraps (key, wrapper_key, generation, wrapped, created_at, verified_at, quarantined)
                     SELECT key, (SELECT id FROM main.wrapper_keys), generation, wrapped, created_at, verified_at, 0 FROM other.wraps WHERE key = ?1";
        assert_eq!(db.execute(wraps, [id]).unwrap(), 1);
    }
    let entries = "INSERT INTO audit_entries SELECT (SELECT max(sequence) + 1 FROM main.audit_entries), entry, leaf, NULL, changed_key
                   FROM other.audit_entries WHERE changed_key = ?1";
    assert_eq!(db.execute(entries, [&with_entries]).unwrap(), 1);
    drop(db);
    // The log refuses the entries. Even an operator who accepts them does not make the keys open.
    vault.refuses_to_serve();
    vault.serve_with(&["--accept-state"]);
    for id in [&bare, &with_entries] {
        assert_eq!(code(&vault, id).await, "key_quarantined");
        assert_eq!(set_aside(&vault.database(), id), 1);
        let admin = vault.client("key-admin");
        let refused = problem(admin.post(&format!("/v1/keys/{id}/enable"), &json!({})).await);
        assert!((400..500).contains(&refused.status), "{refused:?}");
        admin.post(&format!("/v1/keys/{id}/disable"), &json!({})).await.unwrap();
        assert_eq!(code(&vault, id).await, "key_disabled");
    }
    signs(&vault, &own).await;
    other.serve();
    signs(&other, &bare).await;
}

/// Points the wrapper key's row at another key file, and gives the code of a use while it does.
async fn redirected(vault: &mut TestVault, id: &str, file: &str) -> String {
    let file = vault.path(file);
    let identity = create_key_file(&file, &SystemRandom::default()).unwrap();
    vault.kill();
    let db = vault.database();
    let was: (String, String) =
        db.query_row("SELECT identity, reference FROM wrapper_keys", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let edit = "UPDATE wrapper_keys SET identity = ?1, reference = ?2";
    db.execute(edit, params![identity, file.to_str().unwrap()]).unwrap();
    vault.serve();
    let (first, second) = (code(vault, id).await, code(vault, id).await);
    assert_eq!(first, second);
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let created = vault.client("participant1").create("/v1/keys", &new).await;
    let admin = vault.client("key-admin");
    assert_eq!(admin.get(&format!("/v1/keys/{id}")).await.unwrap()["state"], "active", "the fault is the wrapper key's");
    assert_eq!(admin.post(&format!("/v1/keys/{id}/disable"), &json!({})).await.unwrap()["state"], "disabled");
    vault.kill();
    assert_eq!(set_aside(&db, id), 0);
    let quarantined: u32 = db.query_row("SELECT count(*) FROM wraps WHERE quarantined", [], |row| row.get(0)).unwrap();
    assert_eq!(quarantined, 0);
    db.execute(edit, params![was.0, was.1]).unwrap();
    vault.serve();
    vault.client("key-admin").post(&format!("/v1/keys/{id}/enable"), &json!({})).await.unwrap();
    signs(vault, id).await;
    format!("{first}, {}", created.map_or_else(|error| error.to_string(), |_| "created".into()))
}

#[tokio::test]
async fn a_wrapper_key_row_that_points_elsewhere_is_refused_and_blames_no_key() {
    let mut vault = TestVault::start();
    let id = new_key(&vault).await;
    let stranger = redirected(&mut vault, &id, "stranger.key").await;
    assert!(stranger.starts_with("wrapper_not_allowed, ") && stranger.contains("allowed") && !stranger.ends_with("created"), "{stranger}");
    // The log says which key the wrapper key is. Under another file of `allowed`, no old key opens and no new one is made.
    let other = redirected(&mut vault, &id, "wrapper-other.key").await;
    assert!(other.starts_with("wrapper_misconfigured, wrapper_misconfigured: "), "{other}");
}

#[tokio::test]
async fn a_log_with_a_hole_or_a_scribble_stops_the_start_until_the_operator_accepts_the_state() {
    let mut vault = TestVault::start();
    let (deleted, scribbled, swapped, copied, untouched) =
        (new_key(&vault).await, new_key(&vault).await, new_key(&vault).await, new_key(&vault).await, new_key(&vault).await);
    vault.kill();
    let db = vault.database();
    let of = "changed_key = ?1";
    assert_eq!(db.execute(&format!("DELETE FROM audit_entries WHERE {of}"), [&deleted]).unwrap(), 1);
    assert_eq!(
        db.execute(&format!("UPDATE audit_entries SET entry = CAST('{{\"revision\":' AS BLOB) WHERE {of}"), [&scribbled]).unwrap(),
        1
    );
    let other = format!("UPDATE audit_entries SET entry = (SELECT entry FROM audit_entries WHERE changed_key = ?2 LIMIT 1) WHERE {of}");
    assert_eq!(db.execute(&other, [&swapped, &copied]).unwrap(), 1);
    drop(db);
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("is missing or was changed") && refused.contains("--accept-state"), "{refused}");

    vault.serve_with(&["--accept-state"]);
    for id in [&deleted, &scribbled, &swapped, &copied] {
        assert_eq!(code(&vault, id).await, "key_quarantined");
    }
    signs(&vault, &untouched).await;
    vault.client("key-admin").get("/v1/keys?limit=1000").await.unwrap();
    // It is in the log, and the next start needs no consent.
    let accepted = "SELECT count(*) FROM audit_log WHERE operation = 'vault.restate-state' AND key_id IS NULL AND reason LIKE ?1";
    let count = |reason: &str| vault.database().query_row(accepted, [reason], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!((count("the operator accepted the state%"), count("the entry with this number was missing%")), (1, 1));
    vault.restart();
    signs(&vault, &untouched).await;
}

#[tokio::test]
async fn a_repaired_wrap_opens_its_key_only_after_enable() {
    let vault = TestVault::start();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let key = vault.client("participant1").create("/v1/keys", &new).await.unwrap();
    let id = key["id"].as_str().unwrap();
    let flip = "UPDATE wraps SET wrapped = CAST(x'ff' || substr(wrapped, 2) AS BLOB) WHERE key = ?1";
    let before: Vec<u8> = vault.database().query_row("SELECT wrapped FROM wraps WHERE key = ?1", [id], |row| row.get(0)).unwrap();
    assert_eq!(vault.database().execute(flip, [id]).unwrap(), 1);
    assert_eq!(code(&vault, id).await, "key_quarantined");
    let enable = format!("/v1/keys/{id}/enable");
    let refused = problem(vault.client("key-admin").post(&enable, &json!({})).await);
    assert_eq!(refused.code, "key_quarantined", "what is broken still is not enabled");

    vault.database().execute("UPDATE wraps SET wrapped = ?2 WHERE key = ?1", (id, before)).unwrap();
    assert_eq!(code(&vault, id).await, "key_quarantined", "mending the row by hand does not bring it back");
    let enabled = vault.client("key-admin").post(&enable, &json!({})).await.unwrap();
    assert_eq!((&enabled["state"], enabled["wraps"][0].get("quarantined")), (&json!("active"), None), "{enabled}");
    signs(&vault, id).await;
}
