//! Runs the `credential_process` of an AWS profile. Its output and its messages are secret: neither is logged or part of an error.

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use zeroize::Zeroizing;

use crate::kms::{CredentialFault, Outage};

use super::credentials::Failure;

/// The output, as the documentation of AWS defines it. Further fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output<'a> {
    version: u32,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: Option<&'a str>,
    expiration: Option<&'a str>,
}

/// Runs a command in the shell, as the other SDKs of AWS do, and reads the credentials that it prints.
///
/// # Errors
/// `ProcessFailed`, `ProcessOutput`, or an outage if it does not end in time. It is killed then.
pub(super) async fn run(command: &str) -> Result<Credentials, Failure> {
    timeout(TIME_LIMIT, run_to_the_end(command)).await.unwrap_or(Err(Failure::Outage(Outage::CredentialsUnavailable)))
}

async fn run_to_the_end(command: &str) -> Result<Credentials, Failure> {
    let failed = |code| Failure::Denied(CredentialFault::ProcessFailed(code));
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = shell.spawn().map_err(|_| failed(None))?;
    let mut output = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT));
    if let Some(stdout) = child.stdout.take() {
        // One byte more than the limit shows that the output is too long.
        let mut limited = stdout.take(MAX_OUTPUT as u64 + 1);
        limited.read_to_end(&mut output).await.map_err(|_| failed(None))?;
    }
    if output.len() > MAX_OUTPUT {
        return Err(Failure::Denied(CredentialFault::ProcessOutput));
    }
    let status = child.wait().await.map_err(|_| failed(None))?;
    if !status.success() {
        return Err(failed(status.code()));
    }
    read(&output).ok_or(Failure::Denied(CredentialFault::ProcessOutput))
}

fn read(output: &[u8]) -> Option<Credentials> {
    let Output { version: 1, access_key_id, secret_access_key, session_token, expiration } = serde_json::from_slice(output).ok()? else {
        return None;
    };
    if access_key_id.is_empty() || secret_access_key.is_empty() {
        return None;
    }
    let expires = match expiration {
        Some(text) => Some(SystemTime::from(OffsetDateTime::parse(text, &Rfc3339).ok()?)),
        None => None,
    };
    Some(Credentials::new(access_key_id, secret_access_key, session_token.map(str::to_owned), expires, "CredentialProcess"))
}

/// Bytes; session tokens have a few thousand.
const MAX_OUTPUT: usize = 64 * 1024;
/// Long enough for a login over the network. Callers do not wait that long.
const TIME_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{ "Version": 1, "AccessKeyId": "AKIAONE", "SecretAccessKey": "s3cret", "SessionToken": "t",
        "Expiration": "2050-05-02T18:36:00+00:00", "AccountId": "1" }"#;

    #[tokio::test]
    async fn the_printed_credentials_are_read() {
        let found = run(&format!("echo secret words >&2; printf '%s' '{GOOD}'")).await.unwrap();
        assert_eq!((found.access_key_id(), found.secret_access_key(), found.session_token()), ("AKIAONE", "s3cret", Some("t")));
        assert!(found.expiry().is_some());
    }

    #[tokio::test]
    async fn a_failure_has_the_exit_code_and_nothing_of_the_output() {
        for (command, fault) in [
            ("echo s3cret; echo s3cret >&2; exit 7", CredentialFault::ProcessFailed(Some(7))),
            ("kill -9 $$", CredentialFault::ProcessFailed(None)),
            ("/nonexistent/program", CredentialFault::ProcessFailed(Some(127))),
            ("echo s3cret", CredentialFault::ProcessOutput),
            ("echo '{\"Version\": 2, \"AccessKeyId\": \"a\", \"SecretAccessKey\": \"s3cret\"}'", CredentialFault::ProcessOutput),
            ("echo '{\"Version\": 1, \"AccessKeyId\": \"\", \"SecretAccessKey\": \"s3cret\"}'", CredentialFault::ProcessOutput),
            ("head -c 100000 /dev/zero | tr '\\0' '{'", CredentialFault::ProcessOutput),
        ] {
            let Err(Failure::Denied(found)) = run(command).await else { panic!("{command}") };
            assert_eq!(found, fault, "{command}");
            assert!(!found.to_string().contains("s3cret"), "{found}");
        }
    }
}
