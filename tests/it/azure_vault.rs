//! A vault on the doubles of Azure Key Vault and Managed HSM from outside: it signs again after a restart, moves between the two and from a file, and knows
//! why it cannot.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{crypto::SystemRandom, kms::create_key_file};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::reasons,
    azure_key_vault::{AzureKeyVault, HSM, VAULT},
    jobs::{rotated, wraps},
    vault::{TestVault, problem, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_moves_from_a_file_to_key_vault_and_to_a_managed_hsm_and_signs_after_each_restart() {
    let (cloud, hsm, folder) = (AzureKeyVault::new(VAULT), AzureKeyVault::new(HSM), tempfile::tempdir().unwrap());
    let file = folder.path().join("wrapper.key");
    create_key_file(&file, &SystemRandom::default()).unwrap();
    let wrapper = format!("provider = 'local'\nreference = {file:?}\nallowed = [{file:?}, 'azure:*.*.azure.net:*']");
    let mut vault = start(&wrapper, &[&cloud, &hsm]);
    let id = create(&vault).await;
    let mut before = active(&vault).await;
    for azure in [&cloud, &hsm] {
        let reference = azure.service().create_key();
        let body = json!({ "provider": "azure-key-vault", "reference": reference });
        let made = vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap();
        let to = made["id"].as_str().unwrap().to_owned();
        rotated(&vault, &to).await;
        let retired = vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/{before}/retire"), &json!({})).await.unwrap();
        assert_eq!(retired["state"], "retired", "{retired}");
        vault.restart();
        sign(&vault, &id).await.unwrap();
        assert_eq!(wraps(&vault, &id).await, std::slice::from_ref(&to));

        // The entry of the signature has the correlation id of the request, as the log of Azure has it.
        let path = format!("/v1/audit/entries?operation=keys.sign&key_id={id}");
        let entries = vault.client("auditor").get(&path).await.unwrap();
        let of_key =
            entries["items"].as_array().unwrap().iter().flat_map(|entry| entry["kms_request_ids"].as_array().into_iter().flatten());
        let sent = azure.service().requests("");
        assert!(of_key.filter_map(Value::as_str).any(|id| sent.iter().any(|sent| sent == id)), "{entries:#}");
        before = to;
    }
    let check = vault.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    let servers = lines.as_array().unwrap().iter().filter(|line| line["check"] == "KMS server").collect::<Vec<_>>();
    assert!(servers.len() == 2 && servers.iter().all(|line| line["ok"] == true), "{servers:?}");
    let log = format!("{:?}", vault.log());
    assert!(!log.contains("eyJ0.double") && !log.contains("client~secret"), "the log has no token and no secret");
    assert!(vault.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_and_a_refused_login_have_reasons_of_their_own() {
    let azure = AzureKeyVault::new(VAULT);
    let reference = azure.service().create_key();
    let mut vault = start(&format!("provider = 'azure-key-vault'\nreference = {reference:?}"), &[&azure]);
    let id = create(&vault).await;
    azure.service().set_enabled(&reference, 1, false);
    // Nobody calls: a probe finds it out.
    until("a probe is denied", || async { reasons(&vault).await[0]["reason"] == "key_disabled" }).await;
    azure.service().set_enabled(&reference, 1, true);
    until("the probe opens its canary", || async { reasons(&vault).await.as_array().is_none_or(Vec::is_empty) }).await;
    azure.write("secret", "another-secret");
    vault.restart();
    let refused = problem(sign(&vault, &id).await);
    assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_credentials_rejected", false));
    assert_eq!(refused.document["reason"], "login_refused");
}

// --- helpers ---

fn start(wrapper: &str, vaults: &[&AzureKeyVault]) -> TestVault {
    let limits =
        "[wrapper.limits]\nconnect_timeout = '5s'\nattempt_timeout = '5s'\ntimeout = '12s'\nretries = 1\nbreaker_cooldown = '300ms'";
    let jobs = "[jobs]\nkeys_per_second = 1000\nretry_backoff = \"100ms\"";
    let sections = vaults.iter().map(|vault| format!("[[wrapper.azure_key_vault]]\n{}\n", vault.section())).collect::<Vec<_>>().concat();
    let mut vault = TestVault::prepare(|config| {
        let (before, rest) = config.split_once("[wrapper]").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        format!("{before}[wrapper]\n{wrapper}\nprobe_interval = '2s'\n{limits}\n{sections}{jobs}\n[log]{after}")
    });
    vault.serve();
    vault
}

async fn active(vault: &TestVault) -> String {
    let listed = vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    listed["items"][0]["id"].as_str().unwrap().to_owned()
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
