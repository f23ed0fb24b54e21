//! Topology transactions shown and signed through the API and the command line; keys that sign nothing else.

use std::{fs, process::Output};

use canton_keyvault::{
    domain::Algorithm,
    topology::{TopologyTransaction, combined_hash},
};
use serde_json::{Value, json};

use crate::{
    canton_made::{items, text as field},
    known_bytes::{unbase64, unhex},
    support::{
        api::{Caller, id},
        vault::TestVault,
        verify::verify,
    },
};

fn topology(name: &str) -> &'static Value {
    items("topology").iter().find(|item| field(item, "name").starts_with(name)).unwrap()
}

fn prepared(name: &str) -> &'static str {
    field(topology(name), "prep_b64")
}

/// Imports a key pair that Canton made.
async fn import(vault: &TestVault, name: &str) -> String {
    let pair = items("key_pairs").iter().find(|pair| pair["name"] == name).unwrap();
    let body = json!({ "node": "participant1", "format": "canton-key-pair", "material": pair["export_b64"], "name": "the-root" });
    id(&Caller::new(vault, "key-admin").post("/v1/keys/import", &body).await.success())
}

async fn restrict(vault: &TestVault, key: &str, body: Value) -> crate::support::api::Reply {
    Caller::new(vault, "key-admin").post(&format!("/v1/keys/{key}/signing-restriction"), &body).await
}

fn cli(vault: &TestVault, principal: &str, arguments: &[&str]) -> Output {
    let options = vault.options(principal);
    let mut command = vault.command(arguments);
    command.args(["--url", &options.url]);
    command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_key_signs_only_what_was_decoded() {
    let mut vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    let sign = || async { node.post(&format!("/v1/keys/{key}/sign"), &json!({ "algorithm": "ed25519", "message": "aGVsbG8=" })).await };
    let sign_topology = |name: &str| {
        let (node, key, body) = (&node, &key, json!({ "transaction": prepared(name) }));
        async move { node.post(&format!("/v1/keys/{key}/sign-topology"), &body).await }
    };
    sign().await.success();
    sign_topology("trust-certificate/").await.success();

    let shown = restrict(&vault, &key, json!({ "topology_only": true, "mappings": ["namespace-delegation"] })).await.success();
    assert_eq!((&shown["state"], &shown["topology_only"]), (&json!("active"), &json!(true)));
    assert_eq!(shown["topology_mappings"], json!(["namespace-delegation"]));
    sign().await.refused(409, "topology_only");
    sign_topology("trust-certificate/").await.refused(409, "topology_only");
    let answer = sign_topology("root-delegation-ec-curve25519/").await.success();
    let item = topology("root-delegation-ec-curve25519/");
    assert_eq!((&answer["hash"], &answer["signature_format"]), (&item["hash_hex"], &json!("concat")));
    assert_eq!(answer["transactions"][0]["description"], item["description"]);
    let signature = unbase64(answer["signature"].as_str().unwrap());
    assert_eq!(json!(crate::known_bytes::hex(&signature)), item["signatures"][0]["signature_hex"], "Ed25519 is deterministic");

    // The entry says what was signed.
    let auditor = Caller::new(&vault, "auditor");
    let entries = auditor.log(&format!("&key_id={key}&operation=keys.sign-topology&outcome=ok")).await;
    let subject = entries.iter().filter_map(|entry| entry["subject"].as_str()).find(|subject| subject.contains("(root, all-mappings)"));
    assert!(subject.is_some_and(|subject| subject.contains(field(item, "hash_hex"))), "{entries:?}");

    // It outlives a restart, and only a key-admin removes it, with an entry.
    vault.restart();
    let node = Caller::new(&vault, "participant1");
    let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    node.post(&format!("/v1/keys/{key}/sign"), &body).await.refused(409, "topology_only");
    node.post(&format!("/v1/keys/{key}/signing-restriction"), &json!({ "topology_only": false })).await.refused(403, "forbidden");
    restrict(&vault, &key, json!({ "topology_only": false })).await.success();
    node.post(&format!("/v1/keys/{key}/sign"), &body).await.success();
    let entries = Caller::new(&vault, "auditor").log(&format!("&key_id={key}&operation=keys.restrict-signing&outcome=ok")).await;
    let mut states: Vec<&str> = entries.iter().filter_map(|entry| entry["state"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "active topology-only:namespace-delegation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_row_does_not_lift_the_restriction() {
    let mut vault = TestVault::start();
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    restrict(&vault, &key, json!({ "topology_only": true })).await.success();
    vault.terminate();
    assert_eq!(vault.database().execute("UPDATE keys SET lifecycle = 'active' WHERE id = ?1", [&key]).unwrap(), 1);
    vault.serve();
    let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    Caller::new(&vault, "participant1").post(&format!("/v1/keys/{key}/sign"), &body).await.refused(409, "key_quarantined");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_requests_are_refused_and_say_why() {
    let vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    let path = format!("/v1/keys/{key}/sign-topology");
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!({ "transaction": "", "transactions": [] }), 400, "invalid_request"),
        (json!({ "transactions": [] }), 400, "invalid_request"),
        (json!({ "transactions": vec![prepared("trust-certificate/"); 17] }), 400, "invalid_request"),
        (json!({ "transaction": "" }), 422, "invalid_topology"),
        (json!({ "transaction": "aGVsbG8=" }), 422, "invalid_topology"),
    ] {
        node.post(&path, &body).await.refused(status, code);
    }
    for item in items("topology_odd").iter().filter(|item| item["canton_reads"] == false) {
        node.post("/v1/topology/decode", &json!({ "transaction": item["prep_b64"] })).await.refused(422, "invalid_topology");
    }
    for body in [json!({ "topology_only": false, "mappings": ["namespace-delegation"] }), json!({ "topology_only": true, "mappings": [] })]
    {
        restrict(&vault, &key, body).await.refused(400, "invalid_request");
    }
    let symmetric = id(&node.create("participant1", "symmetric", "aes-256").await);
    restrict(&vault, &symmetric, json!({ "topology_only": true })).await.refused(422, "invalid_attributes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoded_transaction_names_the_keys_that_the_caller_may_see() {
    let vault = TestVault::start();
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    let body = json!({ "transaction": prepared("root-delegation-ec-curve25519/") });
    let seen = Caller::new(&vault, "participant1").post("/v1/topology/decode", &body).await.success();
    assert_eq!(seen["known_keys"], json!([{ "fingerprint": key, "name": "the-root" }]));
    let reasons = |answer: &Value| answer["warnings"].as_array().unwrap().iter().map(|one| one["reason"].clone()).collect::<Vec<_>>();
    assert_eq!(reasons(&seen), ["root-delegation"]);
    assert!(seen["text"].to_string().contains("(the-root)"), "{seen}");
    let unseen = Caller::new(&vault, "participant2").post("/v1/topology/decode", &body).await.success();
    assert_eq!((&unseen["known_keys"], &unseen["hash"]), (&json!([]), &seen["hash"]));
    assert_eq!(reasons(&unseen), ["unknown-key", "root-delegation"]);
}

/// The ceremony of Canton's documents with an offline root key: the `.cert` files are Canton's, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_the_cert_files_of_canton() {
    let vault = TestVault::start();
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    let of_this_key = items("topology").iter().filter(|item| {
        let signatures = item["signatures"].as_array().unwrap();
        signatures.len() == 1
            && signatures[0]["signed_by"] == json!(key)
            && signatures[0]["over"] == "transaction-hash"
            && item["proposal"] == false
    });
    let mut written = 0;
    for item in of_this_key {
        let (prep, cert) = (vault.path(&format!("{written}.prep")), vault.path(&format!("{written}.cert")));
        fs::write(&prep, unbase64(field(item, "prep_b64"))).unwrap();
        let output = cli(&vault, "participant1", &["canton", "sign-topology", &key, prep.to_str().unwrap(), "--yes"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains(field(item, "hash_hex")), "it is shown first");
        assert_eq!(fs::read(&cert).unwrap(), unbase64(field(item, "signed_b64")), "{}", item["name"]);
        written += 1;
    }
    assert!(written >= 10, "{written}");

    // Without a terminal and without --yes nothing is signed.
    let prep = vault.path("0.prep");
    let out = vault.path("not.cert");
    let arguments = ["canton", "sign-topology", &key, prep.to_str().unwrap(), "--cert-out", out.to_str().unwrap()];
    let output = cli(&vault, "participant1", &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!out.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signature_covers_several_files() {
    let vault = TestVault::start();
    let pair = items("key_pairs").iter().find(|pair| pair["name"] == "signing/ec-curve25519/namespace/0").unwrap();
    let key = import(&vault, "signing/ec-curve25519/namespace/0").await;
    let names = ["vetted-packages/", "trust-certificate/"];
    let files: Vec<String> = names.iter().map(|name| vault.path(&name.replace('/', ".prep")).to_str().unwrap().to_owned()).collect();
    for (name, file) in names.iter().zip(&files) {
        fs::write(file, unbase64(prepared(name))).unwrap();
    }
    let output = cli(&vault, "participant1", &["canton", "sign-topology", &key, &files[0], &files[1], "--yes", "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let body = json!({ "transactions": names.map(prepared) });
    let answer = Caller::new(&vault, "participant1").post(&format!("/v1/keys/{key}/sign-topology"), &body).await.success();
    let hashes = names.map(|name| TopologyTransaction::decode(&unbase64(prepared(name))).unwrap().hash());
    let combined = combined_hash(&hashes);
    assert_eq!(answer["hash"], json!(combined.to_string()));
    let signature = unbase64(answer["signature"].as_str().unwrap());
    assert!(verify(Algorithm::Ed25519, &unhex(field(pair, "spki_hex")), combined.as_bytes(), &signature));
    for file in &files {
        let cert = fs::read(file.replace(".prep", ".cert")).unwrap();
        assert!(cert.windows(64).any(|window| window == signature), "{file}");
    }
}

#[test]
fn transactions_are_shown_without_a_vault() {
    let vault = TestVault::prepare(|config| config);
    let prep = vault.path("root.prep");
    fs::write(&prep, unbase64(prepared("root-delegation-ec-curve25519/"))).unwrap();
    let output = vault.command(&["canton", "show", prep.to_str().unwrap(), "--offline"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(field(topology("root-delegation-ec-curve25519/"), "hash_hex")) && text.contains("WARNING (root-delegation)"),
        "{text}"
    );
    fs::write(&prep, b"no transaction").unwrap();
    let output = vault.command(&["canton", "show", prep.to_str().unwrap(), "--offline"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("root.prep"));
}
