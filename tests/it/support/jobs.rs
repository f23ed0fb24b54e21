//! Starts jobs from outside and waits for them.

use serde_json::{Value, json};

use super::vault::{TestVault, until};

/// Makes a further wrapper key in a file, and gives its id.
pub(crate) async fn new_wrapper_key(vault: &TestVault) -> String {
    let made = vault.client("wrapper-admin").create("/v1/wrapper-keys", &json!({ "provider": "local", "create": true })).await.unwrap();
    made["id"].as_str().unwrap().to_owned()
}

/// The id of the active wrapper key.
pub(crate) async fn active(vault: &TestVault) -> String {
    vault.client("wrapper-admin").get("/v1/status").await.unwrap()["active_wrapper"].as_str().unwrap().to_owned()
}

/// A wrapper key as the API shows it.
pub(crate) async fn wrapper_key(vault: &TestVault, id: &str) -> Value {
    vault.client("wrapper-admin").get(&format!("/v1/wrapper-keys/{id}")).await.unwrap()
}

/// Starts a rotation and gives the job.
pub(crate) async fn rotate(vault: &TestVault, to: &str) -> Value {
    vault.client("wrapper-admin").post("/v1/wrapper-keys/rotations", &json!({ "to": to })).await.unwrap()
}

/// Waits for the end of a job, and gives it.
pub(crate) async fn ended(vault: &TestVault, job: &Value) -> Value {
    let (principal, path) = match job["kind"].as_str().unwrap() {
        "rotation" => ("wrapper-admin", "/v1/wrapper-keys/rotations"),
        _ => ("key-admin", "/v1/keys/reseals"),
    };
    let (client, path) = (vault.client(principal), format!("{path}/{}", job["id"].as_str().unwrap()));
    until("the job ends", || async { client.get(&path).await.unwrap()["state"] != "running" }).await;
    client.get(&path).await.unwrap()
}

/// Rotates, and waits until every key is done.
pub(crate) async fn rotated(vault: &TestVault, to: &str) -> Value {
    let job = ended(vault, &rotate(vault, to).await).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    job
}

/// The wrapper keys that a key has wraps under, oldest wrap first.
pub(crate) async fn wraps(vault: &TestVault, key: &str) -> Vec<String> {
    let shown = vault.client("auditor").get(&format!("/v1/keys/{key}")).await.unwrap();
    shown["wraps"].as_array().unwrap().iter().map(|wrap| wrap["wrapper_key"].as_str().unwrap().to_owned()).collect()
}
