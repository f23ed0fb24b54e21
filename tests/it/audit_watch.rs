//! `audit watch` follows a log, and ends with an alarm (exit code, text, webhook) when it was rolled back, rewritten, signed by an unknown key, or when
//! checkpoints stop.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{api::Caller, vault::TestVault};

/// A vault that makes checkpoints on demand only. Its verifier keys are in the file `keys`.
async fn vault() -> TestVault {
    let vault = TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\n"));
    checkpoint(&vault).await;
    let keys = Caller::new(&vault, "auditor").get("/v1/audit/verifier-keys").await.success();
    fs::write(vault.path("keys"), keys["items"][0]["verifier_key"].as_str().unwrap()).unwrap();
    vault
}

async fn checkpoint(vault: &TestVault) -> u64 {
    Caller::new(vault, "auditor").post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap()
}

/// One look. The exit code, and what was printed.
fn watch(vault: &TestVault, more: &[&str]) -> (i32, String) {
    let options = vault.options("auditor");
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let connection = [
        "--url".into(),
        options.url.clone(),
        "--ca".into(),
        file(&options.ca),
        "--cert".into(),
        file(&options.cert),
        "--key".into(),
        file(&options.key),
    ];
    let mut command = vault.command(&["audit", "watch", "--state", "state", "--once"]);
    if !more.contains(&"--verifier-key") {
        command.args(["--verifier-key", "keys"]);
    }
    let output = command.args(connection).args(more).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

fn assert_alarm((code, printed): &(i32, String), told: &str) {
    assert_eq!(*code, 4, "{printed}");
    assert!(printed.contains(told), "{printed}");
}

/// A receiver of one webhook: its URL, and the JSON that it got.
fn receiver() -> (String, thread::JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alarm", listener.local_addr().unwrap());
    let received = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let length = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..length]);
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(document) = serde_json::from_str(body)
            {
                assert!(head.starts_with("POST /alarm HTTP/1.1"), "{head}");
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                return document;
            }
            assert!(length > 0, "{text}");
        }
    });
    (url, received)
}

#[tokio::test]
async fn a_log_that_grows_is_followed_also_through_a_rotation_of_the_key() {
    let vault = vault().await;
    let (code, printed) = watch(&vault, &[]);
    assert!(code == 0 && printed.contains("the first checkpoint that is kept"), "{printed}");
    assert!(watch(&vault, &[]).1.contains("unchanged"));
    let size = checkpoint(&vault).await;
    let (code, printed) = watch(&vault, &[]);
    assert!(code == 0 && printed.contains(&format!("{size} entries, continues the log of")), "{printed}");
    Caller::new(&vault, "wrapper-admin").post("/v1/audit/verifier-keys", &json!({})).await.success();
    checkpoint(&vault).await;
    let (code, printed) = watch(&vault, &[]);
    assert!(code == 0 && printed.contains("continues the log of"), "{printed}");
}

#[tokio::test]
async fn a_rollback_and_a_fork_raise_an_alarm_and_the_state_is_kept() {
    let mut vault = vault().await;
    vault.terminate();
    fs::copy(vault.path("keyvault.db"), vault.path("older.db")).unwrap();
    vault.serve();
    let seen = checkpoint(&vault).await;
    assert_eq!(watch(&vault, &[]).0, 0);
    let state = fs::read(vault.path("state")).unwrap();
    vault.terminate();
    fs::copy(vault.path("older.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    let (url, received) = receiver();
    let found = watch(&vault, &["--webhook", &url]);
    assert_alarm(&found, &format!("a checkpoint over {seen} entries was seen before, and this log is older"));
    let document = received.join().unwrap();
    assert_eq!((&document["alarm"], &document["last_checkpoint"]["size"]), (&json!("rolled_back"), &json!(seen)), "{document}");
    // The other history becomes longer than the one that was seen.
    while checkpoint(&vault).await <= seen {}
    assert_alarm(&watch(&vault, &[]), "rewritten or forked");
    assert_eq!(fs::read(vault.path("state")).unwrap(), state, "the evidence is kept");
    // A receiver that is not there does not hide the alarm.
    let (code, printed) = watch(&vault, &["--webhook", "http://127.0.0.1:9/"]);
    assert!(code == 4 && printed.contains("was not delivered") && printed.contains("rewritten or forked"), "{printed}");
}

#[tokio::test]
async fn a_key_without_a_rotation_entry_raises_an_alarm() {
    let (vault, other) = (vault().await, vault().await);
    fs::copy(other.path("keys"), vault.path("other")).unwrap();
    assert_alarm(&watch(&vault, &["--verifier-key", "other"]), "none of the trusted keys signed");
    assert!(!vault.path("state").exists());
}

#[tokio::test]
async fn checkpoints_that_stop_raise_an_alarm() {
    let mut vault = vault().await;
    assert_eq!(watch(&vault, &[]).0, 0);
    let began = Instant::now();
    let found = loop {
        let found = watch(&vault, &["--max-age", "1s"]);
        if found.0 != 0 {
            break found;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{found:?}");
    };
    assert_alarm(&found, "there was no new checkpoint since");
    checkpoint(&vault).await;
    assert_eq!(watch(&vault, &["--max-age", "1h"]).0, 0);
    // A vault that does not answer is no alarm before that age, and one after it.
    let url = vault.url().to_owned();
    vault.terminate();
    let look = |age| {
        let pem = |kind: &str| vault.path(&format!("pki/auditor.{kind}")).to_str().unwrap().to_owned();
        let ca = vault.path("pki/ca.pem").to_str().unwrap().to_owned();
        let mut command = vault.command(&["audit", "watch", "--state", "state", "--once", "--verifier-key", "keys", "--max-age", age]);
        let output = command.args(["--url", &url, "--ca", &ca, "--cert", &pem("pem"), "--key", &pem("key")]).output().unwrap();
        output.status.code()
    };
    assert_eq!(look("1h"), Some(3));
    let began = Instant::now();
    while look("1s") != Some(4) {
        assert!(began.elapsed() < Duration::from_mins(1));
    }
}

#[tokio::test]
async fn a_state_file_that_cannot_be_read_is_not_overwritten() {
    let vault = vault().await;
    fs::write(vault.path("state"), "{}").unwrap();
    let (code, printed) = watch(&vault, &[]);
    assert!(code == 2 && printed.contains("--state state"), "{printed}");
    assert_eq!(fs::read(vault.path("state")).unwrap(), b"{}");
}
