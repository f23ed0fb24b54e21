//! Re-seal: another data key, another generation, the same private key. An older sealed key does not open again.

use serde_json::{Value, json};

use crate::support::{
    jobs::{active, ended, new_wrapper_key, wraps},
    vault::{TestVault, problem, until},
};

fn quick(config: String) -> String {
    config + "\n[jobs]\nkeys_per_second = 10000\nretry_backoff = \"50ms\"\n"
}

async fn create(vault: &TestVault) -> Value {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vault.client("key-admin").create("/v1/keys", &new).await.unwrap()
}

async fn sign(vault: &TestVault, key: &str) -> Result<Value, canton_keyvault::client::ClientError> {
    let ask = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    vault.client("participant1").post(&format!("/v1/keys/{key}/sign"), &ask).await
}

#[tokio::test]
async fn a_resealed_key_is_the_same_key_under_another_data_key() {
    let mut vault = TestVault::start_with(quick);
    let key = create(&vault).await;
    let id = key["id"].as_str().unwrap();
    let before = sign(&vault, id).await.unwrap();
    let row = |vault: &TestVault| -> (Vec<u8>, i64, Vec<u8>) {
        let sql = "SELECT sealed, keys.generation, wrapped FROM keys JOIN wraps ON wraps.key = keys.id WHERE keys.id = ?1";
        vault.database().query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let (sealed, generation, wrapped) = row(&vault);
    let admin = vault.client("key-admin");
    let resealed = admin.post(&format!("/v1/keys/{id}/reseal"), &json!({})).await.unwrap();
    assert_eq!((&resealed["id"], &resealed["public_key"], &resealed["state"]), (&key["id"], &key["public_key"], &key["state"]));
    let (sealed_now, generation_now, wrapped_now) = row(&vault);
    assert_eq!((generation, generation_now, &key["generation"], &resealed["generation"]), (1, 2, &json!(1), &json!(2)));
    assert!(sealed != sealed_now && wrapped != wrapped_now);
    assert_eq!(sign(&vault, id).await.unwrap()["signature"], before["signature"], "Ed25519 is deterministic");
    vault.restart();
    assert_eq!(sign(&vault, id).await.unwrap()["signature"], before["signature"]);

    // An attacker with the old data key who restores the old row is detected by the log.
    vault
        .database()
        .execute("UPDATE keys SET sealed = ?2, generation = 1, revision = 1 WHERE id = ?1", rusqlite::params![id, sealed])
        .unwrap();
    vault.database().execute("UPDATE wraps SET wrapped = ?2, generation = 1 WHERE key = ?1", rusqlite::params![id, wrapped]).unwrap();
    vault.restart();
    assert_eq!(problem(sign(&vault, id).await).code, "key_quarantined");
}

#[tokio::test]
async fn all_keys_are_resealed_by_a_job_but_the_quarantined_which_it_names() {
    let vault = TestVault::start_with(quick);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(create(&vault).await["id"].as_str().unwrap().to_owned());
    }
    let admin = vault.client("key-admin");
    admin.post(&format!("/v1/keys/{}/disable", ids[3]), &json!({})).await.unwrap();
    vault.database().execute("UPDATE keys SET row_tag = zeroblob(32) WHERE id = ?1", [&ids[4]]).unwrap();
    assert_eq!(problem(sign(&vault, &ids[4]).await).code, "key_quarantined");
    let standby = new_wrapper_key(&vault).await;
    let job = admin.post("/v1/keys/reseals", &json!({})).await.unwrap();
    let job = ended(&vault, &job).await;
    assert_eq!((&job["kind"], &job["state"]), (&json!("reseal"), &json!("failed")), "{job}");
    assert_eq!((&job["total"], &job["done"], &job["failed"]), (&json!(5), &json!(4), &json!(1)), "{job}");
    assert_eq!((&job["errors"][0]["key_id"], &job["errors"][0]["code"]), (&json!(ids[4]), &json!("key_quarantined")));
    for id in &ids[..3] {
        sign(&vault, id).await.unwrap();
    }
    admin.post(&format!("/v1/keys/{}/enable", ids[3]), &json!({})).await.unwrap();
    sign(&vault, &ids[3]).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let of_job = vault.client("auditor").get(&format!("/v1/audit/entries?job={id}")).await.unwrap();
    let entries = of_job["items"].as_array().unwrap();
    let count = |operation: &str| entries.iter().filter(|entry| entry["operation"] == operation && entry["outcome"] == "ok").count();
    assert_eq!((count("reseals.start"), count("keys.reseal"), count("reseals.end")), (1, 4, 1), "the entries of a job name it: {of_job}");
    let generations: Vec<i64> = {
        let database = vault.database();
        let mut sql = database.prepare("SELECT generation FROM keys ORDER BY position").unwrap();
        sql.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(generations, [2, 2, 2, 2, 1]);
    // Standby wraps of the old data keys are gone, and made again of the new ones.
    let first = active(&vault).await;
    until("standby is filled again", || async { wraps(&vault, &ids[0]).await == [first.clone(), standby.clone()] }).await;
}
