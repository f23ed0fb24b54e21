//! A vault on OpenBao from outside: both logs have the same request ids, and denials are distinguished from outages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{
    aws_vault::reasons,
    openbao::{LEAST, Openbao, token_line, write_token},
    vault::{TestVault, problem, until},
};

#[tokio::test]
async fn a_vault_on_openbao_signs_again_after_a_restart_and_its_log_names_each_request() {
    let server = Openbao::shared().await;
    let name = server.create_key(json!({})).await;
    // The policy as it is published.
    let policy = include_str!("../../deploy/openbao/canton-keyvault.hcl").replace("/canton\"", &format!("/{name}\""));
    server.call("PUT", "sys/policies/acl/published", json!({ "policy": policy })).await;
    let login = write_token(&server.token(json!({ "policies": ["published"], "period": "24h" })).await);
    let mut vault = start(server, &login, &name);
    let id = create(&vault).await;
    sign(&vault, &id).await.unwrap();
    sign(&vault, &id).await.unwrap();
    vault.restart();
    sign(&vault, &id).await.unwrap();

    let requests = |operation: &str| {
        let all = server.requests(&format!("transit/{operation}/{name}"));
        all.into_iter().map(|request| request["id"].clone()).collect::<Vec<_>>()
    };
    // The first of each is the canary's, at registration.
    let (wraps, unwraps) = (requests("encrypt"), requests("decrypt"));
    let mut of_key = Vec::new();
    for operation in ["keys.create", "keys.sign"] {
        let path = format!("/v1/audit/entries?operation={operation}&key_id={id}");
        for entry in vault.client("auditor").get(&path).await.unwrap()["items"].as_array().unwrap() {
            of_key.extend(entry["kms_request_ids"].as_array().into_iter().flatten().cloned());
        }
    }
    // Before a wrap, the vault reads the attributes of the key.
    assert_eq!(of_key.len(), 5, "the look at the key, the wrap, its proof, the first signature, the one after the restart");
    assert!(requests("keys").contains(&of_key[0]));
    assert_eq!(of_key[1], wraps[1]);
    assert!(of_key[2..].iter().all(|id| unwraps.contains(id)), "{of_key:?} {unwraps:?}");

    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    let address = server.address();
    for (what, named) in [("registered wrapper key", &name), ("KMS server", &address)] {
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == what).unwrap();
        assert_eq!(line["ok"], true, "{line}");
        assert!(line["detail"].as_str().unwrap().contains(named), "{line}");
    }
}

/// A vault without permission on the wrapper key gets `wrapper_denied`. Cached keys work, and others work again with the permission.
#[tokio::test]
async fn a_right_that_is_taken_is_wrapper_denied_and_a_sealed_server_is_wrapper_unavailable() {
    let server = Openbao::start().await;
    let name = server.create_key(json!({})).await;
    let policy = server.policy(&LEAST).await;
    let login = write_token(&server.token(json!({ "policies": [policy] })).await);
    let mut vault = start(&server, &login, &name);
    let id = create(&vault).await;

    server.set_policy(&policy, &["encrypt", "keys"]).await;
    // Nobody calls: a probe finds it out.
    until("a probe is denied", || async { reasons(&vault).await[0]["code"] == "wrapper_denied" }).await;
    let denied = problem(sign(&vault, &id).await);
    assert_eq!((denied.code.as_str(), denied.retryable), ("wrapper_denied", false));
    assert!(denied.document["reason"] == "access_denied" && denied.detail.contains("update on decrypt/"), "{}", denied.document);
    server.set_policy(&policy, &LEAST).await;
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;

    server.seal().await;
    sign(&vault, &id).await.unwrap();
    vault.restart();
    let away = problem(sign(&vault, &id).await);
    assert_eq!((away.code.as_str(), away.retryable), ("wrapper_unavailable", true));
    assert!(away.document["reason"] == "sealed" && away.remedy.unwrap().contains("Unseal"), "{}", away.document);
    server.unseal().await;
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;
    let state = vault.client("participant1").get(&format!("/v1/keys/{id}")).await.unwrap()["state"].clone();
    assert_eq!(state, "active", "nothing was called broken");
}

/// A token that has ended says nothing of the key, and a new one is used at the next call.
#[tokio::test]
async fn an_ended_token_has_a_reason_of_its_own_and_a_new_one_is_used_at_once() {
    let server = Openbao::start().await;
    let name = server.create_key(json!({})).await;
    let policy = server.policy(&LEAST).await;
    let token = server.token(json!({ "policies": [policy] })).await;
    let login = write_token(&token);
    let mut vault = start(&server, &login, &name);
    let id = create(&vault).await;
    server.revoke(&token).await;
    vault.restart();
    let refused = problem(sign(&vault, &id).await);
    assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_credentials_rejected", false));
    assert!(refused.document["reason"] == "token_refused" && refused.detail.contains("has expired or was revoked"), "{}", refused.document);
    let check = vault.command(&["check", "--config", "keyvault.toml"]).output().unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("has expired or was revoked") && check.contains("Fix: Write a new token to token_file"), "{check}");
    std::fs::write(login.path(), server.token(json!({ "policies": [policy] })).await).unwrap();
    until("the new token is used", || async { sign(&vault, &id).await.is_ok() }).await;
}

// --- helpers ---

/// A vault whose first wrapper key is this one of the server.
fn start(server: &Openbao, login: &NamedTempFile, name: &str) -> TestVault {
    let wrapper = format!("provider = 'openbao-transit'\nreference = {:?}", server.url(name));
    let allowed = format!("allowed = [{:?}]\nprobe_interval = '2s'", server.url("*"));
    let limits = "[wrapper.limits]\nattempt_timeout = '1500ms'\ntimeout = '4s'\nretries = 1\nbreaker_cooldown = '300ms'";
    let cluster = format!(
        "[[wrapper.openbao]]\naddresses = [{:?}]\nca = '{}'\n{}",
        server.address(),
        server.file("ca.pem").display(),
        token_line(login.path())
    );
    let mut vault = TestVault::prepare(|config| {
        let (before, rest) = config.split_once("[wrapper]").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        format!("{before}[wrapper]\n{wrapper}\n{allowed}\n{limits}\n{cluster}\n[log]{after}")
    });
    vault.serve();
    vault
}

/// A new Ed25519 key of `participant1`, as soon as there is a wrapper key.
async fn create(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let client = vault.client("participant1");
    until("there is a wrapper key", || async {
        !vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"][0].is_null()
    })
    .await;
    client.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sign(vault: &TestVault, id: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await
}
