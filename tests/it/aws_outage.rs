//! A vault during a KMS outage: open keys work, other calls get a retryable error, and everything recovers without a restart.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    aws_vault::{AwsVault, Setup, ops},
    kms::Kms,
    proxy::TcpProxy,
    vault::{problem, until},
    wrapper::CENTRAL,
};

async fn line(up: bool) -> TcpProxy {
    TcpProxy::to(Kms::shared().await.endpoint().strip_prefix("http://").unwrap(), up)
}

fn on(line: &TcpProxy, cache: &str) -> Setup {
    Setup { endpoint: Some(line.url()), sections: format!("[cache]\n{cache}"), ..Setup::default() }
}

#[tokio::test]
async fn keys_in_memory_outlive_the_outage_and_the_others_wait() {
    let line = line(true).await;
    let aws = AwsVault::start(on(&line, "")).await;
    let (hot, cold) = (aws.key().await, aws.key().await);
    aws.sign(&hot).await.unwrap();
    line.cut();
    for _ in 0..3 {
        let refused = aws.refused(&cold).await;
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (503, "wrapper_unavailable", true));
        aws.sign(&hot).await.unwrap();
    }
    assert!(aws.is_ready(200, &["wrapper_unavailable"]).await, "{:?}", aws.readyz().await);
    let status = aws.vault.client("auditor").get("/v1/status").await.unwrap();
    assert_eq!((&status["ready"], &status["degraded"]), (&json!(true), &json!(true)));

    line.mend();
    until("the vault is well again", || async { aws.is_ready(200, &[]).await }).await;
    aws.sign(&cold).await.unwrap();
}

#[tokio::test]
async fn residency_ends_what_an_outage_leaves() {
    let line = line(true).await;
    let aws = AwsVault::start(on(&line, "max_age = \"2s\"\nidle_timeout = \"2s\"")).await;
    let key = aws.key().await;
    aws.sign(&key).await.unwrap();
    line.cut();
    let began = Instant::now();
    until("max_age is over", || async { aws.sign(&key).await.is_err() }).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "it was in memory: {:?}", began.elapsed());
    assert_eq!(aws.refused(&key).await.code, "wrapper_unavailable");
    until("nothing can succeed, and that is told", || async { aws.is_ready(503, &["wrapper_unavailable"]).await }).await;
    line.mend();
    until("it opens again", || async { aws.sign(&key).await.is_ok() }).await;
    until("it is told", || async { aws.is_ready(200, &[]).await }).await;
}

#[tokio::test]
async fn a_key_in_use_is_refreshed_before_its_maximum_age() {
    let aws = AwsVault::start(Setup { sections: "[cache]\nmax_age = \"2s\"\nidle_timeout = \"2s\"".into(), ..Setup::default() }).await;
    let key = aws.key().await;
    aws.sign(&key).await.unwrap();
    let (opened, began) = (aws.count(&key, "Decrypt"), Instant::now());
    let again = || aws.count(&key, "Decrypt") - opened;
    until("it was refreshed twice", || async {
        aws.sign(&key).await.unwrap();
        again() >= 2
    })
    .await;
    // Every second or so, at half of the max_age.
    let (again, took) = (u64::try_from(again()).unwrap(), began.elapsed());
    assert!(again <= took.as_secs() + 2, "{again} in {took:?}");
}

#[tokio::test]
async fn a_hot_key_without_its_kms_is_not_tried_with_every_use() {
    let line = line(true).await;
    let aws = AwsVault::start(on(&line, "max_age = \"16s\"\nidle_timeout = \"16s\"")).await;
    let key = aws.key().await;
    aws.sign(&key).await.unwrap();
    line.cut();
    let (began, mut signed) = (Instant::now(), 0);
    while aws.sign(&key).await.is_ok() {
        signed += 1;
        assert!(began.elapsed() < Duration::from_secs(30), "its max_age never ends");
    }
    let tried = aws.vault.log().iter().filter(|line| line.to_string().contains("could not be refreshed")).count();
    // Half of the max_age, twice a second at most.
    assert!((1..=17).contains(&tried), "{tried} times in {signed} uses");
}

#[tokio::test]
async fn an_empty_vault_starts_without_kms_and_recovers() {
    let line = line(false).await;
    let aws = AwsVault::start(on(&line, "")).await;
    until("it says so", || async { aws.logged(&["there is no wrapper key yet"]) }).await;
    assert!(aws.is_ready(503, &["wrapper_unavailable"]).await, "{:?}", aws.readyz().await);
    let refused = problem(aws.create().await);
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (503, "wrapper_unavailable", true));
    let status = aws.vault.client("wrapper-admin").get("/v1/status").await.unwrap();
    assert_eq!((&status["ready"], status["active_wrapper"].is_null()), (&json!(false), true));

    line.mend();
    until("it has a wrapper key", || async { aws.is_ready(200, &[]).await }).await;
    let key = aws.key().await;
    aws.sign(&key).await.unwrap();
    assert!(aws.logged(&["the first wrapper key is registered"]));
    assert_eq!(aws.entries("wrapper-keys.bootstrap", None).await.len(), 1);
}

#[tokio::test]
async fn a_vault_with_keys_starts_without_kms_and_keys_can_be_disabled() {
    let line = line(true).await;
    let mut aws = AwsVault::start(on(&line, "")).await;
    let (kept, stopped) = (aws.key().await, aws.key().await);
    aws.vault.kill();
    line.cut();
    aws.vault.serve();

    let admin = aws.vault.client("key-admin");
    assert_eq!(admin.get("/v1/keys").await.unwrap()["items"].as_array().unwrap().len(), 2);
    let disabled = admin.post(&format!("/v1/keys/{stopped}/disable"), &json!({})).await.unwrap();
    assert_eq!(disabled["state"], "disabled");
    assert_eq!(aws.refused(&kept).await.code, "wrapper_unavailable");
    assert_eq!(aws.refused(&stopped).await.code, "key_disabled");
    let enable = problem(admin.post(&format!("/v1/keys/{stopped}/enable"), &json!({})).await);
    assert_eq!((enable.code.as_str(), enable.retryable), ("wrapper_unavailable", true), "enabling opens the key");
    until("it says so", || async { aws.is_ready(503, &["wrapper_unavailable"]).await }).await;

    line.mend();
    until("it recovers", || async { aws.sign(&kept).await.is_ok() }).await;
    admin.post(&format!("/v1/keys/{stopped}/enable"), &json!({})).await.unwrap();
    aws.sign(&stopped).await.unwrap();
}

#[tokio::test]
async fn the_metric_of_a_circuit_breaker_follows_the_time_without_a_call() {
    let line = line(true).await;
    let limits = "attempt_timeout = \"500ms\"\ntimeout = \"1s\"\nretries = 0\nbreaker_failures = 1\nbreaker_cooldown = \"2s\"";
    let aws = AwsVault::start(Setup { limits: Some(limits), ..on(&line, "") }).await;
    let cold = aws.key().await;
    let is = |value: u8| {
        let (vault, line) = (&aws.vault, format!("keyvault_kms_circuit_open{{region=\"{CENTRAL}\"}} {value}"));
        async move { ops(vault, "/metrics").await.1.lines().any(|shown| shown == line) }
    };
    assert!(is(0).await);
    line.cut();
    assert_eq!(aws.refused(&cold).await.code, "wrapper_unavailable");
    assert!(is(1).await, "it is open for a second at least");
    // The KMS is still away, and nothing but the time closes it.
    until("its pause has passed", || is(0)).await;
}
