//! The main operations from outside: create a key, sign, verify independently, restart after kill -9, isolate nodes.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::vault::{TestVault, problem, until};

#[tokio::test]
async fn a_key_signs_survives_a_kill_and_belongs_to_its_node() {
    let mut vault = TestVault::start();
    let participant1 = vault.client("participant1");
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "participant1-signing" });
    let key = participant1.create("/v1/keys", &new).await.unwrap();
    assert_eq!((&key["usage"], &key["class"], &key["state"]), (&json!(["protocol"]), &json!("long-term"), &json!("active")));
    let path = format!("/v1/keys/{}/sign", key["id"].as_str().unwrap());
    let request = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });

    for round in 0..2 {
        let participant1 = vault.client("participant1");
        let answer = participant1.post(&path, &request).await.unwrap();
        let signature = STANDARD.decode(answer["signature"].as_str().unwrap()).unwrap();
        let spki = STANDARD.decode(key["public_key"].as_str().unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, &spki[12..]).verify(b"hello", &signature).unwrap();

        let foreign = problem(vault.client("participant2").post(&path, &request).await);
        let unknown = problem(participant1.post(&format!("/v1/keys/1220{}/sign", "0".repeat(64)), &request).await);
        assert_eq!((foreign.status, foreign.code.as_str()), (unknown.status, unknown.code.as_str()));
        assert_eq!((foreign.status, foreign.code.as_str()), (404, "not_found"));
        if round == 0 {
            vault.restart();
        }
    }
    assert!(vault.terminate(), "SIGTERM ends it well");
}

/// The process's own log says who was failed, and under which id the audit log has it.
#[tokio::test]
async fn a_failed_request_is_a_log_line_with_its_principal_and_id() {
    let vault = TestVault::start();
    let new = json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" });
    let key = vault.client("participant1").create("/v1/keys", &new).await.unwrap();
    vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap();
    let path = format!("/v1/keys/{}/encrypt", key["id"].as_str().unwrap());
    let refused = problem(vault.client("participant1").post(&path, &json!({ "plaintext": "" })).await);
    assert_eq!(refused.code, "frozen");
    let is_it = |line: &Value| {
        line["message"] == "request failed"
            && line["principal"] == "spiffe://dev.keyvault/participant1"
            && line["request_id"].as_str() == refused.request_id.as_deref()
    };
    until("the line", || async { vault.log().iter().any(is_it) }).await;
}
