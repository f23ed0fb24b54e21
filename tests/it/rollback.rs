//! An older or another copy of the database: a start refuses it, and an operator can accept it, which begins a new incarnation of the log.

use std::fs;

use canton_keyvault::{
    audit::{Checkpoint, SignedNote},
    domain::{AuditEvent, Operation, Principal, Timestamp},
    storage::Change,
};
use serde_json::json;

use crate::support::{api::Caller, vault::TestVault};

const MARK: &str = "high-water-mark";

/// A vault whose newest checkpoint is kept outside the database.
fn marked() -> TestVault {
    TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\nhigh_water_mark = \"{MARK}\"\n"))
}

fn mark(vault: &TestVault) -> Checkpoint {
    Checkpoint::parse(SignedNote::parse(&fs::read(vault.path(MARK)).unwrap()).unwrap().text()).unwrap()
}

/// Copies the database of a vault that does not run.
fn copy(vault: &TestVault, from: &str, to: &str) {
    for suffix in ["-wal", "-shm"] {
        assert!(!vault.path(&format!("{from}{suffix}")).exists(), "the vault ended in order");
    }
    fs::copy(vault.path(from), vault.path(to)).unwrap();
}

async fn work(vault: &TestVault, calls: usize) {
    let auditor = Caller::new(vault, "auditor");
    auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    for _ in 0..calls {
        auditor.get("/v1/audit/entries?limit=1").await.success();
    }
}

#[tokio::test]
async fn an_older_copy_starts_only_when_an_operator_accepts_it() {
    let mut vault = marked();
    work(&vault, 1).await;
    assert!(vault.terminate());
    copy(&vault, "keyvault.db", "older.db");
    vault.serve();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    assert!(vault.terminate());
    let signed = mark(&vault);
    copy(&vault, "older.db", "keyvault.db");

    let refused = vault.refuses_to_serve();
    assert!(refused.contains(&format!("a checkpoint was signed over {}", signed.size)), "{refused}");
    assert!(refused.contains("--accept-rollback"), "{refused}");
    assert_eq!(mark(&vault), signed, "a refused start leaves the mark");

    vault.serve_with(&["--accept-rollback"]);
    let auditor = Caller::new(&vault, "auditor");
    assert_eq!(auditor.get(&format!("/v1/keys/{key}")).await.status, 404);
    let accepted = auditor.log("&operation=audit.accept-rollback").await;
    let [entry] = accepted.as_slice() else { panic!("{accepted:?}") };
    assert_eq!((&entry["incarnation"], &entry["outcome"]), (&json!(2), &json!("ok")));
    assert!(entry["reason"].as_str().unwrap().contains("older copy"), "{entry}");
    let begun = mark(&vault);
    assert_eq!(begun.origin, "dev/main/2");
    assert!(begun.size >= entry["sequence"].as_u64().unwrap());

    // Once is enough.
    vault.restart();
    let incarnations = Caller::new(&vault, "auditor").log("&operation=audit.accept-rollback").await.len();
    assert_eq!(incarnations, 1);
}

#[tokio::test]
async fn a_copy_with_another_history_is_refused_however_long_it_is() {
    let mut vault = marked();
    work(&vault, 1).await;
    assert!(vault.terminate());
    copy(&vault, "keyvault.db", "older.db");
    vault.serve();
    work(&vault, 3).await;
    assert!(vault.terminate());
    let outside = fs::read(vault.path(MARK)).unwrap();
    // The other history is made by the vault itself, on a copy, and has more entries.
    copy(&vault, "older.db", "keyvault.db");
    fs::remove_file(vault.path(MARK)).unwrap();
    vault.serve();
    work(&vault, 30).await;
    assert!(vault.terminate());
    fs::write(vault.path(MARK), outside).unwrap();
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("are not those that a checkpoint was signed over"), "{refused}");
}

#[tokio::test]
async fn a_truncated_log_is_refused_without_a_mark() {
    let mut vault = TestVault::start();
    work(&vault, 5).await;
    assert!(vault.terminate());
    let db = vault.database();
    let last: i64 = db.query_row("SELECT max(sequence) FROM audit_entries", [], |row| row.get(0)).unwrap();
    // Uses only: the chain of state changes stays whole.
    let changed: i64 = db
        .query_row("SELECT count(*) FROM audit_entries WHERE sequence > ?1 AND state_revision IS NOT NULL", [last - 2], |row| row.get(0))
        .unwrap();
    assert_eq!(changed, 0);
    db.execute("DELETE FROM audit_entries WHERE sequence > ?1", [last - 2]).unwrap();
    drop(db);
    let refused = vault.refuses_to_serve();
    assert!(refused.contains(&format!("the store has {} audit entries", last - 2)), "{refused}");
}

#[tokio::test]
async fn a_store_cannot_declare_itself_a_new_log() {
    let mut vault = marked();
    work(&vault, 1).await;
    assert!(vault.terminate());
    copy(&vault, "keyvault.db", "older.db");
    vault.serve();
    work(&vault, 3).await;
    assert!(vault.terminate());
    copy(&vault, "older.db", "keyvault.db");
    // Whoever can write to the database can write the entry of an accepted rollback, because entries need no key.
    let event = AuditEvent::new(Timestamp::from_micros(0), Principal::system(), Operation::AcceptRollback, "-".into());
    vault.commit_offline(Change::BeginIncarnation(2), event).await;
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("the newest checkpoint is of dev/main/1"), "{refused}");
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_or_is_of_another_vault_stops_the_start() {
    let mut vault = marked();
    work(&vault, 1).await;
    assert!(vault.terminate());
    let own = fs::read_to_string(vault.path(MARK)).unwrap();
    fs::write(vault.path(MARK), "no note").unwrap();
    assert!(vault.refuses_to_serve().contains("not a signed note"));
    fs::write(vault.path(MARK), own.replacen("dev/main/1", "production/main/1", 1)).unwrap();
    assert!(vault.refuses_to_serve().contains("it is of production/main, and this is dev/main"));
    fs::remove_file(vault.path(MARK)).unwrap();
    fs::create_dir(vault.path(MARK)).unwrap();
    assert!(vault.refuses_to_serve().contains("[audit] high_water_mark cannot be read"));
    fs::remove_dir(vault.path(MARK)).unwrap();
    fs::write(vault.path(MARK), own).unwrap();
    vault.serve();
}
