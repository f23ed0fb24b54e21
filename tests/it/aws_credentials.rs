//! Every source of AWS credentials that can be had on one machine, at the served binary: how it is configured, and when a change takes effect.
//! And each failure of credentials with its reason, from the binary's answers, `/readyz`, `wrapper show`, `check` and the log.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::{problem, until},
    wrapper::CENTRAL,
};

/// A vault that has no credentials in its environment, and nothing of the machine's.
async fn bare(setup: Setup) -> AwsVault {
    let mut aws = AwsVault::prepare(setup).await;
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        aws.vault.without_env(name);
    }
    let home = aws.vault.folder().display().to_string();
    aws.vault.env("HOME", &home);
    aws.vault.env("AWS_EC2_METADATA_DISABLED", "true");
    let endpoint = aws.kms.endpoint();
    for service in ["STS", "SSO", "SSO_OIDC"] {
        aws.vault.env(&format!("AWS_ENDPOINT_URL_{service}"), &endpoint);
    }
    fs::create_dir_all(aws.vault.path(".aws/sso/cache")).unwrap();
    aws
}

/// Replaces a file of the vault's folder, as `mv` does.
fn put(aws: &AwsVault, file: &str, text: &str) {
    let path = aws.vault.path(file);
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// Writes a program that prints credentials.
fn script(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn printed(access_key: &str, more: &str) -> String {
    format!("echo '{{\"Version\": 1, \"AccessKeyId\": \"{access_key}\", \"SecretAccessKey\": \"test\"{more}}}'")
}

/// The access key of the newest request for the vault's KMS key.
fn used(aws: &AwsVault) -> String {
    aws.kms.log(&aws.arn).last().map_or_else(String::new, |call| call["access_key"].as_str().unwrap_or_default().to_owned())
}

/// Creates keys, which calls KMS, until that is done with this access key. Every call must succeed.
async fn switches_to(aws: &AwsVault, access_key: &str) {
    until(access_key, || async {
        aws.create().await.unwrap_or_else(|error| panic!("{access_key}: {error}"));
        used(aws) == access_key
    })
    .await;
}

#[tokio::test]
async fn a_replaced_shared_file_is_used_within_a_second_and_without_a_restart() {
    let mut aws = bare(Setup::default()).await;
    let file = |key: &str| format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = test\n");
    put(&aws, ".aws/credentials", &file("AKIAFILE1"));
    aws.vault.serve();
    switches_to(&aws, "AKIAFILE1").await;
    put(&aws, ".aws/credentials", &file("AKIAFILE2"));
    switches_to(&aws, "AKIAFILE2").await;
    assert!(aws.logged(&["the shared AWS files changed"]) && aws.logged(&["AWS credentials loaded", "AKIAFILE2"]));
    assert!(!aws.logged(&["aws_secret_access_key"]));
}

/// The old credentials are refused before the file is replaced: no call fails after the replacement.
#[tokio::test]
async fn a_call_that_aws_refuses_is_repeated_with_the_credentials_of_a_changed_source() {
    let mut aws = bare(Setup::default()).await;
    let program = aws.vault.path("credentials.sh");
    script(&program, &printed("AKIAOLD", ""));
    put(&aws, ".aws/config", &format!("[default]\ncredential_process = {}\n", program.display()));
    aws.vault.serve();
    switches_to(&aws, "AKIAOLD").await;
    // Without an expiry, the process would be asked again after five minutes.
    script(&program, &printed("AKIANEW", ""));
    aws.kms.fault(json!({ "mode": "expired", "key": aws.arn, "access_key": "AKIAOLD" })).await;
    until("the credentials are a second old", || async { aws.create().await.is_ok() }).await;
    switches_to(&aws, "AKIANEW").await;
}

#[tokio::test]
async fn credential_process_is_asked_again_before_its_credentials_expire_and_keeps_its_output_secret() {
    let mut aws = bare(Setup::default()).await;
    let program = aws.vault.path("credentials.sh");
    let expiring = "'\"$(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)\"'";
    let answer = |key: &str| printed(key, &format!(", \"Expiration\": \"{expiring}\""));
    script(&program, &answer("AKIAPROC1"));
    put(&aws, ".aws/config", &format!("[profile vault]\ncredential_process = {}\n", program.display()));
    aws.vault.env("AWS_PROFILE", "vault");
    aws.vault.serve();
    switches_to(&aws, "AKIAPROC1").await;
    script(&program, &answer("AKIAPROC2"));
    switches_to(&aws, "AKIAPROC2").await;
    script(&program, "echo s3cret-words >&2; echo s3cret-words; exit 7");
    fails_as(&aws, "credential_process_failed", "with exit code 7").await;
    assert!(!aws.logged(&["s3cret-words"]));
    script(&program, &printed("AKIAPROC3", ""));
    recovers(&aws, "AKIAPROC3").await;
}

#[tokio::test]
async fn a_profile_with_a_role_assumes_it_with_the_credentials_of_its_source() {
    let mut aws = bare(Setup::default()).await;
    let program = aws.vault.path("credentials.sh");
    script(&program, &printed("AKIABASE", ""));
    aws.kms.source(json!({ "name": "vault-of-file", "access_key": "ASIAFILEROLE" })).await;
    aws.kms.source(json!({ "name": "vault-of-process", "access_key": "ASIAPROCROLE" })).await;
    let role = |name: &str, base: &str| format!("role_arn = arn:aws:iam::123456789012:role/{name}\nsource_profile = {base}\n");
    let config = |selected: &str| {
        format!(
            "[default]\nregion = {CENTRAL}\n{selected}\n[profile keys]\naws_access_key_id = AKIABASE0\naws_secret_access_key = test\n\
             [profile process]\ncredential_process = {}\n",
            program.display()
        )
    };
    put(&aws, ".aws/config", &config(&role("vault-of-file", "keys")));
    aws.vault.serve();
    switches_to(&aws, "ASIAFILEROLE").await;
    assert_eq!(aws.kms.source_log("vault-of-file")[0]["access_key"], "AKIABASE0");
    put(&aws, ".aws/config", &config(&role("vault-of-process", "process")));
    switches_to(&aws, "ASIAPROCROLE").await;
    assert_eq!(aws.kms.source_log("vault-of-process")[0]["access_key"], "AKIABASE");
    aws.kms.source(json!({ "name": "vault-refused", "refused": "AccessDenied" })).await;
    put(&aws, ".aws/config", &config(&role("vault-refused", "process")));
    aws.vault.restart();
    fails_as(&aws, "role_refused", "sts:AssumeRole").await;
}

#[tokio::test]
async fn web_identity_reads_its_token_anew_whenever_it_asks_sts() {
    let mut aws = bare(Setup::default()).await;
    let token = aws.vault.path("token").display().to_string();
    for (name, value) in [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa"),
        ("AWS_ROLE_SESSION_NAME", "vault"),
    ] {
        aws.vault.env(name, value);
    }
    put(&aws, "token", "jwt-one");
    aws.kms.source(json!({ "name": "irsa", "access_key": "ASIAIRSA1", "lifetime": 8, "token": "jwt-one" })).await;
    aws.vault.serve();
    switches_to(&aws, "ASIAIRSA1").await;
    put(&aws, "token", "jwt-two");
    aws.kms.source(json!({ "name": "irsa", "access_key": "ASIAIRSA2", "lifetime": 8, "token": "jwt-two" })).await;
    switches_to(&aws, "ASIAIRSA2").await;
    aws.kms.source(json!({ "name": "irsa", "refused": "ExpiredTokenException", "status": 400 })).await;
    fails_as(&aws, "web_identity_refused", "web identity token").await;
    aws.kms.source(json!({ "name": "irsa", "access_key": "ASIAIRSA3", "token": "jwt-two" })).await;
    recovers(&aws, "ASIAIRSA3").await;
}

#[tokio::test]
async fn container_credentials_read_their_authorization_token_anew() {
    let mut aws = bare(Setup::default()).await;
    let (uri, token) = (format!("{}/container/pod", aws.kms.endpoint()), aws.vault.path("pod-token").display().to_string());
    aws.vault.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri);
    aws.vault.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    put(&aws, "pod-token", "one");
    aws.kms.source(json!({ "name": "pod", "access_key": "ASIAPOD1", "lifetime": 8, "token": "one" })).await;
    aws.vault.serve();
    switches_to(&aws, "ASIAPOD1").await;
    put(&aws, "pod-token", "two");
    aws.kms.source(json!({ "name": "pod", "access_key": "ASIAPOD2", "lifetime": 8, "token": "two" })).await;
    switches_to(&aws, "ASIAPOD2").await;
    aws.kms.source(json!({ "name": "pod", "refused": "AccessDenied", "status": 401 })).await;
    fails_as(&aws, "credential_endpoint_refused", "container or instance credentials").await;
}

#[tokio::test]
async fn sso_uses_the_token_cache_of_the_command_line_and_reads_it_again_after_a_login() {
    let mut aws = bare(Setup::default()).await;
    let url = "https://sso.example/start";
    put(
        &aws,
        ".aws/config",
        &format!("[default]\nsso_start_url = {url}\nsso_region = {CENTRAL}\nsso_account_id = 123456789012\nsso_role_name = sso-role\n"),
    );
    aws.kms.source(json!({ "name": "sso-role", "access_key": "ASIASSO", "token": "sso-two" })).await;
    // The name of the file is the SHA-1 of the start URL.
    let cache = ".aws/sso/cache/1b3a35d4cb4ed2ea82f8f5cd7de5bc52e5c5c8a5.json";
    let found = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {url} | sha1sum | cut -d' ' -f1")).output().unwrap();
    let cache = cache.replace("1b3a35d4cb4ed2ea82f8f5cd7de5bc52e5c5c8a5", String::from_utf8(found.stdout).unwrap().trim());
    let login =
        |token: &str, expires: &str| json!({ "accessToken": token, "expiresAt": expires, "region": CENTRAL, "startUrl": url }).to_string();
    put(&aws, &cache, &login("sso-one", "2020-01-01T00:00:00Z"));
    aws.vault.serve();
    fails_as(&aws, "sso_login_ended", "login of AWS SSO").await;
    put(&aws, &cache, &login("sso-two", "2099-01-01T00:00:00Z"));
    recovers(&aws, "ASIASSO").await;
}

#[tokio::test]
async fn the_instance_metadata_are_used_if_nothing_else_is_configured() {
    let mut aws = bare(Setup::default()).await;
    aws.vault.without_env("AWS_EC2_METADATA_DISABLED");
    let endpoint = aws.kms.endpoint();
    aws.vault.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint);
    aws.kms.source(json!({ "name": "instance", "access_key": "ASIAINSTANCE1", "lifetime": 3600 })).await;
    aws.vault.serve();
    switches_to(&aws, "ASIAINSTANCE1").await;
}

#[tokio::test]
async fn a_vault_without_credentials_says_so_and_recovers_when_there_are_some() {
    let mut aws = bare(Setup::default()).await;
    let (check, ok) = check(&aws);
    assert!(!ok && check.contains("no AWS credentials were found") && check.contains("Fix: Configure one source"), "{check}");
    aws.vault.serve();
    fails_as(&aws, "credentials_missing", "the shared credentials and config files").await;
    put(&aws, ".aws/credentials", "[default]\naws_access_key_id = AKIALATE\naws_secret_access_key = test\n");
    recovers(&aws, "AKIALATE").await;
    let (check, ok) = self::check(&aws);
    assert!(ok, "{check}");
}

#[tokio::test]
async fn each_refusal_of_credentials_has_its_own_reason_and_none_is_a_disabled_key() {
    let aws = AwsVault::start(Setup::default()).await;
    let cold = aws.key().await;
    for (mode, reason, says) in [
        ("expired", "credentials_expired", "have expired"),
        ("unknown_access_key", "access_key_unknown", "does not accept the access key"),
        ("wrong_secret", "signature_refused", "secret access key is wrong"),
        ("skew", "clock_skew", "the clock of this machine"),
    ] {
        aws.kms.fault(json!({ "mode": mode, "key": aws.arn })).await;
        fails_as(&aws, reason, says).await;
        let refused = aws.refused(&cold).await;
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (502, "wrapper_credentials_rejected", false), "{mode}");
        assert!(!refused.detail.contains("disabled") || reason == "access_key_unknown", "{mode}: {}", refused.detail);
        assert!(!refused.document.to_string().contains("on purpose"), "{mode}: {}", refused.document);
        aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
        until("it recovers", || async { aws.is_ready(200, &[]).await && aws.create().await.is_ok() }).await;
    }
}

#[tokio::test]
async fn each_refusal_of_the_key_has_its_own_reason_and_remedy() {
    let aws = AwsVault::start(Setup::default()).await;
    for (mode, code, reason, says) in [
        ("denied", "wrapper_denied", "access_denied", "kms:Encrypt"),
        ("missing", "wrapper_key_not_found", "key_not_found", "in this account and region"),
        ("throttle", "wrapper_unavailable", "throttled", "throttled"),
    ] {
        aws.kms.fault(json!({ "mode": mode, "key": aws.arn })).await;
        // A denial is remembered for a second.
        until(reason, || async { aws.create().await.is_err_and(|error| problem::<Value>(Err(error)).document["reason"] == reason) }).await;
        let refused = problem(aws.create().await);
        assert_eq!((refused.code.as_str(), &refused.document["reason"]), (code, &json!(reason)), "{}", refused.detail);
        assert!(refused.detail.contains(says), "{}", refused.detail);
        aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    }
    for (action, reason) in [("DisableKey", "key_disabled"), ("ScheduleKeyDeletion", "key_pending_deletion")] {
        aws.kms.call(CENTRAL, action, json!({ "KeyId": aws.arn })).await;
        until(reason, || async { aws.create().await.is_err_and(|error| problem::<Value>(Err(error)).document["reason"] == reason) }).await;
        aws.kms.call(CENTRAL, "CancelKeyDeletion", json!({ "KeyId": aws.arn })).await;
        aws.kms.call(CENTRAL, "EnableKey", json!({ "KeyId": aws.arn })).await;
    }
}

/// The reason stands in the answer, in `/readyz`, in the log, and in what the wrapper key shows of itself if there is one.
async fn fails_as(aws: &AwsVault, reason: &str, says: &str) {
    until(reason, || async { aws.create().await.is_err_and(|error| problem::<Value>(Err(error)).document["reason"] == reason) }).await;
    let refused = problem(aws.create().await);
    assert!(refused.detail.contains(says), "{}", refused.detail);
    assert!(!refused.document.to_string().contains("s3cret"), "{}", refused.document);
    until("it is told", || async { aws.readyz().await.1["reasons"].as_array().unwrap().iter().any(|fault| fault["reason"] == reason) })
        .await;
    assert!(aws.logged(&[says]), "{reason}");
    let keys = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    for key in keys["items"].as_array().unwrap() {
        assert_eq!((&key["health"], &key["fault_reason"]), (&json!("failing"), &json!(reason)), "{key}");
        assert!(key["fault"].as_str().unwrap().contains(says) && key["fault_remedy"] == refused.document["remedy"], "{key}");
    }
}

/// Calls succeed again with this access key, without a restart.
async fn recovers(aws: &AwsVault, access_key: &str) {
    until(access_key, || async { aws.create().await.is_ok() && used(aws) == access_key }).await;
    until("it is told", || async { aws.is_ready(200, &[]).await }).await;
}

fn check(aws: &AwsVault) -> (String, bool) {
    let output = aws.vault.command(&["check", "--config", "keyvault.toml"]).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}
