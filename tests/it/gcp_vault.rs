//! A vault on the double of Cloud KMS from outside: it signs again after a restart, moves from and to a key in a file, and knows why it cannot.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{crypto::SystemRandom, kms::create_key_file};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::reasons,
    gcp_kms::GcpKms,
    jobs::{rotated, wraps},
    vault::{TestVault, problem, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_on_cloud_kms_signs_after_a_restart_and_moves_to_a_file_and_back() {
    let (google, folder) = (GcpKms::new(), tempfile::tempdir().unwrap());
    let (name, file) = (google.service().create_key(), folder.path().join("wrapper.key"));
    create_key_file(&file, &SystemRandom::default()).unwrap();
    let mut vault = start(&google, &name, file.to_str().unwrap());
    let id = create(&vault).await;
    sign(&vault, &id).await.unwrap();
    vault.restart();
    sign(&vault, &id).await.unwrap();

    // The entries of the key have the ids of the requests, as the log of Google has them.
    let sent = google.service().requests("");
    let mut of_key = Vec::new();
    for operation in ["keys.create", "keys.sign"] {
        let path = format!("/v1/audit/entries?operation={operation}&key_id={id}");
        for entry in vault.client("auditor").get(&path).await.unwrap()["items"].as_array().unwrap() {
            of_key.extend(entry["kms_request_ids"].as_array().into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(of_key.len(), 5, "the look at the key, the wrap, its proof, the first signature, the one after the restart: {of_key:?}");
    assert!(of_key.iter().all(|id| sent.contains(id)), "{of_key:?} {sent:?}");

    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    for (check, says) in
        [("KMS server", "the vault has an access token"), ("registered wrapper key", "opens its canary"), ("wrapper key posture", "")]
    {
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap();
        assert!(line["ok"] == true && line["detail"].as_str().unwrap().contains(says), "{line}");
    }
    assert!(!format!("{:?}", vault.log()).contains("ya29."), "the log has no access token");

    // Another credentials file takes effect without a restart, once the token is refused: here of workload identity federation.
    let token_file = google.file("projected-token");
    std::fs::write(&token_file, google.service().federation.subject()).unwrap();
    google.write_external_account(&json!({ "file": token_file }), true);
    google.service().revoke_tokens();
    until("the vault has a token by federation", || async { vault.client("participant1").create("/v1/keys", &new_key()).await.is_ok() })
        .await;
    assert_eq!(google.service().federation.exchanges(), 1);
    assert!(!format!("{:?}", vault.log()).contains("header.first"), "the log has no token of another issuer");

    let first = active(&vault).await;
    let to_file = register(&vault, "local", file.to_str().unwrap()).await;
    let back = register(&vault, "gcp-kms", &google.service().create_key()).await;
    for (from, to) in [(&first, &to_file), (&to_file, &back)] {
        rotated(&vault, to).await;
        let retired = vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/{from}/retire"), &json!({})).await.unwrap();
        assert_eq!(retired["state"], "retired", "{retired}");
        vault.restart();
        sign(&vault, &id).await.unwrap();
        assert!(wraps(&vault, &id).await.contains(to));
    }
    assert_eq!(wraps(&vault, &id).await, std::slice::from_ref(&back), "one wrap is left of the whole way");
    assert!(vault.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_version_and_a_missing_permission_are_wrapper_denied_until_they_end() {
    let google = GcpKms::new();
    let name = google.service().create_key();
    let mut vault = start(&google, &name, "/elsewhere/*");
    let id = create(&vault).await;
    google.service().set_state(&name, 1, "DISABLED");
    // Nobody calls: a probe finds it out.
    until("a probe is denied", || async { reasons(&vault).await[0]["reason"] == "key_disabled" }).await;
    google.service().set_state(&name, 1, "ENABLED");
    until("the probe opens its canary", || async { reasons(&vault).await.as_array().is_none_or(Vec::is_empty) }).await;
    google.service().deny("cloudkms.cryptoKeyVersions.useToDecrypt", true);
    vault.restart();
    let denied = problem(sign(&vault, &id).await);
    assert_eq!((denied.code.as_str(), denied.retryable), ("wrapper_denied", false));
    let names = denied.detail.contains("cloudkms.cryptoKeyVersions.useToDecrypt");
    assert!(denied.document["reason"] == "access_denied" && names, "{}", denied.document);
    google.service().deny("cloudkms.cryptoKeyVersions.useToDecrypt", false);
    until("it signs again", || async { sign(&vault, &id).await.is_ok() }).await;
}

// --- helpers ---

/// A vault whose first wrapper key is this one.
fn start(google: &GcpKms, name: &str, file: &str) -> TestVault {
    let wrapper =
        format!("provider = 'gcp-kms'\nreference = {name:?}\nallowed = ['gcp:canton-test:*:*:*', {file:?}]\nprobe_interval = '2s'");
    let limits =
        "[wrapper.limits]\nconnect_timeout = '5s'\nattempt_timeout = '5s'\ntimeout = '12s'\nretries = 1\nbreaker_cooldown = '300ms'";
    let jobs = "[jobs]\nkeys_per_second = 1000\nretry_backoff = \"100ms\"";
    let mut vault = TestVault::prepare(|config| {
        let (before, rest) = config.split_once("[wrapper]").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        format!("{before}[wrapper]\n{wrapper}\n{limits}\n[wrapper.gcp_kms]\n{}\n{jobs}\n[log]{after}", google.section())
    });
    vault.serve();
    vault
}

async fn active(vault: &TestVault) -> String {
    let listed = vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    listed["items"][0]["id"].as_str().unwrap().to_owned()
}

async fn register(vault: &TestVault, provider: &str, reference: &str) -> String {
    let body = json!({ "provider": provider, "reference": reference });
    vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// A new Ed25519 key of `participant1`, as soon as there is a wrapper key.
async fn create(vault: &TestVault) -> String {
    until("there is a wrapper key", || async {
        !vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"][0].is_null()
    })
    .await;
    vault.client("participant1").create("/v1/keys", &new_key()).await.unwrap()["id"].as_str().unwrap().to_owned()
}

fn new_key() -> Value {
    json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" })
}

async fn sign(vault: &TestVault, id: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await
}
