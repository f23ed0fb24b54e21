//! The health of several wrapper keys, one by one, as calls and probes find it, and the condition under which the vault as a whole is not
//! ready.

use canton_keyvault::{crypto::SystemRandom, kms::create_key_file};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup, ops, reasons},
    vault::{TestVault, problem, until},
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
    // Both are probed at the same time, and the other answer can come later.
    until("the other one is probed too", || async { shown(&aws, &ids[0]).await["health"] != "unknown" }).await;
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

#[tokio::test]
async fn a_wrapper_key_that_is_disabled_while_nobody_calls_is_reported_within_the_probe_interval() {
    let setup = Setup { wrapper: "probe_interval = \"2s\"".into(), ..Setup::default() };
    let aws = AwsVault::start(setup).await;
    let (active, arn) = (first_id(&aws).await, aws.arn.clone());
    until("it works", || async { aws.is_ready(200, &[]).await && gauge(&aws, "active", "ok").await }).await;
    switch(&aws, "DisableKey", &arn).await;
    until("a probe notices", || async { aws.is_ready(503, &["wrapper_denied"]).await }).await;
    assert_eq!(shown(&aws, &active).await["health"], "failing");
    until("the metric follows", || async { gauge(&aws, "active", "failing").await }).await;
    let reason = &aws.readyz().await.1["reasons"][0];
    let expected = format!("{active} (active): the key is disabled; the vault tries again until the KMS permits it");
    assert_eq!(reason["detail"], expected.as_str(), "what, why, and what it waits for");
    assert!(!reason.to_string().contains("arn:"), "everybody can read it: {reason}");
    assert_eq!(aws.vault.client("auditor").get("/v1/status").await.unwrap()["reasons"][0], *reason);

    // Several probes later.
    let probes = || aws.kms.log(&arn).iter().filter(|call| call["action"] == "Decrypt").count();
    let before = probes();
    until("more probes", || async { probes() >= before + 2 }).await;
    let lines = aws.vault.log().iter().filter(|line| line.to_string().contains("a registered wrapper key does not work")).count();
    assert_eq!(lines, 1, "one line, however often it is probed");
    let calls = aws.kms.log(&arn);
    let decrypts = calls.iter().filter(|call| call["action"] == "Decrypt");
    assert!(decrypts.clone().all(|call| call["context"]["canary"] == active.as_str() && call["context"]["key_id"].is_null()), "{calls:#?}");

    switch(&aws, "EnableKey", &arn).await;
    until("its return is noticed", || async { aws.is_ready(200, &[]).await && aws.logged(&["the wrapper key works again"]) }).await;
}

#[tokio::test]
async fn probes_are_rare_and_do_not_open_a_circuit_breaker() {
    let setup = Setup { wrapper: "probe_interval = \"2s\"".into(), limits: Some("breaker_failures = 1"), ..Setup::default() };
    let aws = AwsVault::start(setup).await;
    let key = aws.key().await;
    aws.kms.fault(json!({ "mode": "denied", "key": aws.arn })).await;
    until("a probe is denied", || async { !aws.is_ready(200, &[]).await }).await;
    aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    // The breaker would refuse this call for 5 s, as wrapper_unavailable; a remembered denial lasts for one second.
    until("a use succeeds", || async {
        aws.sign(&key).await.map_err(|error| assert!(!error.to_string().contains("unavailable"), "{error}")).is_ok()
    })
    .await;
    let (began, before) = (std::time::Instant::now(), aws.kms.log(&aws.arn).len());
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let (took, calls) = (began.elapsed().as_secs_f64(), aws.kms.log(&aws.arn).len() - before);
    // At least one, and no more than two in an interval.
    let most = took + 2.0;
    assert!(calls >= 1 && f64::from(u32::try_from(calls).unwrap()) <= most, "{calls} calls in {took} s");
}

#[tokio::test]
async fn a_key_file_that_is_removed_or_replaced_is_reported_and_no_longer_used() {
    let vault = TestVault::start_with(|config| config.replace("[wrapper]\n", "[wrapper]\nprobe_interval = \"1s\"\n"));
    let client = vault.client("participant1");
    let create = async || client.create("/v1/keys", &json!({ "node": "participant1", "purpose": "symmetric", "spec": "aes-256" })).await;
    create().await.unwrap();
    let codes = async || {
        let found = reasons(&vault).await;
        found.as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (file, aside) = (vault.path("wrapper.key"), vault.path("aside"));
    std::fs::rename(&file, &aside).unwrap();
    until("a probe misses the file", || async { codes().await == ["wrapper_key_not_found"] }).await;
    assert_eq!(problem(create().await).code, "wrapper_key_not_found");
    create_key_file(&file, &SystemRandom::default()).unwrap();
    until("a probe finds another key", || async { codes().await == ["wrapper_misconfigured"] }).await;
    assert_eq!(problem(create().await).code, "wrapper_misconfigured");
    std::fs::rename(&aside, &file).unwrap();
    until("it is back", || async { codes().await.is_empty() }).await;
    create().await.unwrap();
}

async fn first_id(aws: &AwsVault) -> String {
    let listed = aws.vault.client("auditor").get("/v1/wrapper-keys").await.unwrap();
    listed["items"][0]["id"].as_str().unwrap().to_owned()
}

/// Whether exactly one wrapper key of this state has this health.
async fn gauge(aws: &AwsVault, state: &str, health: &str) -> bool {
    let line = format!("keyvault_wrapper_keys{{state=\"{state}\",health=\"{health}\"}} 1");
    ops(&aws.vault, "/metrics").await.1.contains(&line)
}
