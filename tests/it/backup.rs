//! `backup` under load, then `verify-backup` and `serve` with the copy: every key opens. `check` prints ok or FAIL with the fix.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::vault::TestVault;

fn run(vault: &TestVault, arguments: &[&str]) -> (bool, Value) {
    let Output { status, stdout, stderr } = vault.command(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    (status.success(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&stderr))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_verifies_and_serves() {
    let mut vault = TestVault::start();
    let client = vault.client("participant1");
    let mut keys = Vec::new();
    for spec in ["ec-curve25519", "ec-p256", "ec-p384", "ec-secp256k1"] {
        let new = json!({ "node": "participant1", "purpose": "signing", "spec": spec });
        keys.push(client.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    vault.client("key-admin").post(&format!("/v1/keys/{}/disable", keys[3]), &json!({})).await.unwrap();

    // Signing and creating go on while the copy is made.
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), vault.client("participant1"));
    let (key, stopped) = (keys[0].clone(), Arc::clone(&stop));
    let load = tokio::spawn(async move {
        let request = json!({ "algorithm": "ed25519", "message": STANDARD.encode("load") });
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) {
            busy.post(&format!("/v1/keys/{key}/sign"), &request).await.unwrap();
            busy.create("/v1/keys", &json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" })).await.unwrap();
            rounds += 1;
        }
        rounds
    });
    let copy = vault.path("copy.db");
    let file = copy.to_str().unwrap();
    let (ok, answer) = run(&vault, &["backup", file, "--output", "json"]);
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert!(ok && answer["bytes"].as_u64().unwrap() > 4096, "{answer}");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run_fails(&vault, &["backup", file]).is_empty(), "an existing file is not overwritten");

    let (ok, drilled) = run(&vault, &["verify-backup", file, "--output", "json"]);
    assert!(ok && drilled["failed"] == json!([]) && drilled["opened"].as_u64().unwrap() >= 4, "{drilled}");

    vault.kill();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(vault.path(&format!("keyvault.db{suffix}")));
    }
    fs::copy(&copy, vault.path("keyvault.db")).unwrap();
    vault.serve();
    let request = json!({ "algorithm": "ecdsa-sha384", "message": STANDARD.encode("restored") });
    vault.client("participant1").post(&format!("/v1/keys/{}/sign", keys[2]), &request).await.unwrap();
    let shown = vault.client("auditor").get(&format!("/v1/keys/{}", keys[3])).await.unwrap();
    assert_eq!(shown["state"], "disabled");
}

#[tokio::test]
async fn verify_backup_names_the_key_that_does_not_open() {
    let mut vault = TestVault::start();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let lost = vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].clone();
    let kept = vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].clone();
    vault.terminate();
    let copy = vault.path("copy.db");
    assert!(run(&vault, &["backup", copy.to_str().unwrap(), "--output", "json"]).0);
    let database = rusqlite::Connection::open(&copy).unwrap();
    assert_eq!(database.execute("DELETE FROM wraps WHERE key = ?1", [lost.as_str().unwrap()]).unwrap(), 1);
    drop(database);
    let before = fs::read(&copy).unwrap();
    let (ok, drilled) = run(&vault, &["verify-backup", copy.to_str().unwrap(), "--output", "json"]);
    assert!(!ok);
    assert_eq!((&drilled["opened"], &drilled["failed"][0]["key_id"]), (&json!(1), &lost), "{drilled} {kept}");
    assert_eq!(drilled["failed"][0]["code"], "key_quarantined", "{drilled}");
    assert!(fs::read(&copy).unwrap() == before, "a drill changes nothing");
}

#[tokio::test]
async fn check_prints_ok_or_fail_with_the_fix() {
    let mut vault = TestVault::start();
    vault
        .client("participant1")
        .create("/v1/keys", &json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" }))
        .await
        .unwrap();
    let (ok, lines) = run(&vault, &["check", "--output", "json"]);
    assert!(ok, "{lines:#}");
    let registered = lines.as_array().unwrap().iter().find(|line| line["check"] == "registered wrapper key").unwrap();
    assert!(registered["detail"].as_str().unwrap().contains("1 keys have a wrap"), "{registered}");

    vault.terminate();
    fs::set_permissions(vault.path("pki/server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(vault.path("wrapper.key"), vault.path("elsewhere.key")).unwrap();
    let (ok, lines) = run(&vault, &["check", "--output", "json"]);
    let wrong: Vec<&str> =
        lines.as_array().unwrap().iter().filter(|line| line["ok"] == false).map(|line| line["check"].as_str().unwrap()).collect();
    assert!(!ok);
    assert_eq!(wrong, ["registered wrapper key"], "{lines:#}");
    let warned = |name: &str| lines.as_array().unwrap().iter().any(|line| line["check"] == name && line["status"] == "warn");
    assert!(warned("file modes") && warned("configured wrapper key"), "{lines:#}");
}

fn run_fails(vault: &TestVault, arguments: &[&str]) -> String {
    let output = vault.command(arguments).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
