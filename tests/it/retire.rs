//! Retirement of a wrapper key: only after every key has another verified wrap. Then its wraps are deleted.

use canton_keyvault::{
    domain::{AuditEvent, Operation, Principal, Timestamp},
    storage::Change,
};
use serde_json::json;

use crate::support::{
    jobs::{active, new_wrapper_key, rotate, rotated, wrapper_key, wraps},
    vault::{TestVault, problem, until},
};

fn quick(config: String) -> String {
    config + "\n[jobs]\nkeys_per_second = 10000\nretry_backoff = \"50ms\"\n"
}

async fn create(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vault.client("key-admin").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn retire(vault: &TestVault, id: &str) -> Result<serde_json::Value, canton_keyvault::client::ClientError> {
    vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/{id}/retire"), &json!({})).await
}

#[tokio::test]
async fn a_retired_wrapper_key_holds_nothing_and_the_answer_is_in_the_log() {
    let mut vault = TestVault::start_with(quick);
    let (first, key) = (active(&vault).await, create(&vault).await);
    let second = new_wrapper_key(&vault).await;
    assert_eq!(problem(retire(&vault, &first).await).code, "invalid_wrapper_key_state", "the active one");
    rotated(&vault, &second).await;
    let answer = retire(&vault, &first).await.unwrap();
    let retirement = &answer["retirement"];
    assert_eq!((&answer["state"], &answer["keys"]), (&json!("retired"), &json!(0)));
    assert_eq!((&retirement["wraps_dropped"], &retirement["keys"]), (&json!(1), &json!(1)), "{answer}");
    assert!(retirement["last_used_at"].is_string(), "{answer}");
    let entries = vault.client("auditor").get("/v1/audit/entries?operation=wrapper-keys.retire&outcome=ok").await.unwrap();
    let entry = entries["items"].as_array().unwrap().last().unwrap();
    assert_eq!(entry["sequence"], retirement["audit_position"]);
    let subject = entry["subject"].as_str().unwrap();
    assert!(subject.contains(&first) && subject.contains("1 wraps of 1 keys") && subject.contains("last used 20"), "{subject}");
    assert_eq!(wraps(&vault, &key).await, std::slice::from_ref(&second));
    assert_eq!(wrapper_key(&vault, &first).await["state"], "retired");
    assert_eq!(problem(retire(&vault, &first).await).code, "invalid_wrapper_key_state");
    let back = problem(vault.client("wrapper-admin").post("/v1/wrapper-keys/rotations", &json!({ "to": first })).await);
    assert_eq!(back.code, "invalid_wrapper_key_state");
    vault.kill();
    vault.serve();
    let ask = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    vault.client("participant1").post(&format!("/v1/keys/{key}/sign"), &ask).await.unwrap();
}

/// Keys in every state: in use, pending deletion, of a system node.
#[tokio::test]
async fn a_wrapper_key_that_any_key_needs_does_not_go_and_nothing_changes() {
    let vault = TestVault::start_with(quick);
    let first = active(&vault).await;
    let (used, pending, system) = (create(&vault).await, create(&vault).await, create(&vault).await);
    vault.client("key-admin").json(canton_keyvault::client::Call::delete(&format!("/v1/keys/{pending}"))).await.unwrap();
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    assert_eq!(vault.database().execute("UPDATE keys SET node = '$vault' WHERE id = ?1", [&system]).unwrap(), 1);
    for key in [&used, &pending, &system] {
        let database = vault.database();
        for lacks in [
            "UPDATE wraps SET quarantined = 1 WHERE key = ?1 AND wrapper_key = ?2",
            "UPDATE wraps SET verified_at = NULL WHERE key = ?1 AND wrapper_key = ?2",
            "UPDATE wraps SET generation = 7 WHERE key = ?1 AND wrapper_key = ?2",
        ] {
            assert_eq!(database.execute(lacks, [key, &second]).unwrap(), 1);
            let refused = problem(retire(&vault, &first).await);
            assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (409, "wrapper_key_in_use", false));
            assert!(refused.detail.contains(key.as_str()) && refused.detail.contains("1 keys"), "{}", refused.detail);
            assert_eq!(wrapper_key(&vault, &first).await["state"], "draining");
            let mended = "UPDATE wraps SET quarantined = 0, verified_at = created_at, generation = 1 WHERE key = ?1 AND wrapper_key = ?2";
            database.execute(mended, [key, &second]).unwrap();
        }
    }
    assert_eq!(wrapper_key(&vault, &first).await["keys"], 3);
    assert_eq!(retire(&vault, &first).await.unwrap()["retirement"]["wraps_dropped"], 3);
}

/// A holder must answer now, not have answered once.
#[tokio::test]
async fn a_wrapper_key_that_does_not_answer_holds_nothing() {
    let mut vault = TestVault::start_with(quick);
    let first = active(&vault).await;
    create(&vault).await;
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    let file = wrapper_key(&vault, &second).await["reference"].as_str().unwrap().to_owned();
    vault.kill();
    std::fs::rename(&file, format!("{file}.away")).unwrap();
    vault.serve();
    let refused = problem(retire(&vault, &first).await);
    assert_eq!(refused.code, "wrapper_key_in_use");
    assert!(refused.detail.contains(&format!("Not answering: {second}")), "{}", refused.detail);
    std::fs::rename(format!("{file}.away"), &file).unwrap();
    retire(&vault, &first).await.unwrap();
}

/// Cut off between its two steps, it opens as before, and goes on when asked again.
#[tokio::test]
async fn an_interrupted_retirement_can_be_repeated() {
    let mut vault = TestVault::start_with(quick);
    let (first, key) = (active(&vault).await, create(&vault).await);
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    // A retirement that ended after its first step.
    vault.kill();
    let event = AuditEvent::new(Timestamp::from_micros(1), Principal::system(), Operation::RetireWrapperKey, "p".into());
    vault.commit_offline(Change::BeginRetirement(first.parse().unwrap()), event).await;
    vault.serve();
    let third = new_wrapper_key(&vault).await;
    until("others are filled", || async { wraps(&vault, &key).await.contains(&third) }).await;
    assert_eq!(retire(&vault, &first).await.unwrap()["state"], "retired");
    assert_eq!(wraps(&vault, &key).await, [second, third]);
}

/// The former wrapper key is the way back from a rotation, until the rotation has ended.
#[tokio::test]
async fn nothing_is_retired_while_a_rotation_runs() {
    // The rotation lasts longer than the test, because it does one key in a second.
    let vault = TestVault::start_with(|config| config + "\n[jobs]\nkeys_per_second = 1\n[limits]\ncreations_per_minute = 1000000\n");
    let first = active(&vault).await;
    for _ in 0..100 {
        create(&vault).await;
    }
    let (second, third) = (new_wrapper_key(&vault).await, new_wrapper_key(&vault).await);
    let job = rotate(&vault, &second).await["id"].as_str().unwrap().to_owned();
    for leaving in [&first, &third] {
        for question in ["", "?dry_run=true"] {
            let path = format!("/v1/wrapper-keys/{leaving}/retire{question}");
            let refused = problem(vault.client("wrapper-admin").post(&path, &json!({})).await);
            assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (409, "job_running", false), "{}", refused.detail);
            assert!(refused.detail.contains(&job), "{}", refused.detail);
        }
    }
    assert_eq!(wrapper_key(&vault, &first).await["state"], "draining");
    vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/rotations/{job}/abort"), &json!({})).await.unwrap();
    assert_eq!(retire(&vault, &third).await.unwrap()["state"], "retired");
}
