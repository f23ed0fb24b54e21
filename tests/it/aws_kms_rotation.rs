//! How `wrapper show` reports the rotation of key material by KMS, and which long-term keys are older.

use std::time::{Duration, Instant};

use canton_keyvault::domain::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::TestVault,
    wrapper::CENTRAL,
};

/// What showing the first wrapper key says of its KMS.
async fn kms(vault: &TestVault) -> Value {
    let client = vault.client("auditor");
    let listed = client.get("/v1/wrapper-keys").await.unwrap();
    assert_eq!(listed["items"][0].get("kms"), None, "a list asks nobody");
    let id = listed["items"][0]["id"].as_str().unwrap();
    client.get(&format!("/v1/wrapper-keys/{id}")).await.unwrap()["kms"].clone()
}

async fn long_term_key(aws: &AwsVault, class: &str) -> String {
    let usage: &[&str] = if class == "permanent" { &["namespace"] } else { &["protocol"] };
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "usage": usage, "class": class });
    aws.vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_that_was_never_rotated_says_so() {
    let aws = AwsVault::start(Setup::default()).await;
    long_term_key(&aws, "long-term").await;
    assert_eq!(kms(&aws.vault).await, json!({ "usable": true, "rotation": { "automatic": false } }));
    aws.kms.call(CENTRAL, "EnableKeyRotation", json!({ "KeyId": aws.arn, "RotationPeriodInDays": 180 })).await;
    let told = kms(&aws.vault).await;
    assert_eq!((&told["rotation"]["automatic"], &told["rotation"]["period_days"]), (&json!(true), &json!(180)));
    assert!(Timestamp::parse(told["rotation"]["next_at"].as_str().unwrap()).is_some());
    assert_eq!((told["rotation"].get("last_at"), told.get("long_term_keys_older"), told.get("reason")), (None, None, None));
}

#[tokio::test]
async fn long_term_keys_older_than_the_last_rotation_are_counted_and_listed() {
    let aws = AwsVault::start(Setup::default()).await;
    let older = [long_term_key(&aws, "long-term").await, long_term_key(&aws, "long-term").await];
    long_term_key(&aws, "permanent").await;
    for _ in 0..2 {
        aws.kms.call(CENTRAL, "RotateKeyOnDemand", json!({ "KeyId": aws.arn })).await;
    }
    let newer = long_term_key(&aws, "long-term").await;
    let told = kms(&aws.vault).await;
    assert_eq!((&told["rotation"]["last_kind"], &told["long_term_keys_older"]), (&json!("on-demand"), &json!(2)));
    let last = told["rotation"]["last_at"].as_str().unwrap();
    let path = format!("/v1/keys?class=long-term&created_before={last}");
    let listed = aws.vault.client("auditor").get(&path).await.unwrap();
    let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, older);
    assert!(!ids.contains(&newer));
    let permanent = aws.vault.client("participant1").get("/v1/keys?class=permanent").await.unwrap();
    assert_eq!(permanent["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_kms_does_not_report_is_absent_with_the_reason() {
    let aws = AwsVault::start(Setup::default()).await;
    for action in ["GetKeyRotationStatus", "ListKeyRotations"] {
        aws.kms.fault(json!({ "mode": "denied", "only": action, "key": aws.arn })).await;
        let told = kms(&aws.vault).await;
        assert_eq!((&told["usable"], told.get("rotation")), (&json!(true), None), "{action}");
        assert!(told["reason"].as_str().unwrap().contains("kms:ListKeyRotations"), "{action}: {told}");
        aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    }
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
    assert_eq!(kms(&aws.vault).await["usable"], false);
    aws.kms.call(CENTRAL, "EnableKey", json!({ "KeyId": aws.arn })).await;

    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 20000, "key": aws.arn })).await;
    let began = Instant::now();
    let told = kms(&aws.vault).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!((told.get("usable"), told.get("rotation")), (None, None));
    assert!(told["reason"].as_str().unwrap().contains("cannot be reached"), "{told}");
    aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    assert!(aws.is_ready(200, &[]).await, "what was only looked at says nothing of the vault: {:?}", aws.readyz().await);
}

#[tokio::test]
async fn a_key_file_is_usable_and_has_no_kms_rotation() {
    let vault = TestVault::start();
    assert_eq!(kms(&vault).await, json!({ "usable": true }));
}
