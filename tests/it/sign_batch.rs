//! Several signatures in one call: each is right and has an entry of its own, all or none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::domain::Algorithm;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    known_bytes::hex,
    support::{api::Caller, vault::TestVault, verify::verify},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn messages(number: u32) -> Vec<Vec<u8>> {
    (0..number).map(|number| format!("message {number}").into_bytes()).collect()
}

fn body(algorithm: &str, messages: &[Vec<u8>]) -> Value {
    let messages: Vec<_> = messages.iter().map(|message| json!({ "message": STANDARD.encode(message) })).collect();
    json!({ "algorithm": algorithm, "messages": messages })
}

async fn key(node: &Caller, spec: &str) -> (String, Vec<u8>) {
    let key = node.create("participant1", "signing", spec).await;
    (key["id"].as_str().unwrap().to_owned(), STANDARD.decode(key["public_key"].as_str().unwrap()).unwrap())
}

async fn entries(auditor: &Caller, key: &str) -> Vec<Value> {
    auditor.log(&format!("&operation=keys.sign&key_id={key}")).await
}

#[tokio::test]
async fn each_signature_verifies_and_has_an_entry_of_its_own() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    for (spec, algorithm, name, number) in [
        ("ec-curve25519", Algorithm::Ed25519, "ed25519", 64),
        ("ec-p256", Algorithm::EcdsaSha256, "ecdsa-sha256", 3),
        ("ec-secp256k1", Algorithm::EcdsaSha256, "ecdsa-sha256", 1),
    ] {
        let (id, public_key) = key(&node, spec).await;
        let messages = messages(number);
        let answer = node.post(&format!("/v1/keys/{id}/sign-batch"), &body(name, &messages)).await.success();
        let signatures = answer["signatures"].as_array().unwrap();
        assert_eq!((signatures.len(), answer["key_id"].as_str(), answer["algorithm"].as_str()), (messages.len(), Some(&*id), Some(name)));
        for (message, signature) in messages.iter().zip(signatures) {
            let signature = STANDARD.decode(signature.as_str().unwrap()).unwrap();
            assert!(verify(algorithm, &public_key, message, &signature), "{spec}: {message:?}");
        }
        let entries = entries(&auditor, &id).await;
        let digests: Vec<_> = entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
        assert_eq!(digests, messages.iter().map(|message| hex(&Sha256::digest(message))).collect::<Vec<_>>(), "{spec}");
        let sequences: Vec<_> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
        assert!(sequences.is_sorted_by(|one, next| one + 1 == *next), "{sequences:?}");
        let first = &entries[0];
        for field in ["principal", "certificate", "request_id", "node", "algorithm", "outcome", "policy_revision"] {
            assert!(first[field].is_string() && entries.iter().all(|entry| entry[field] == first[field]), "{field}: {entries:?}");
        }
    }
}

#[tokio::test]
async fn each_message_can_have_a_trace_of_its_own() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let (id, _) = key(&node, "ec-curve25519").await;
    let other = "0af7651916cd43dd8448eb211c80319c";
    let parent = |trace: &str| format!("00-{trace}-00f067aa0ba902b7-01");
    let batch = json!({ "algorithm": "ed25519", "messages": [{ "message": "QQ==" }, { "message": "QUE=", "traceparent": parent(other) }] });
    node.send("POST", &format!("/v1/keys/{id}/sign-batch"), &[("traceparent", &parent(TRACE))], batch.to_string()).await.success();
    let traces: Vec<_> = entries(&auditor, &id).await.iter().map(|entry| entry["trace_id"].clone()).collect();
    assert_eq!(traces, [json!(TRACE), json!(other)]);
}

#[tokio::test]
async fn a_batch_that_cannot_be_signed_signs_nothing() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let (id, _) = key(&node, "ec-curve25519").await;
    let long = vec![vec![1], vec![2; 4097]];
    let bad_trace = json!({ "algorithm": "ed25519", "messages": [{ "message": "QQ==" }, { "message": "QQ==", "traceparent": "no" }] });
    for (batch, expected) in [
        (body("ed25519", &[]), (400, "invalid_request")),
        (body("ed25519", &messages(65)), (400, "invalid_request")),
        (body("ed25519", &long), (413, "too_large")),
        (body("ecdsa-sha256", &messages(2)), (422, "unsupported_algorithm")),
        (bad_trace, (400, "invalid_request")),
    ] {
        let reply = node.post(&format!("/v1/keys/{id}/sign-batch"), &batch).await;
        let (status, code) = reply.outcome();
        assert_eq!((status, code.as_str()), expected, "{}", reply.text);
    }
    assert!(entries(&auditor, &id).await.iter().all(|entry| entry["outcome"] != "ok"));
    let refused = auditor.log(&format!("&key_id={id}&outcome=failed")).await;
    assert_eq!(refused.len(), 5, "one entry for each refused call: {refused:?}");
}

#[tokio::test]
async fn a_batch_is_a_use_of_an_imported_key() {
    let vault = TestVault::start();
    let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
    let pkcs8 = [&crate::known_bytes::unhex("302e020100300506032b657004220420")[..], &[9; 32]].concat();
    let import = json!({ "node": "participant1", "format": "pkcs8", "material": STANDARD.encode(pkcs8), "purpose": "signing" });
    let key = admin.post("/v1/keys/import", &import).await.success();
    let id = key["id"].as_str().unwrap();
    node.post(&format!("/v1/keys/{id}/sign-batch"), &body("ed25519", &messages(3))).await.success();
    let (status, code) = admin.post(&format!("/v1/keys/{id}/withdraw"), &json!({})).await.outcome();
    assert_eq!((status, code.as_str()), (409, "key_was_used"));
}

#[tokio::test]
async fn the_command_signs_more_messages_than_a_call_has() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let (id, public_key) = key(&node, "ec-curve25519").await;
    let messages = messages(150);
    let lines: String = messages.iter().map(|message| STANDARD.encode(message) + "\n").collect();
    std::fs::write(vault.path("messages"), lines).unwrap();
    let options = vault.options("participant1");
    let mut command =
        vault.command(&["keys", "sign-batch", &id, "--algorithm", "ed25519", "--messages", "messages", "--url", &options.url]);
    let output = command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signatures: Vec<_> = printed.lines().map(|line| STANDARD.decode(line).unwrap()).collect();
    assert_eq!(signatures.len(), messages.len());
    assert!(messages.iter().zip(&signatures).all(|(message, signature)| verify(Algorithm::Ed25519, &public_key, message, signature)));
    let entries = entries(&auditor, &id).await;
    let requests: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry["request_id"].to_string()).collect();
    assert_eq!((entries.len(), requests.len()), (150, 3));
}
