//! A vault on a PKCS#11 token from outside: it signs again after a restart, and an absent token and a refused PIN have reasons of their own.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::reasons,
    softhsm::{PIN, Softhsm},
    vault::{TestVault, problem, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_on_a_token_signs_again_after_a_restart_and_check_agrees() {
    let tokens = Softhsm::with_tokens(&["canton"]);
    let mut vault = start(&tokens);
    let id = create(&vault).await;
    sign(&vault, &id).await.unwrap();
    vault.restart();
    sign(&vault, &id).await.unwrap();
    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    for (check, says) in [("KMS server", "accepts the PIN"), ("registered wrapper key", "opens its canary")] {
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap();
        assert!(line["ok"] == true && line["detail"].as_str().unwrap().contains(says), "{line}");
    }
    assert!(!format!("{:?}", vault.log()).contains(PIN), "the log does not contain the PIN");
    assert!(vault.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_token_is_an_outage_and_works_again_without_a_restart() {
    let tokens = Softhsm::with_tokens(&["canton"]);
    let mut vault = start(&tokens);
    let id = create(&vault).await;
    sign(&vault, &id).await.unwrap();
    let (folder, aside) = (tokens.token_folder(), tempfile::tempdir().unwrap());
    let aside = aside.path().join("token");
    let moved = |from: &std::path::Path, to: &std::path::Path| {
        assert!(std::process::Command::new("mv").args([from, to]).status().unwrap().success());
    };
    moved(&folder, &aside);
    // Nobody calls: a probe finds it out.
    until("a probe finds no token", || async { reasons(&vault).await[0]["reason"] == "token_absent" }).await;
    // The key is open.
    sign(&vault, &id).await.unwrap();
    moved(&aside, &folder);
    until("the probe finds it again", || async { reasons(&vault).await.as_array().is_none_or(Vec::is_empty) }).await;

    moved(&folder, &aside);
    vault.restart();
    let away = problem(sign(&vault, &id).await);
    assert_eq!((away.code.as_str(), away.retryable), ("wrapper_unavailable", true));
    assert!(away.document["reason"] == "token_absent" && away.remedy.unwrap().contains("Insert the token"), "{}", away.document);
    moved(&aside, &folder);
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pin_is_final_and_the_right_one_is_used_at_once() {
    let tokens = Softhsm::with_tokens(&["canton"]);
    let mut vault = start(&tokens);
    let id = create(&vault).await;
    tokens.write_pin("0000");
    vault.restart();
    let refused = problem(sign(&vault, &id).await);
    assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_credentials_rejected", false));
    assert_eq!(refused.document["reason"], "pin_refused");
    tokens.write_pin(PIN);
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;
}

// --- helpers ---

/// A vault whose first wrapper key is in the token `canton`.
fn start(tokens: &Softhsm) -> TestVault {
    tokens.create_key("canton", "01", "wrapper");
    let wrapper = "provider = 'pkcs11'\nreference = 'pkcs11:token=canton;id=%01'\nprobe_interval = '2s'";
    let limits = "[wrapper.limits]\ntimeout = '4s'\nretries = 1\nbreaker_cooldown = '300ms'";
    let token = format!("[[wrapper.pkcs11]]\n{}", tokens.entry("canton"));
    let mut vault = TestVault::prepare(|config| {
        let (before, rest) = config.split_once("[wrapper]").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        format!("{before}[wrapper]\n{wrapper}\n{limits}\n{token}\n[log]{after}")
    });
    let (name, value) = tokens.environment();
    vault.env(name, &value);
    vault.serve();
    vault
}

/// A new Ed25519 key of `participant1`, as soon as there is a wrapper key.
async fn create(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    until("there is a wrapper key", || async {
        !vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"][0].is_null()
    })
    .await;
    vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sign(vault: &TestVault, id: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await
}
