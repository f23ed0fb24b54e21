//! Names of wrapper keys: given at registration or later, found by commands, in the chain of state changes, and there again after a restart.

use canton_keyvault::{client::percent_encoded, domain::ProviderKind};
use serde_json::{Value, json};

use crate::{
    audit_sinks::stored,
    support::{
        jobs::{active, wrapper_key},
        vault::{TestVault, problem},
    },
};

#[tokio::test]
async fn a_name_is_in_the_chain_and_commands_take_it() {
    let mut vault = TestVault::start();
    let first = active(&vault).await;
    let admin = |vault: &TestVault| vault.client("wrapper-admin");
    let new = json!({ "provider": ProviderKind::Local, "create": true, "name": "spare" });
    let second = admin(&vault).create("/v1/wrapper-keys", &new).await.unwrap();
    assert_eq!(second["name"], "spare");
    let rename = |id: &str, name: Value| {
        let (client, path) = (admin(&vault), format!("/v1/wrapper-keys/{}/name", percent_encoded(id)));
        async move { client.post(&path, &json!({ "name": name })).await }
    };
    assert_eq!(rename(&first, json!("central-2026")).await.unwrap()["name"], "central-2026");
    // The same again is a read, which changes no state.
    rename(&first, json!("central-2026")).await.unwrap();
    for wrong in ["wk-000000000001", "two words", ""] {
        assert_eq!(problem(rename(&first, json!(wrong)).await).status, 400, "{wrong}");
    }
    assert_eq!(problem(rename("wk-000000000000", json!("x")).await).code, "not_found");

    let lines = stored(&vault.database());
    let entries = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let named: Vec<Value> = entries.filter(|entry| entry["wrapper_keys"][0]["name"].is_string()).collect();
    let of = |entry: &Value| (entry["operation"].clone(), entry["wrapper_keys"][0]["id"].clone(), entry["wrapper_keys"][0]["name"].clone());
    assert_eq!(
        named.iter().map(of).collect::<Vec<_>>(),
        [
            (json!("wrapper-keys.add"), second["id"].clone(), json!("spare")),
            (json!("wrapper-keys.rename"), json!(first), json!("central-2026"))
        ]
    );
    assert_eq!(named[1]["subject"], format!("{first} \"central-2026\""));

    let shown = |vault: &TestVault, name: &str| {
        let pki = |file: &str| vault.path(&format!("pki/{file}"));
        let mut command = vault.command(&["wrapper", "show", name, "--output", "json"]);
        command.env("KEYVAULT_URL", vault.url()).env("KEYVAULT_CA", pki("ca.pem"));
        command.env("KEYVAULT_CERT", pki("wrapper-admin.pem")).env("KEYVAULT_KEY", pki("wrapper-admin.key"));
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap_or_default()["id"].clone()
    };
    assert_eq!(shown(&vault, "central-2026"), json!(first));
    vault.restart();
    assert_eq!((shown(&vault, "central-2026"), shown(&vault, "spare")), (json!(first), second["id"].clone()));
    assert_eq!(wrapper_key(&vault, &first).await["name"], "central-2026");

    // A name is in the log only. An operator who accepts a broken chain keeps the names in the newest entries that can be read.
    admin(&vault).post(&format!("/v1/wrapper-keys/{first}/name"), &json!({ "name": "central-2027" })).await.unwrap();
    vault.kill();
    vault.database().execute("UPDATE meta SET store_revision = store_revision + 1", []).unwrap();
    assert!(vault.refuses_to_serve().contains("--accept-state"));
    vault.serve_with(&["--accept-state"]);
    assert_eq!(shown(&vault, "central-2027"), json!(first));
    vault.restart();
    assert_eq!((shown(&vault, "central-2027"), shown(&vault, "spare")), (json!(first), second["id"].clone()));
    assert_eq!(shown(&vault, "central-2026"), Value::Null);

    admin(&vault).post(&format!("/v1/wrapper-keys/{first}/name"), &json!({ "name": null })).await.unwrap();
    vault.kill();
    vault.database().execute("UPDATE meta SET store_revision = store_revision + 1", []).unwrap();
    vault.serve_with(&["--accept-state"]);
    assert!(wrapper_key(&vault, &first).await.get("name").is_none());
    assert_eq!(wrapper_key(&vault, second["id"].as_str().unwrap()).await["name"], "spare");
}
