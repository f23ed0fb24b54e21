//! The limits of one principal: calls beyond them get a retryable 429 and an audit entry. Other principals are not affected.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id},
    vault::{TestVault, problem, until},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn heavy_work_of_one_node_delays_no_other() {
    let vault = Arc::new(TestVault::start_with(|config| config + "\n[limits]\ncreations_per_minute = 60000\n"));
    let rsa = |node: &str| json!({ "node": node, "purpose": "encryption", "spec": "rsa-2048" });
    let other = Caller::new(&vault, "participant2");
    let signer = other.signing_key("participant2").await;
    let refused = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let flood: Vec<_> = (0..24)
        .map(|_| {
            let (caller, body, refused) = (Caller::new(&vault, "participant1"), rsa("participant1"), Arc::clone(&refused));
            tokio::spawn(async move {
                loop {
                    if caller.post("/v1/keys", &body).await.status == 429 {
                        refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    until("the node has as much heavy work as it may have", || async { refused.load(std::sync::atomic::Ordering::Relaxed) > 0 }).await;
    for _ in 0..3 {
        let key = id(&other.post("/v1/keys", &rsa("participant2")).await.success());
        let body = json!({ "algorithm": "rsa-oaep-sha256", "ciphertext": STANDARD.encode([1_u8; 256]) });
        other.post(&format!("/v1/keys/{key}/decrypt"), &body).await.refused(422, "decryption_failed");
        for _ in 0..20 {
            other.sign(&signer).await.success();
        }
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn changes_are_limited_and_freeze_and_disable_are_not() {
    let vault = TestVault::start_with(|config| config + "\n[limits]\nchanges_per_minute = 2\ncreations_per_minute = 1000\n");
    let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
    let mut keys = Vec::new();
    for _ in 0..12 {
        keys.push(node.signing_key("participant1").await);
    }
    for id in &keys[..2] {
        admin.step(id, "supersede").await.success();
    }
    let refused = admin.step(&keys[2], "supersede").await;
    refused.refused(429, "too_many_requests");
    let wait: u32 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((20..=30).contains(&wait), "two a minute: {wait}");
    let restriction = format!("/v1/keys/{}/signing-restriction", keys[2]);
    admin.post(&restriction, &json!({ "topology_only": true })).await.refused(429, "too_many_requests");
    admin.delete(&format!("/v1/keys/{}", keys[2])).await.refused(429, "too_many_requests");
    for id in &keys {
        admin.step(id, "disable").await.success();
    }
    admin.step(&keys[2], "enable").await.refused(429, "too_many_requests");
    node.delete(&format!("/v1/keys/{}", keys[2])).await.success();
    // The first freeze changes something. Further ones have their own limit, which a freeze after an unfreeze does not need.
    let mut repeated = 0;
    while admin.post("/v1/freeze", &json!({})).await.status == 200 {
        repeated += 1;
        assert!(repeated < 1_000, "freezes without limit");
    }
    assert!(repeated > 60, "{repeated}");
    let wrapper_admin = Caller::new(&vault, "wrapper-admin");
    wrapper_admin.post("/v1/unfreeze", &json!({})).await.success();
    admin.post("/v1/freeze", &json!({})).await.success();
    node.sign(&keys[3]).await.refused(503, "frozen");
}
