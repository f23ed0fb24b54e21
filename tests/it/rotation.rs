//! Rotation of the wrapper key: every key in every state gets a wrap under the new one, all wraps open meanwhile, and a rollback is
//! possible.

use serde_json::{Value, json};

use crate::support::{
    jobs::{active, ended, new_wrapper_key, rotate, rotated, wrapper_key, wraps},
    vault::{TestVault, problem, until},
};

async fn create(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vault.client("key-admin").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sign(vault: &TestVault, key: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    vault.client("participant1").post(&format!("/v1/keys/{key}/sign"), &ask).await
}

async fn step(vault: &TestVault, key: &str, step: &str) {
    vault.client("key-admin").post(&format!("/v1/keys/{key}/{step}"), &json!({})).await.unwrap();
}

/// Limits that a test never reaches, and jobs that do not dawdle.
fn quick(config: String) -> String {
    config + "\n[limits]\ncreations_per_minute = 1000000\n[jobs]\nkeys_per_second = 10000\nretry_backoff = \"50ms\"\n"
}

/// The same, but slow enough to be caught in the middle.
fn slow(config: String) -> String {
    config + "\n[limits]\ncreations_per_minute = 1000000\n[jobs]\nkeys_per_second = 5\nretry_backoff = \"50ms\"\n"
}

#[tokio::test]
async fn keys_of_every_state_get_a_wrap_and_sign_without_the_old_wrapper_key() {
    let mut vault = TestVault::start_with(quick);
    let first = active(&vault).await;
    let mut keys = Vec::new();
    for state in ["active", "superseded", "disabled", "pending", "active"] {
        let key = create(&vault).await;
        match state {
            "superseded" => step(&vault, &key, "supersede").await,
            "disabled" => step(&vault, &key, "disable").await,
            "pending" => {
                vault.client("key-admin").json(canton_keyvault::client::Call::delete(&format!("/v1/keys/{key}"))).await.unwrap();
            }
            _ => {}
        }
        keys.push(key);
    }
    let second = new_wrapper_key(&vault).await;
    let job = rotate(&vault, &second).await;
    assert_eq!((&job["kind"], &job["from"], &job["to"]), (&json!("rotation"), &json!(first), &json!(second)));
    let job = ended(&vault, &job).await;
    assert_eq!(
        (&job["state"], &job["total"], &job["done"], &job["failed"]),
        (&json!("succeeded"), &json!(5), &json!(5), &json!(0)),
        "{job}"
    );
    assert_eq!(wrapper_key(&vault, &first).await["state"], "draining");
    assert_eq!(wrapper_key(&vault, &second).await["state"], "active");
    for key in &keys {
        assert_eq!(wraps(&vault, key).await, [first.clone(), second.clone()]);
    }
    // The old key file away, and nothing in memory: only the new wraps can open.
    let old = wrapper_key(&vault, &first).await["reference"].as_str().unwrap().to_owned();
    vault.kill();
    std::fs::rename(&old, format!("{old}.away")).unwrap();
    vault.serve();
    sign(&vault, &keys[0]).await.unwrap();
    sign(&vault, &keys[4]).await.unwrap();
    step(&vault, &keys[2], "enable").await;
    step(&vault, &keys[3], "cancel-deletion").await;
    sign(&vault, &keys[2]).await.unwrap();
    sign(&vault, &keys[3]).await.unwrap();

    let id = job["id"].as_str().unwrap();
    let entries = vault.client("auditor").get("/v1/audit/entries?operation=keys.rewrap").await.unwrap();
    let entries = entries["items"].as_array().unwrap();
    assert_eq!(entries.len(), 5);
    for entry in entries {
        // The job, or the task that fills a standby wrapper key, came to the key first.
        let subject = entry["subject"].as_str().unwrap();
        let by = subject.strip_prefix(&format!("{first} to {second}, unwrapped and wrapped")).unwrap();
        assert!(by.is_empty() || by == format!(", {id}"), "{subject}");
        assert!(entry["key_id"].is_string() && entry["node"] == "participant1");
    }
    let ends = vault.client("auditor").get("/v1/audit/entries?operation=rotations.end").await.unwrap();
    assert_eq!(ends["items"][0]["subject"], format!("{id} succeeded"));
}

#[tokio::test]
async fn new_keys_are_wrapped_under_the_new_key_at_once_and_a_second_job_is_refused() {
    let vault = TestVault::start_with(slow);
    // At 5 in a second, it does not end before the abort, on a busy machine either.
    for _ in 0..40 {
        create(&vault).await;
    }
    let (first, second) = (active(&vault).await, new_wrapper_key(&vault).await);
    // It is on standby, and being filled already.
    let job = rotate(&vault, &second).await;
    assert_eq!(job["state"], "running");
    let fresh = create(&vault).await;
    assert_eq!(wraps(&vault, &fresh).await, std::slice::from_ref(&second));
    let third = new_wrapper_key(&vault).await;
    let admin = vault.client("wrapper-admin");
    let refused = problem(admin.post("/v1/wrapper-keys/rotations", &json!({ "to": third })).await);
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (409, "job_running", false));
    let refused = problem(vault.client("key-admin").post("/v1/keys/reseals", &json!({})).await);
    assert_eq!(refused.code, "job_running");

    // Stopped, everything stays as it is and opens; ended is ended.
    let path = format!("/v1/wrapper-keys/rotations/{}", job["id"].as_str().unwrap());
    let aborted = admin.post(&format!("{path}/abort"), &json!({})).await.unwrap();
    assert_eq!(aborted["state"], "aborted");
    assert_eq!(problem(admin.post(&format!("{path}/abort"), &json!({})).await).code, "job_ended");
    let shown = admin.get(&path).await.unwrap();
    assert_eq!(shown["state"], "aborted");
    assert!(shown["done"].as_u64().unwrap() < shown["total"].as_u64().unwrap(), "{shown}");
    assert_eq!(wrapper_key(&vault, &second).await["state"], "active");

    // The way back: to the one before, whose wraps are all there.
    let back = ended(&vault, &rotate(&vault, &first).await).await;
    assert_eq!((&back["state"], &back["done"]), (&json!("succeeded"), &json!(41)), "{back}");
    assert_eq!(wrapper_key(&vault, &second).await["state"], "draining");
    assert_eq!(wraps(&vault, &fresh).await.last(), Some(&first));
    sign(&vault, &fresh).await.unwrap();
    // The entries of a job name it: the only key without a wrap under the first wrapper key is `fresh`.
    let id = back["id"].as_str().unwrap();
    let of_job = vault.client("auditor").get(&format!("/v1/audit/entries?job={id}")).await.unwrap();
    let entries: Vec<_> = of_job["items"].as_array().unwrap().iter().filter(|entry| entry["operation"] != "rotations.show").collect();
    let operations: Vec<_> = entries.iter().map(|entry| entry["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["rotations.start", "keys.rewrap", "rotations.end"]);
    assert_eq!(entries[0]["subject"], format!("{second} to {first}, {id}"));
    assert_eq!(entries[1]["subject"], format!("{second} to {first}, unwrapped and wrapped, {id}"));
    assert_eq!(entries[1]["key_id"], fresh);
    let listed = admin.get("/v1/wrapper-keys/rotations").await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_rotation_resumes_after_a_crash_and_ends_by_itself() {
    let mut vault = TestVault::start_with(slow);
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(create(&vault).await);
    }
    let second = new_wrapper_key(&vault).await;
    let job = rotate(&vault, &second).await;
    vault.kill();
    vault.serve();
    let ended = ended(&vault, &job).await;
    assert_eq!((&ended["state"], &ended["done"]), (&json!("succeeded"), &json!(6)));
    for key in &keys {
        assert_eq!(wraps(&vault, key).await.len(), 2);
    }
}

#[tokio::test]
async fn a_rotation_with_a_broken_key_reports_it_and_can_be_continued() {
    let vault = TestVault::start_with(quick);
    let (good, broken) = (create(&vault).await, create(&vault).await);
    let kept: Vec<u8> = {
        let database = vault.database();
        let kept = database.query_row("SELECT wrapped FROM wraps WHERE key = ?1", [&broken], |row| row.get(0)).unwrap();
        database.execute("UPDATE wraps SET wrapped = zeroblob(61) WHERE key = ?1", [&broken]).unwrap();
        kept
    };
    let second = new_wrapper_key(&vault).await;
    let job = ended(&vault, &rotate(&vault, &second).await).await;
    assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("failed"), &json!(1), &json!(1)), "{job}");
    let error = &job["errors"][0];
    assert_eq!((&error["key_id"], &error["code"]), (&json!(broken), &json!("key_quarantined")), "{job}");
    sign(&vault, &good).await.unwrap();
    // Mended, the rest is done by another rotation to the same wrapper key.
    vault.database().execute("UPDATE wraps SET wrapped = ?2, quarantined = 0 WHERE key = ?1", rusqlite::params![broken, kept]).unwrap();
    let again = rotated(&vault, &second).await;
    assert_eq!((&again["from"], &again["done"]), (&job["from"], &json!(2)));
    let nothing = problem(vault.client("wrapper-admin").post("/v1/wrapper-keys/rotations", &json!({ "to": second })).await);
    assert_eq!(nothing.code, "invalid_wrapper_key_state");
}

#[tokio::test]
async fn standby_wrapper_keys_are_kept_filled_and_draining_ones_are_not() {
    let vault = TestVault::start_with(quick);
    let (first, early) = (active(&vault).await, create(&vault).await);
    let standby = new_wrapper_key(&vault).await;
    until("it is filled", || async { wraps(&vault, &early).await == [first.clone(), standby.clone()] }).await;
    let late = create(&vault).await;
    until("what came later too", || async { wraps(&vault, &late).await == [first.clone(), standby.clone()] }).await;
    let next = new_wrapper_key(&vault).await;
    rotated(&vault, &next).await;
    let last = create(&vault).await;
    until("the standby one only", || async { wraps(&vault, &last).await == [next.clone(), standby.clone()] }).await;
    assert_eq!(wrapper_key(&vault, &first).await["keys"], 2, "draining");
}

#[tokio::test]
async fn a_frozen_vault_rests_its_jobs() {
    let vault = TestVault::start_with(slow);
    // At 5 in a second, it cannot end before the freeze, on a busy machine either.
    for _ in 0..50 {
        create(&vault).await;
    }
    let second = new_wrapper_key(&vault).await;
    let job = rotate(&vault, &second).await;
    let admin = vault.client("wrapper-admin");
    admin.post("/v1/freeze", &json!({})).await.unwrap();
    let refused = problem(admin.post("/v1/wrapper-keys/rotations", &json!({ "to": second })).await);
    assert_eq!(refused.code, "frozen");
    let show = || async { admin.get(&format!("/v1/wrapper-keys/rotations/{}", job["id"].as_str().unwrap())).await.unwrap() };
    let then = show().await;
    // Time in which 15 would have been done. A batch may be under way.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let frozen = show().await;
    let done = |job: &serde_json::Value| job["done"].as_u64().unwrap();
    assert!(frozen["state"] == "running" && done(&frozen) <= done(&then) + 5, "{then} and then {frozen}");
    admin.post("/v1/unfreeze", &json!({})).await.unwrap();
    assert_eq!(ended(&vault, &job).await["state"], "succeeded");
}
