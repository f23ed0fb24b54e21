//! A vault without a wrapper key: `serve` ends with the reason and the fix if only another configuration can help, and otherwise says what it
//! waits for, in few log lines.

use serde_json::json;

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::{TestVault, until},
    wrapper::{CENTRAL, WEST},
};

/// What `serve` printed when it refused to start, which has this sentence and this fix.
fn refused(vault: &TestVault, sentence: &str, fix: &str) {
    let printed = vault.refuses_to_serve();
    for text in ["there is no wrapper key yet", "correct the configuration, then restart the vault", sentence, fix] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    assert!(!printed.contains("\"listening\""), "{printed}");
}

#[tokio::test]
async fn a_mistake_in_the_configuration_ends_the_start() {
    for (from, to, sentence, fix) in [
        ("allowed = [\"wrapper.key\", ", "allowed = [", "matches no pattern of [wrapper] allowed", "add it to [wrapper] allowed"),
        ("reference = \"wrapper.key\"", "reference = \"wrapper-1.key\"", "the key does not exist", "the name in the reference"),
        // The key of another provider.
        ("reference = \"wrapper.key\"", "reference = \"arn:aws:kms:eu-central-1:123456789012:key/1\"", "is not allowed", "add it to"),
    ] {
        let vault = TestVault::prepare(|config| {
            assert!(config.contains(from), "{from}");
            config.replace(from, to)
        });
        refused(&vault, sentence, fix);
        // The lock is free and the log has its end.
        let (entries, stops): (i64, i64) = vault
            .database()
            .query_row("SELECT count(*), sum(operation = 'vault.stop') FROM audit_log", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!((entries, stops), (2, 1), "a start and a stop: {to}");
    }
}

#[tokio::test]
async fn a_wrong_region_account_or_kind_ends_the_start() {
    let central = AwsVault::prepare(Setup::default()).await;
    let elsewhere = central.arn.replace(CENTRAL, WEST);
    let signing = central.kms.create(CENTRAL, json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY" })).await;
    let other_account = central.arn.replace(crate::support::wrapper::ACCOUNT, "999999999999");
    let file = AwsVault::prepare(Setup { reference: Some("/etc/keyvault/wrapper.key".into()), ..Setup::default() }).await;
    refused(&file.vault, "/etc/keyvault/wrapper.key", "");
    for (arn, wrapper, sentence) in [
        (elsewhere, "", "the key does not exist"),
        (central.arn.clone(), "regions = [\"us-east-1\"]", &*central.arn),
        (signing, "", "not a symmetric encryption key"),
        (other_account, "", "matches no pattern of [wrapper] allowed"),
    ] {
        let setup = Setup { arn: Some(arn), wrapper: wrapper.into(), ..Setup::default() };
        refused(&AwsVault::prepare(setup).await.vault, sentence, "");
    }
}

#[tokio::test]
async fn a_denial_is_waited_for_with_few_log_lines() {
    let mut aws = AwsVault::prepare(Setup::default()).await;
    aws.kms.fault(json!({ "mode": "denied", "key": aws.arn })).await;
    aws.vault.serve();
    let waiting = "a policy denies the call; the vault tries again until the KMS permits it";
    assert!(aws.is_ready(503, &["wrapper_denied"]).await, "{:?}", aws.readyz().await);
    assert_eq!(aws.readyz().await.1["reasons"][0]["detail"], format!("no wrapper key is registered yet: {waiting}"));
    let tries = || aws.kms.log(&aws.arn).len();
    let before = tries();
    until("it tries again and again", || async { tries() >= before + 3 }).await;
    let lines = aws.vault.log().iter().filter(|line| line.to_string().contains("there is no wrapper key yet")).count();
    assert_eq!(lines, 1, "{:#?}", aws.vault.log());
    assert!(aws.logged(&["there is no wrapper key yet", "the vault tries again until the KMS permits it"]));

    aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    until("it has a wrapper key", || async { aws.is_ready(200, &[]).await }).await;
    assert!(aws.logged(&["the first wrapper key is registered"]));
}
