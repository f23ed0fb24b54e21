//! The limits of one principal: calls beyond them get a retryable 429 and an audit entry. Other principals are not affected.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::vault::{TestVault, problem};

fn symmetric(node: &str) -> Value {
    json!({ "node": node, "purpose": "symmetric", "spec": "aes-256" })
}

#[tokio::test]
async fn creations_beyond_the_limit_are_refused_to_one_and_not_to_others() {
    let vault = TestVault::start_with(|config| config + "\n[limits]\ncreations_per_minute = 2\n");
    let (one, other) = (vault.client("participant1"), vault.client("participant2"));
    for _ in 0..2 {
        one.create("/v1/keys", &symmetric("participant1")).await.unwrap();
    }
    let refused = problem(one.create("/v1/keys", &symmetric("participant1")).await);
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (429, "too_many_requests", true));
    other.create("/v1/keys", &symmetric("participant2")).await.unwrap();
    one.get("/v1/keys").await.unwrap();
    let entries = vault.client("auditor").get("/v1/audit/entries?operation=keys.create&outcome=failed").await.unwrap();
    assert_eq!(entries["items"][0]["reason"], "too_many_requests");
}

#[tokio::test]
async fn cold_opens_beyond_the_limit_are_refused_and_open_keys_go_on() {
    let mut vault = TestVault::start_with(|config| config + "\n[limits]\ncache_misses_per_second = 1\n");
    let mut keys = Vec::new();
    for _ in 0..14 {
        let key = vault.client("participant1").create("/v1/keys", &symmetric("participant1")).await.unwrap();
        keys.push(format!("/v1/keys/{}/encrypt", key["id"].as_str().unwrap()));
    }
    vault.restart();
    let (client, body) = (vault.client("participant1"), json!({ "plaintext": STANDARD.encode("x") }));
    let mut opened = Vec::new();
    for path in &keys {
        match client.post(path, &body).await {
            Ok(_) => opened.push(path),
            refused => assert_eq!(problem(refused).code, "too_many_requests"),
        }
    }
    assert!((10..14).contains(&opened.len()), "ten seconds' worth at once, not all: {}", opened.len());
    client.post(opened[0], &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_are_bounded() {
    let vault = TestVault::start_with(|config| config + "\n[limits]\nconcurrent = 1\n");
    let key = vault
        .client("participant1")
        .create("/v1/keys", &json!({ "node": "participant1", "purpose": "encryption", "spec": "rsa-2048" }))
        .await;
    let path = Arc::new(format!("/v1/keys/{}/decrypt", key.unwrap()["id"].as_str().unwrap()));
    let body = json!({ "algorithm": "rsa-oaep-sha256", "ciphertext": STANDARD.encode([1_u8; 256]) });
    let mut codes = Vec::new();
    // Two connections of one principal, again and again until they meet.
    while !codes.iter().any(|code| code == "too_many_requests") {
        assert!(codes.len() < 2_000, "they never met");
        let calls = (0..8).map(|_| {
            let (client, path, body) = (vault.client("participant1"), Arc::clone(&path), body.clone());
            tokio::spawn(async move { problem(client.post(&path, &body).await).code })
        });
        for call in calls.collect::<Vec<_>>() {
            codes.push(call.await.unwrap());
        }
    }
    assert!(codes.iter().all(|code| code == "too_many_requests" || code == "decryption_failed"), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_are_generated_within_the_limit_of_heavy_work() {
    let vault = TestVault::start_with(|config| config + "\n[limits]\nconcurrent_heavy = 1\n");
    let body = json!({ "node": "participant1", "purpose": "encryption", "spec": "rsa-2048" });
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (client, body) = (vault.client("participant1"), body.clone());
            tokio::spawn(async move { client.create("/v1/keys", &body).await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            assert_eq!(problem::<()>(Err(error)).code, "too_many_requests");
            refused += 1;
        }
    }
    assert!(refused > 0, "sixteen generations at the same time");
}

#[tokio::test]
async fn reseals_and_calls_without_a_grant_are_limited() {
    let limits = "\n[limits]\ncreations_per_minute = 2\ninformation_per_second = 1\n";
    let vault = TestVault::start_with(|config| config + limits);
    let key = vault.client("participant1").create("/v1/keys", &symmetric("participant1")).await.unwrap();
    let (admin, path) = (vault.client("key-admin"), format!("/v1/keys/{}/reseal", key["id"].as_str().unwrap()));
    for _ in 0..2 {
        admin.post(&path, &json!({})).await.unwrap();
    }
    assert_eq!(problem(admin.post(&path, &json!({})).await).code, "too_many_requests");
    let exporter = vault.client("exporter");
    let mut answered = 0;
    let refused = loop {
        match exporter.get(["/v1/whoami", "/v1/status"][answered % 2]).await {
            Ok(_) => answered += 1,
            refused => break problem(refused),
        }
        assert!(answered < 1_000, "no limit");
    };
    assert_eq!((refused.status, refused.code.as_str()), (429, "too_many_requests"));
}
