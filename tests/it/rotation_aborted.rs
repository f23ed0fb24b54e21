//! A rotation that ended before every key was done leaves the vault degraded, with the way to go on, until another rotation completes it.

use serde_json::json;

use crate::support::{
    aws_vault::{ops, reasons},
    jobs::{ended, new_wrapper_key, rotate},
    vault::{TestVault, until},
};

const KEYS: usize = 6;

async fn gauge(vault: &TestVault) -> u64 {
    let text = ops(vault, "/metrics").await.1;
    let line = text.lines().find_map(|line| line.strip_prefix("keyvault_keys_without_active_wrap ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn an_aborted_rotation_is_reported_until_another_one_completes_it() {
    let mut vault = TestVault::start_with(|config| config + "\n[jobs]\nkeys_per_second = 1\nconcurrency = 1\n");
    for _ in 0..KEYS {
        let new = json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" });
        vault.client("participant1").create("/v1/keys", &new).await.unwrap();
    }
    let admin = vault.client("wrapper-admin");
    let to = new_wrapper_key(&vault).await;
    let job = rotate(&vault, &to).await;
    assert_eq!(reasons(&vault).await, json!([]), "it runs");
    admin.post(&format!("/v1/wrapper-keys/rotations/{}/abort", job["id"].as_str().unwrap()), &json!({})).await.unwrap();
    let done = usize::try_from(ended(&vault, &job).await["done"].as_u64().unwrap()).unwrap();
    assert!(done < KEYS, "the test is too slow");

    let incomplete = async |vault: &TestVault| {
        let found = reasons(vault).await;
        if found[0]["code"] != "rotation_incomplete" {
            return false;
        }
        let detail = found[0]["detail"].as_str().unwrap();
        let (numbers, command) = (format!(" of {KEYS} keys have a verified wrap"), format!("wrapper rotation start --to {to} --wait"));
        assert!(detail.contains(&numbers) && detail.contains(&command) && detail.contains("no rotation runs"), "{detail}");
        true
    };
    until("the abort is reported", || incomplete(&vault)).await;
    until("the metric too", || async { gauge(&vault).await == (KEYS - done) as u64 }).await;
    let shown = admin.get(&format!("/v1/wrapper-keys/{to}")).await.unwrap();
    assert_eq!(shown["left"], json!(KEYS - done), "{shown}");
    assert!(shown["incomplete"].as_str().unwrap().contains(&to), "{shown}");

    let status = admin.get("/v1/status").await.unwrap();
    assert_eq!((&status["ready"], &status["degraded"]), (&json!(true), &json!(true)), "every key opens");
    assert_eq!(status["reasons"][0]["code"], "rotation_incomplete");

    // The commands show it.
    let url = vault.url().to_owned();
    let pem = |file: &str| vault.path(&format!("pki/{file}")).display().to_string();
    let printed = |arguments: &[&str]| {
        let (ca, cert, key) = (pem("ca.pem"), pem("wrapper-admin.pem"), pem("wrapper-admin.key"));
        let output = vault.command(arguments).args(["--url", &url, "--ca", &ca, "--cert", &cert, "--key", &key]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed(&["status"]).contains("rotation_incomplete"));
    let listed = printed(&["wrapper", "list"]);
    assert!(listed.lines().next().unwrap().to_lowercase().contains("left"), "{listed}");
    assert!(printed(&["wrapper", "show", &to]).contains("wrapper rotation start --to"));

    // A copy of the store that is started elsewhere shows it too, and logs it.
    vault.restart();
    until("it is reported after a start", || incomplete(&vault)).await;
    assert!(vault.log().iter().any(|line| line.to_string().contains("and no rotation runs")));

    let job = ended(&vault, &rotate(&vault, &to).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    until("the vault is whole again", || async { reasons(&vault).await == json!([]) && gauge(&vault).await == 0 }).await;
    let shown = vault.client("wrapper-admin").get(&format!("/v1/wrapper-keys/{to}")).await.unwrap();
    assert_eq!((&shown["left"], shown.get("incomplete")), (&json!(0), None), "{shown}");
}
