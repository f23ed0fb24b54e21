//! A vault on OpenBao from outside: one wrapper key there, several kinds of KMS at once, and keys that move between them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{crypto::SystemRandom, wrapper::create_key_file};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{
    kms::Kms,
    openbao::{LEAST, Openbao, token_line, write_token},
    vault::{TestVault, problem, until},
    wrapper::{ACCOUNT, CENTRAL},
};

#[tokio::test]
async fn a_vault_on_openbao_signs_again_after_a_restart_and_its_log_names_each_request() {
    let server = Openbao::shared().await;
    let name = server.create_key(json!({})).await;
    let login = server.token_file().await;
    let mut vault = start(server, &login, &format!("provider = 'openbao-transit'\nreference = {:?}", server.url(&name)));
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
    assert_eq!(of_key.len(), 4, "the wrap, its proof, the first signature, the one after the restart");
    assert_eq!(of_key[0], wraps[1]);
    assert!(of_key[1..].iter().all(|id| unwraps.contains(id)), "{of_key:?} {unwraps:?}");

    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    let address = server.address();
    for (what, named) in [("wrapper key", &name), ("registered wrapper key", &name), ("OpenBao server", &address)] {
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == what).unwrap();
        assert_eq!(line["ok"], true, "{line}");
        assert!(line["detail"].as_str().unwrap().contains(named), "{line}");
    }
}

/// One who may use the wrapper key no more is told so; keys in memory go on, others come back with the right.
#[tokio::test]
async fn a_right_that_is_taken_is_wrapper_denied_and_a_sealed_server_is_wrapper_unavailable() {
    let server = Openbao::start().await;
    let name = server.create_key(json!({})).await;
    let policy = server.policy(&LEAST).await;
    let login = write_token(&server.token(json!({ "policies": [policy] })).await);
    let mut vault = start(&server, &login, &format!("provider = 'openbao-transit'\nreference = {:?}", server.url(&name)));
    let id = create(&vault).await;

    server.set_policy(&policy, &["encrypt", "keys"]).await;
    let denied = problem(sign(&vault, &id).await);
    assert_eq!((denied.code.as_str(), denied.retryable), ("wrapper_denied", false));
    server.set_policy(&policy, &LEAST).await;
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;

    server.seal().await;
    sign(&vault, &id).await.unwrap();
    vault.restart();
    let away = problem(sign(&vault, &id).await);
    assert_eq!((away.code.as_str(), away.retryable), ("wrapper_unavailable", true));
    server.unseal().await;
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;
    let state = vault.client("participant1").get(&format!("/v1/keys/{id}")).await.unwrap()["state"].clone();
    assert_eq!(state, "active", "nothing was called broken");
}

#[tokio::test]
async fn keys_move_from_aws_to_openbao_to_a_file_and_back() {
    let (kms, server) = (Kms::shared().await, Openbao::shared().await);
    let login = server.token_file().await;
    let (arn, name) = (kms.create_key(CENTRAL, false).await, server.create_key(json!({})).await);
    let mut vault = start(server, &login, &format!("provider = 'aws-kms'\nreference = {arn:?}\nendpoint = {:?}", kms.endpoint()));
    create_key_file(&vault.path("other.key"), &SystemRandom::default()).unwrap();
    let file = vault.path("other.key").display().to_string();
    let admin = vault.client("wrapper-admin");
    let first = admin.get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].clone();
    let mut keys = vec![create(&vault).await, create(&vault).await];

    let stops =
        [json!({ "provider": "openbao-transit", "reference": server.url(&name) }), json!({ "provider": "local", "reference": file })];
    let mut ids = vec![first.clone()];
    for stop in stops {
        ids.push(admin.create("/v1/wrapper-keys", &stop).await.unwrap()["id"].clone());
    }
    ids.push(first);
    for pair in ids.windows(2) {
        // It is somewhere else after each restart.
        let admin = vault.client("wrapper-admin");
        let job = admin.post("/v1/wrapper-keys/rotations", &json!({ "to": pair[1] })).await.unwrap();
        let path = format!("/v1/wrapper-keys/rotations/{}", job["id"].as_str().unwrap());
        until("the rotation ends", || async { admin.get(&path).await.unwrap()["state"] != "running" }).await;
        let job = admin.get(&path).await.unwrap();
        assert_eq!((&job["state"], &job["failed"]), (&json!("succeeded"), &json!(0)), "{job}");
        keys.push(create(&vault).await);
        vault.restart();
        for key in &keys {
            sign(&vault, key).await.unwrap();
        }
    }
    assert!(server.requests(&format!("transit/encrypt/{name}")).len() >= 3, "the canary, and a wrap of each key");
}

// --- helpers ---

/// A vault whose `[wrapper]` begins so, that allows what AWS, the server and files of its folder have.
fn start(server: &Openbao, login: &NamedTempFile, wrapper: &str) -> TestVault {
    let allowed = format!("allowed = [{ACCOUNT:?}, {:?}, 'other.key']", server.url("*"));
    let limits = "[wrapper.limits]\nattempt_timeout = '1500ms'\ntimeout = '4s'\nretries = 1\nbreaker_pause = '300ms'";
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
    for (name, value) in [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", CENTRAL)] {
        vault.env(name, value);
    }
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

async fn sign(vault: &TestVault, id: &str) -> Result<Value, canton_keyvault::cli::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await
}
