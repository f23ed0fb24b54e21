//! The health of several wrapper keys, one by one, and the condition under which the vault as a whole is not ready.

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::until,
    wrapper::CENTRAL,
};

/// A vault with a standby wrapper key besides its active one; gives the ids and ARNs of both.
async fn two_wrapper_keys() -> (AwsVault, [String; 2], [String; 2]) {
    let aws = AwsVault::start(Setup::default()).await;
    let standby = aws.kms.create_key(CENTRAL, false).await;
    let admin = aws.vault.client("wrapper-admin");
    let added = admin.create("/v1/wrapper-keys", &json!({ "provider": "aws-kms", "reference": standby })).await.unwrap();
    assert_eq!((&added["state"], &added["health"]), (&json!("standby"), &json!("ok")), "it has just proved itself");
    let first = admin.get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].as_str().unwrap().to_owned();
    let ids = [first, added["id"].as_str().unwrap().to_owned()];
    let arns = [aws.arn.clone(), standby];
    (aws, ids, arns)
}

async fn shown(aws: &AwsVault, id: &str) -> Value {
    aws.vault.client("auditor").get(&format!("/v1/wrapper-keys/{id}")).await.unwrap()
}

async fn switch(aws: &AwsVault, action: &str, arn: &str) {
    aws.kms.call(CENTRAL, action, json!({ "KeyId": arn })).await;
}

#[tokio::test]
async fn a_disabled_standby_wrapper_key_is_reported_and_so_is_its_recovery() {
    let (mut aws, ids, arns) = two_wrapper_keys().await;
    let key = aws.key().await;
    aws.vault.kill();
    switch(&aws, "DisableKey", &arns[1]).await;
    aws.vault.serve();
    until("it is noticed by its canary", || async { aws.is_ready(200, &["wrapper_denied"]).await }).await;
    let (active, standby) = (shown(&aws, &ids[0]).await, shown(&aws, &ids[1]).await);
    assert_eq!((&active["health"], active.get("fault")), (&json!("ok"), None));
    assert_eq!(standby["health"], "failing");
    let fault = standby["fault"].as_str().unwrap();
    assert!(fault.contains("disabled") && fault.contains(&arns[1]), "{fault}");
    let listed = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    assert_eq!((&listed["items"][0]["health"], &listed["items"][1]["health"]), (&json!("ok"), &json!("failing")));
    let status = aws.vault.client("participant1").get("/v1/status").await.unwrap();
    assert_eq!((&status["ready"], &status["degraded"]), (&json!(true), &json!(true)));
    aws.sign(&key).await.unwrap();

    switch(&aws, "EnableKey", &arns[1]).await;
    until("its return is noticed", || async { aws.is_ready(200, &[]).await }).await;
    assert_eq!(shown(&aws, &ids[1]).await["health"], "ok");
}

#[tokio::test]
async fn the_vault_is_of_no_use_only_when_no_wrapper_key_works() {
    let (mut aws, ids, arns) = two_wrapper_keys().await;
    let key = aws.key().await;
    aws.vault.kill();
    switch(&aws, "DisableKey", &arns[0]).await;
    aws.vault.serve();
    until("one is left", || async { aws.is_ready(200, &["wrapper_denied"]).await }).await;
    assert_eq!(shown(&aws, &ids[0]).await["health"], "failing");
    assert_eq!(aws.refused(&key).await.code, "wrapper_denied", "whatever wrap it has under the other one");

    aws.kms.fault(json!({ "mode": "drop", "key": arns[1] })).await;
    aws.vault.restart();
    let both = ["wrapper_denied", "wrapper_unavailable"];
    until("none is left, and no key is open", || async { aws.is_ready(503, &both).await }).await;

    aws.kms.fault(json!({ "mode": "none", "key": arns[1] })).await;
    switch(&aws, "EnableKey", &arns[0]).await;
    until("both are back", || async { aws.is_ready(200, &[]).await }).await;
    aws.sign(&key).await.unwrap();
}
