//! A database of schema 2 that an earlier commit wrote: every key opens, and every public key, entry and leaf hash is unchanged.
//!
//! `fixtures/schema_2` holds the database, its two wrapper key files, and what the API of that commit answered. Never edit these files. A new
//! schema gets a new folder beside this one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::domain::Algorithm;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{vault::TestVault, verify::verify};

const MESSAGE: &[u8] = b"signed by this version";

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/schema_2").join(file)
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// A folder with a copy of the fixture. The reference of a local wrapper key is the path of its file, so it is adapted to the folder. It is
/// not authenticated: the identity is.
pub(crate) fn restored() -> TestVault {
    let vault = TestVault::prepare(|config| config);
    for file in ["keyvault.db", "wrapper.key", "wrapper-f01701fb76ce6660.key"] {
        fs::copy(fixture(file), vault.path(file)).unwrap();
        fs::set_permissions(vault.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let folder = format!("{}/", vault.folder().display());
    let changed = vault.database().execute("UPDATE wrapper_keys SET reference = replace(reference, '/fixture/', ?1)", [folder]).unwrap();
    assert_eq!(changed, 2);
    vault
}

/// The algorithm of a signing key.
fn algorithm(key: &Value) -> Algorithm {
    match key["spec"].as_str().unwrap() {
        "ec-curve25519" => Algorithm::Ed25519,
        "ec-p384" => Algorithm::EcdsaSha384,
        _ => Algorithm::EcdsaSha256,
    }
}

#[test]
fn every_key_of_an_earlier_version_opens() {
    let vault = restored();
    let copy = vault.path("keyvault.db");
    let verified = vault.command(&["verify-backup", copy.to_str().unwrap(), "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(verified.status.success(), "{report}");
    assert_eq!((&report["failed"], &report["opened"]), (&json!([]), &json!(expected()["keys"].as_array().unwrap().len())));
}

/// A key that an earlier version imported: its entries, which are in no chain, prove that it was never used.
#[tokio::test]
async fn an_imported_key_of_an_earlier_version_is_withdrawn() {
    let mut vault = restored();
    vault.serve();
    let expected = expected();
    let key = expected["keys"].as_array().unwrap().iter().find(|key| key["origin"] == "imported").unwrap();
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    let admin = vault.client("key-admin");
    assert_eq!(admin.post(&format!("{path}/withdraw"), &json!({})).await.unwrap()["state"], "pending-deletion");
    assert_eq!(admin.post(&format!("{path}/cancel-deletion"), &json!({})).await.unwrap()["state"], "active");
    let sign = json!({ "algorithm": algorithm(key).as_str(), "message": "aGVsbG8=" });
    vault.client("participant2").post(&format!("{path}/sign"), &sign).await.unwrap();
    let refused = admin.post(&format!("{path}/withdraw"), &json!({})).await.unwrap_err();
    assert!(refused.to_string().contains("key_was_used"), "{refused}");
}

#[tokio::test]
async fn keys_and_entries_of_an_earlier_version_are_unchanged() {
    let mut vault = restored();
    vault.serve();
    let (expected, auditor) = (expected(), vault.client("auditor"));

    let mut keys = auditor.get("/v1/keys").await.unwrap()["items"].take();
    for key in keys.as_array_mut().unwrap() {
        let mut wrapper_keys: Vec<Value> = key["wraps"].as_array_mut().unwrap().iter_mut().map(|wrap| wrap["wrapper_key"].take()).collect();
        wrapper_keys.sort_by_key(Value::to_string);
        key["wraps"] = Value::Array(wrapper_keys);
    }
    assert_eq!(keys, expected["keys"]);

    let mut entries = auditor.get("/v1/audit/entries?limit=1000").await.unwrap()["items"].take();
    let old = expected["entries"].as_array().unwrap();
    entries.as_array_mut().unwrap().truncate(old.len());
    assert_eq!(entries, expected["entries"]);

    let database = vault.database();
    for entry in old {
        let row = "SELECT entry, leaf FROM audit_entries WHERE sequence = ?1";
        let (bytes, leaf): (Vec<u8>, Vec<u8>) =
            database.query_row(row, [entry["sequence"].as_i64()], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        // RFC 6962 §2.1
        assert_eq!(leaf, Sha256::new().chain_update([0]).chain_update(&bytes).finalize().as_slice());
        assert_eq!(STANDARD.encode(&leaf), entry["leaf"]);
    }
}

#[tokio::test]
async fn keys_of_an_earlier_version_sign_and_decrypt() {
    let mut vault = restored();
    vault.serve();
    let expected = expected();
    let mut signed = 0;
    for key in expected["keys"].as_array().unwrap() {
        let (id, node) = (key["id"].as_str().unwrap(), key["node"].as_str().unwrap());
        let algorithm = algorithm(key);
        if key["purpose"] != "signing" {
            continue;
        }
        let request = json!({ "algorithm": algorithm.as_str(), "message": STANDARD.encode(MESSAGE) });
        let answer = vault.client(node).post(&format!("/v1/keys/{id}/sign"), &request).await;
        if key["state"] != "active" {
            answer.unwrap_err();
            continue;
        }
        let signature = STANDARD.decode(answer.unwrap()["signature"].as_str().unwrap()).unwrap();
        let public_key = STANDARD.decode(key["public_key"].as_str().unwrap()).unwrap();
        assert!(verify(algorithm, &public_key, MESSAGE, &signature), "{key}");
        signed += 1;
    }
    assert_eq!(signed, 8);

    let symmetric = expected["keys"].as_array().unwrap().iter().find(|key| key["purpose"] == "symmetric").unwrap();
    let path = format!("/v1/keys/{}/decrypt", symmetric["id"].as_str().unwrap());
    let request = json!({ "algorithm": "aes-256-gcm", "ciphertext": expected["ciphertext"] });
    let plaintext = vault.client("participant1").post(&path, &request).await.unwrap()["plaintext"].take();
    assert_eq!(STANDARD.decode(plaintext.as_str().unwrap()).unwrap(), expected["plaintext"].as_str().unwrap().as_bytes());
}
