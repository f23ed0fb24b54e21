//! `keys.verify` and the filters of the list of keys, on a vault: what a verification finds, and what it does not change.

use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id, without_limits},
    vault::TestVault,
};

async fn verify(caller: &Caller, key: &str) -> crate::support::api::Reply {
    caller.step(key, "verify").await
}

#[tokio::test]
async fn a_key_of_every_scheme_and_state_is_verified_and_stays_as_it_is() {
    let vault = without_limits();
    let (node, admin, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"), Caller::new(&vault, "auditor"));
    for (purpose, spec) in [
        ("signing", "ec-curve25519"),
        ("signing", "ec-p256"),
        ("signing", "ec-p384"),
        ("signing", "ec-secp256k1"),
        ("encryption", "ec-p256"),
        ("encryption", "rsa-2048"),
        ("symmetric", "aes-256"),
    ] {
        let key = id(&node.create("participant1", purpose, spec).await);
        let before = node.get(&format!("/v1/keys/{key}")).await.success();
        let verified = verify(&node, &key).await.success();
        assert_eq!(verified, json!({ "key_id": key, "state": "active", "wrapper_key": before["wraps"][0]["wrapper_key"] }), "{spec}");
        admin.step(&key, "disable").await.success();
        assert_eq!(verify(&admin, &key).await.success()["state"], "disabled", "{spec}");
        assert_eq!(admin.get(&format!("/v1/keys/{key}")).await.success()["state"], "disabled", "{spec}");
        let entries = auditor.log(&format!("&key_id={key}&operation=keys.verify")).await;
        assert_eq!(entries.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["ok", "ok"], "{spec}");
    }
}

#[tokio::test]
async fn an_imported_key_that_was_only_verified_can_be_withdrawn() {
    let vault = without_limits();
    let admin = Caller::new(&vault, "key-admin");
    let import = json!({ "node": "participant1", "format": "raw", "material": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=" });
    let key = id(&admin.post("/v1/keys/import", &import).await.success());
    verify(&admin, &key).await.success();
    admin.step(&key, "withdraw").await.success();
}

/// Also of a key that is open in the cache: only the stored form counts.
#[tokio::test]
async fn a_key_whose_stored_form_was_edited_is_not_verified() {
    let vault = without_limits();
    let node = Caller::new(&vault, "participant1");
    for edit in [
        "UPDATE keys SET sealed = zeroblob(length(sealed)) WHERE id = ?1",
        "UPDATE keys SET row_tag = zeroblob(32) WHERE id = ?1",
        "UPDATE keys SET public_key = (SELECT public_key FROM keys WHERE id != ?1 LIMIT 1) WHERE id = ?1",
    ] {
        node.signing_key("participant1").await;
        let key = node.signing_key("participant1").await;
        node.sign(&key).await.success();
        assert_eq!(vault.database().execute(edit, [&key]).unwrap(), 1);
        node.sign(&key).await.success();
        verify(&node, &key).await.refused(409, "key_quarantined");
        node.sign(&key).await.refused(409, "key_quarantined");
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn keys_are_listed_by_name_by_the_beginning_of_the_id_and_by_their_creation() {
    let vault: TestVault = without_limits();
    let (node, other, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "participant2"), Caller::new(&vault, "auditor"));
    let create = async |caller: &Caller, node: &str, name: &str| {
        let new = json!({ "node": node, "purpose": "signing", "spec": "ec-curve25519", "name": name });
        let key = caller.post("/v1/keys", &new).await.success();
        (id(&key), key["created_at"].as_str().unwrap().to_owned())
    };
    let (first, _) = create(&node, "participant1", "orders").await;
    let (second, at) = create(&node, "participant1", "order").await;
    let (foreign, _) = create(&other, "participant2", "orders").await;
    for (caller, query, expected) in [
        (&auditor, "name=orders".to_owned(), vec![&first, &foreign]),
        (&node, "name=orders".to_owned(), vec![&first]),
        (&node, "key=orders".to_owned(), vec![&first]),
        (&node, "name=Orders".to_owned(), vec![]),
        (&node, format!("key={}", &second[..16]), vec![&second]),
        (&node, format!("key={}", &foreign[..16]), vec![]),
        (&node, format!("name={}", &second[..16]), vec![]),
        (&node, format!("created_since={at}"), vec![&second]),
        (&node, format!("created_before={at}"), vec![&first]),
        (&auditor, "name=orders&node=participant2".to_owned(), vec![&foreign]),
    ] {
        assert_eq!(ids(&caller.get(&format!("/v1/keys?{query}")).await.success()), expected, "{query}");
    }
    // With pages as without.
    let page = auditor.get("/v1/keys?name=orders&limit=1").await.success();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&page), [&first]);
    assert_eq!(ids(&auditor.get(&format!("/v1/keys?name=orders&limit=1&cursor={cursor}")).await.success()), [&foreign]);
}
