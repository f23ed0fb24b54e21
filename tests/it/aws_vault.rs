//! A vault on AWS KMS from outside: every call names the key and its context, and the audit log has every request id.

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::{problem, until},
};

#[tokio::test]
async fn kms_and_the_log_name_each_other_and_a_restart_signs_again() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let created = aws.create().await.unwrap();
    let id = created["id"].as_str().unwrap().to_owned();
    aws.sign(&id).await.unwrap();
    aws.sign(&id).await.unwrap();
    aws.vault.restart();
    aws.sign(&id).await.unwrap();

    let calls = aws.kms_calls(&id);
    let actions: Vec<_> = calls.iter().map(|call| call["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["Encrypt", "Decrypt", "Decrypt", "Decrypt"], "wrap, its proof, the first signature, the one after the restart");
    let context = json!({ "version": "1", "vault": "dev", "node": "participant1", "key_id": id, "purpose": "signing",
        "spec": "ec-curve25519", "usages": "namespace,protocol", "class": "permanent", "origin": "generated", "exportable": "false" });
    for call in &calls {
        assert_eq!((&call["key_id"], &call["context"]), (&json!(aws.arn), &context));
    }
    let ids_of_kms: Vec<Value> = calls.iter().map(|call| call["request_id"].clone()).collect();
    let mut ids_in_log = Vec::new();
    for operation in ["keys.create", "keys.sign"] {
        for entry in aws.entries(operation, Some(&id)).await {
            ids_in_log.push(entry.get("kms_request_ids").cloned().unwrap_or(json!([])));
        }
    }
    assert_eq!(json!(ids_in_log), json!([ids_of_kms[..2], [ids_of_kms[2]], [], [ids_of_kms[3]]]));
}

#[tokio::test]
async fn facts_that_a_key_does_not_have_are_left_out_of_its_context() {
    let aws = AwsVault::start(Setup::default()).await;
    let new = json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256", "exportable": true });
    let created = aws.vault.client("key-admin").create("/v1/keys", &new).await.unwrap();
    let id = created["id"].as_str().unwrap();
    let context = &aws.kms_calls(id)[0]["context"];
    assert_eq!((context.get("usages"), &context["exportable"], &context["spec"]), (None, &json!("true"), &json!("aes-256")));
}

#[tokio::test]
async fn the_first_wrapper_key_is_proved_and_registered_with_its_entry() {
    let aws = AwsVault::start(Setup::default()).await;
    let listed = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    let key = &listed["items"][0];
    assert_eq!((&key["reference"], &key["state"], &key["keys"]), (&json!(aws.arn), &json!("active"), &json!(0)));
    let calls = aws.kms.log(&aws.arn);
    let described = calls.iter().find(|call| call["action"] == "DescribeKey").unwrap();
    let canary: Vec<_> = calls.iter().filter(|call| call["context"]["canary"] == key["id"]).collect();
    let entries = aws.entries("wrapper-keys.bootstrap", None).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["kms_request_ids"], json!([described["request_id"], canary[0]["request_id"], canary[1]["request_id"]]));
    assert!(entries[0]["subject"].as_str().unwrap().contains(key["id"].as_str().unwrap()));
}

/// What KMS refuses since the facts of a key were edited is a broken wrap, not a fault of the KMS.
#[tokio::test]
async fn a_wrong_context_is_refused_and_quarantines_the_key_alone() {
    let aws = AwsVault::start(Setup::default()).await;
    let (edited, other) = (aws.key().await, aws.key().await);
    aws.vault.database().execute("UPDATE keys SET class = 'long-term' WHERE id = ?1", [&edited]).unwrap();

    let first = aws.refused(&edited).await;
    assert_eq!((first.status, first.code.as_str(), first.retryable), (409, "key_quarantined", false));
    let refusal = aws.kms_calls(&edited).pop().unwrap();
    assert_eq!((&refusal["action"], &refusal["context"]["class"]), (&json!("Decrypt"), &json!("long-term")));
    let entry = aws.entries("keys.sign", Some(&edited)).await.pop().unwrap();
    assert_eq!((&entry["outcome"], &entry["reason"]), (&json!("failed"), &json!("key_quarantined")));

    until("the key is quarantined", || async { aws.state(&edited).await == "quarantined" }).await;
    let second = aws.refused(&edited).await;
    assert_eq!((second.status, second.code.as_str(), second.retryable), (409, "key_quarantined", false));
    assert!(!aws.entries("keys.quarantine", Some(&edited)).await.is_empty());
    aws.sign(&other).await.unwrap();
    assert!(aws.is_ready(200, &[]).await, "{:?}", aws.readyz().await);
}

#[tokio::test]
async fn a_data_key_of_another_key_opens_nothing() {
    let aws = AwsVault::start(Setup::default()).await;
    let (one, other) = (aws.key().await, aws.key().await);
    aws.vault
        .database()
        .execute("UPDATE wraps SET wrapped = (SELECT wrapped FROM wraps WHERE key = ?2) WHERE key = ?1", [&one, &other])
        .unwrap();
    assert_eq!(problem(aws.sign(&one).await).code, "key_quarantined");
    assert_eq!(aws.state(&one).await, "quarantined");
    aws.sign(&other).await.unwrap();
}
