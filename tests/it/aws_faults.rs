//! The response to a caller during each fault of KMS: the code, whether it is retryable, and the bounded time. No key is quarantined.
//! After the fault, the same call succeeds without a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    proxy::TcpProxy,
    vault::{problem, until},
    wrapper::CENTRAL,
};

const DENIED: (u16, &str, bool) = (502, "wrapper_denied", false);
const NOT_FOUND: (u16, &str, bool) = (502, "wrapper_key_not_found", false);
const MISCONFIGURED: (u16, &str, bool) = (502, "wrapper_misconfigured", false);
const UNAVAILABLE: (u16, &str, bool) = (503, "wrapper_unavailable", true);

#[tokio::test]
async fn every_fault_has_its_code_and_passes() {
    let aws = AwsVault::start(Setup::default()).await;
    for (fault, expected) in [
        (json!({ "mode": "denied" }), DENIED),
        (json!({ "mode": "missing" }), NOT_FOUND),
        (json!({ "mode": "garbage" }), MISCONFIGURED),
        (json!({ "mode": "throttle" }), UNAVAILABLE),
        (json!({ "mode": "internal" }), UNAVAILABLE),
        (json!({ "mode": "unavailable" }), UNAVAILABLE),
        (json!({ "mode": "drop" }), UNAVAILABLE),
        (json!({ "mode": "slow", "delay_ms": 4000 }), UNAVAILABLE),
    ] {
        let cold = aws.key().await;
        let mut fault = fault;
        fault["key"] = json!(aws.arn);
        aws.kms.fault(fault.clone()).await;
        refused_as(&aws, &cold, expected, &fault).await;
        aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
        recovers(&aws, &cold, &fault).await;
    }
}

#[tokio::test]
async fn a_kms_key_that_is_switched_off_is_a_denial_until_it_is_back() {
    let aws = AwsVault::start(Setup::default()).await;
    for (action, parameters) in [("DisableKey", json!({})), ("ScheduleKeyDeletion", json!({ "PendingWindowInDays": 7 }))] {
        let cold = aws.key().await;
        let mut parameters = parameters;
        parameters["KeyId"] = json!(aws.arn);
        aws.kms.call(CENTRAL, action, parameters).await;
        refused_as(&aws, &cold, DENIED, &json!(action)).await;
        aws.kms.call(CENTRAL, "CancelKeyDeletion", json!({ "KeyId": aws.arn })).await;
        aws.kms.call(CENTRAL, "EnableKey", json!({ "KeyId": aws.arn })).await;
        recovers(&aws, &cold, &json!(action)).await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_an_outage_that_passes() {
    let kms = crate::support::kms::Kms::shared().await;
    let line = TcpProxy::to(kms.endpoint().strip_prefix("http://").unwrap(), true);
    let aws = AwsVault::start(Setup { endpoint: Some(line.url()), ..Setup::default() }).await;
    let cold = aws.key().await;
    line.cut();
    refused_as(&aws, &cold, UNAVAILABLE, &json!("dead endpoint")).await;
    line.mend();
    recovers(&aws, &cold, &json!("dead endpoint")).await;
}

/// IAM may refuse one key's context: that says nothing of the wrapper key, nor of the vault.
#[tokio::test]
async fn a_refusal_that_concerns_one_key_leaves_the_vault_well() {
    let aws = AwsVault::start(Setup::default()).await;
    let (refused, other) = (aws.key().await, aws.key().await);
    aws.kms.fault(json!({ "mode": "denied", "only": "Decrypt", "key": aws.arn, "count": 1 })).await;
    assert_eq!(aws.refused(&refused).await.code, "wrapper_denied");
    assert!(aws.is_ready(200, &[]).await, "{:?}", aws.readyz().await);
    aws.sign(&other).await.unwrap();
    until("its refusal is forgotten", || async { aws.sign(&refused).await.is_ok() }).await;
}

async fn refused_as(aws: &AwsVault, cold: &str, expected: (u16, &str, bool), fault: &Value) {
    let began = Instant::now();
    let found = aws.refused(cold).await;
    assert_eq!((found.status, found.code.as_str(), found.retryable), expected, "{fault}: {}", found.detail);
    // The 4 s of a call, and what a busy machine adds.
    assert!(began.elapsed() < Duration::from_secs(12), "{fault}: {:?}", began.elapsed());
    let created = problem(aws.create().await);
    assert_eq!((created.status, created.code.as_str(), created.retryable), expected, "{fault}: {}", created.detail);
    until("the vault says so", || async { aws.is_ready(503, &[expected.1]).await }).await;

    assert_eq!(aws.state(cold).await, "active", "{fault}: no fault of the KMS is held against a key");
    let quarantined: u32 = aws.vault.database().query_row("SELECT count(*) FROM wraps WHERE quarantined", [], |row| row.get(0)).unwrap();
    assert_eq!(quarantined, 0, "{fault}");
    let entry = aws.entries("keys.sign", Some(cold)).await.remove(0);
    assert_eq!((&entry["outcome"], &entry["reason"]), (&json!("failed"), &json!(expected.1)), "{fault}");
}

/// Restarts nothing, and empties the memory of the keys that worked, so that the next fault finds none.
async fn recovers(aws: &AwsVault, cold: &str, fault: &Value) {
    let signs = || async {
        // Refusals beyond 20 a second are only counted, and the next fault looks for an entry of its own.
        tokio::time::sleep(Duration::from_millis(100)).await;
        aws.sign(cold).await.is_ok()
    };
    until(&format!("{fault} is over"), signs).await;
    until(&format!("{fault} is over, and told"), || async { aws.is_ready(200, &[]).await }).await;
    aws.vault.client("key-admin").post(&format!("/v1/keys/{cold}/disable"), &json!({})).await.unwrap();
}
