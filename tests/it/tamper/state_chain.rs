//! An attacker with write access to the database and without the KMS: what they write into columns that no hash covers changes no decision.

use serde_json::json;

use super::{
    cases::new_key,
    foreign_rows::{code, signs},
};
use crate::support::{
    api::Caller,
    jobs::{active, new_wrapper_key, rotated, wrapper_key, wraps},
    vault::{TestVault, until},
};

/// The columns of a row that a transition changes.
const MUTABLE: &str = "lifecycle, revision, successor, delete_at, row_tag";

#[tokio::test(flavor = "multi_thread")]
async fn an_old_row_and_a_hidden_entry_do_not_enable_a_disabled_key() {
    let mut vault = TestVault::start();
    let id = new_key(&vault).await;
    signs(&vault, &id).await;
    let old = format!("CREATE TEMP TABLE old AS SELECT id, {MUTABLE} FROM keys WHERE id = '{id}'");
    let db = vault.database();
    db.execute_batch(&old).unwrap();
    vault.client("key-admin").post(&format!("/v1/keys/{id}/disable"), &json!({})).await.unwrap();
    vault.kill();
    let restore = format!("UPDATE keys SET ({MUTABLE}) = (SELECT {MUTABLE} FROM old) WHERE id = '{id}'");
    let hide = "UPDATE audit_entries SET changed_key = NULL WHERE changed_key = ?1 AND entry ->> '$.operation' = 'keys.disable'";
    assert_eq!(db.execute(&restore, []).unwrap(), 1);
    assert_eq!(db.execute(hide, [&id]).unwrap(), 1);
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("was changed"), "{refused}");
    // With the log as it was, the old row alone does not enable the key.
    db.execute(
        "UPDATE audit_entries SET changed_key = ?1 WHERE entry ->> '$.key_id' = ?1 AND entry ->> '$.operation' = 'keys.disable'",
        [&id],
    )
    .unwrap();
    vault.serve();
    assert_ne!(code(&vault, &id).await, "signed");
    drop(db);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_wrapper_key_set_to_standby_receives_no_data_key() {
    let mut vault = TestVault::start();
    let (first, key) = (active(&vault).await, new_key(&vault).await);
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    let admin = Caller::new(&vault, "wrapper-admin");
    until("it can be retired", || async { admin.send("POST", &format!("/v1/wrapper-keys/{first}/retire"), &[], "").await.status == 200 })
        .await;
    let third = new_wrapper_key(&vault).await;
    let edit = "UPDATE wrapper_keys SET state = 'standby' WHERE id = ?1";
    // While the vault runs: the log counts, and nothing is filled that the database alone calls standby.
    assert_eq!(vault.database().execute(edit, [&first]).unwrap(), 1);
    assert_eq!(wrapper_key(&vault, &first).await["state"], "retired");
    assert!(!wraps(&vault, &key).await.contains(&first));
    // After a restart the column is repaired, and a real standby key is filled.
    vault.restart();
    until("the standby key is filled", || async { wraps(&vault, &key).await.contains(&third) }).await;
    assert_eq!(wrapper_key(&vault, &first).await["state"], "retired");
    assert!(!wraps(&vault, &key).await.contains(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_cannot_be_edited_away() {
    let mut vault = TestVault::start();
    let id = new_key(&vault).await;
    vault.client("wrapper-admin").post("/v1/freeze", &json!({})).await.unwrap();
    assert_eq!(vault.database().execute("UPDATE meta SET frozen = 0", []).unwrap(), 1);
    assert_eq!(code(&vault, &id).await, "frozen");
    vault.restart();
    assert_eq!(code(&vault, &id).await, "frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_idempotency_row_gives_nobody_the_key_of_another_principal() {
    let vault = TestVault::start();
    let new = |node: &str| json!({ "node": node, "purpose": "signing", "spec": "ec-curve25519" });
    let (one, two) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "participant2"));
    let own = one.once("/v1/keys", "k", &new("participant1")).await.success()["id"].clone();
    let foreign = two.once("/v1/keys", "k", &new("participant2")).await.success()["id"].clone();
    assert_eq!(one.once("/v1/keys", "k", &new("participant1")).await.success()["id"], own, "an honest repetition");
    let edit = "UPDATE idempotency SET answer = CAST(?1 AS BLOB) WHERE principal LIKE '%participant1'";
    assert_eq!(vault.database().execute(edit, [foreign.as_str().unwrap()]).unwrap(), 1);
    let answer = one.once("/v1/keys", "k", &new("participant1")).await;
    assert_eq!(answer.status, 500, "{}", answer.text);
    assert!(!answer.text.contains(foreign.as_str().unwrap()));
}
