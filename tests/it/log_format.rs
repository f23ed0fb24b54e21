//! Every line that `serve` prints is one event in the chosen format, from the first to the last: failed starts, failed requests, refused
//! reloads, state changes, a signal. A failed request has its code, key, node and cause.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::client::{Client, ConnectOptions};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    jobs::{ended, new_wrapper_key, rotate},
    vault::{TestVault, problem, until},
};

/// Whether a line is an event of the log.
fn is_event(line: &Value) -> bool {
    ["timestamp", "level", "target", "message"].iter().all(|field| line[field].as_str().is_some_and(|text| !text.is_empty()))
}

fn assert_all_are_events(lines: &[Value]) {
    for line in lines {
        assert!(is_event(line), "{line}");
    }
}

fn find(lines: &[Value], message: &str) -> Value {
    let found = lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains(message)));
    found.unwrap_or_else(|| panic!("no line {message:?} in {lines:#?}")).clone()
}

/// Everything that a `serve` prints that ends by itself, as JSON.
fn printed(vault: &TestVault, file: &str) -> Vec<Value> {
    let output = vault.command(&["serve", "--config", file]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

#[test]
fn a_failed_start_is_one_line_of_the_format_with_its_cause() {
    let vault = TestVault::prepare(|config| config);
    let good = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    for (name, text, cause) in [
        ("unknown.toml", format!("nonsense = 1\n{good}"), "nonsense"),
        ("broken.toml", format!("{good}\n= broken"), "broken.toml"),
        ("filter.toml", good.replace("[log]", "[log]\nfilter = \"a=b=c\""), "[log] filter"),
        ("certificate.toml", good.replace("pki/server.pem", "pki/nothing.pem"), "nothing.pem"),
        ("wrapper.toml", good.replace("provider = \"local\"", "provider = \"nothing\""), "provider"),
    ] {
        fs::write(vault.path(name), text).unwrap();
        let lines = printed(&vault, name);
        assert_all_are_events(&lines);
        let last = lines.last().unwrap();
        assert_eq!(
            (last["level"].as_str(), last["message"].as_str()),
            (Some("ERROR"), Some("the vault ends with an error")),
            "{name}: {last}"
        );
        assert!(last["cause"].as_str().unwrap().contains(cause), "{name}: {last}");
    }
    let lines = printed(&vault, "missing.toml");
    assert!(lines.len() == 1 && lines[0]["cause"].as_str().unwrap().contains("missing.toml"), "{lines:?}");
    // An address in use is found late in the start.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = good.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    fs::write(vault.path("busy.toml"), busy).unwrap();
    let lines = printed(&vault, "busy.toml");
    assert_all_are_events(&lines);
    assert!(lines.len() > 1 && lines.last().unwrap()["cause"].as_str().unwrap().contains("cannot listen"), "{lines:?}");
}

#[tokio::test]
async fn a_failed_request_has_code_reason_key_node_and_cause() {
    let aws = AwsVault::start(Setup::default()).await;
    let key = aws.key().await;
    aws.kms.fault(json!({ "mode": "denied", "key": aws.arn })).await;
    let refused = aws.refused(&key).await;
    let is_it = |line: &Value| line["request_id"] == json!(refused.request_id) && line["message"] == "request failed";
    until("the line", || async { aws.vault.log().iter().any(is_it) }).await;
    let line = aws.vault.log().into_iter().find(is_it).unwrap();
    for (field, expected) in [
        ("level", json!("WARN")),
        ("status", json!(502)),
        ("operation", json!("keys.sign")),
        ("code", json!("wrapper_denied")),
        ("reason", json!("access_denied")),
        ("key", json!(key)),
        ("node", json!("participant1")),
        ("cause", json!(refused.detail)),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    until("its canary", || async { aws.logged(&["a registered wrapper key does not work"]) }).await;
    let failing = find(&aws.vault.log(), "a registered wrapper key does not work");
    assert_eq!((&failing["reason"], failing["remedy"].is_string()), (&json!("access_denied"), true), "{failing}");
    assert_all_are_events(&aws.vault.log());
}

#[tokio::test]
async fn state_changes_have_a_line_with_fields_and_lists_are_arrays() {
    let mut vault = TestVault::start_with(|config| format!("{config}\n[jobs]\nkeys_per_second = 1\n"));
    let (node, admin, wrappers) = (vault.client("participant1"), vault.client("key-admin"), vault.client("wrapper-admin"));
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(node.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    let key = &keys[0];
    for path in ["disable", "enable"] {
        admin.post(&format!("/v1/keys/{key}/{path}"), &json!({})).await.unwrap();
    }
    admin.delete(&format!("/v1/keys/{key}?days=7")).await.unwrap();
    admin.post(&format!("/v1/keys/{key}/cancel-deletion"), &json!({})).await.unwrap();
    let second = new_wrapper_key(&vault).await;
    let job = rotate(&vault, &second).await;
    wrappers.post(&format!("/v1/wrapper-keys/rotations/{}/abort", job["id"].as_str().unwrap()), &json!({})).await.unwrap();
    assert_eq!(ended(&vault, &job).await["state"], "aborted");
    admin.post("/v1/freeze", &json!({})).await.unwrap();
    let frozen =
        problem(node.post(&format!("/v1/keys/{key}/sign"), &json!({ "algorithm": "ed25519", "message": STANDARD.encode("x") })).await);
    wrappers.post("/v1/unfreeze", &json!({})).await.unwrap();

    let config = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    fs::write(vault.path("keyvault.toml"), format!("nonsense = 1\n{config}")).unwrap();
    let has = |message: &'static str| {
        let vault = &vault;
        move || async move { vault.log().iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(message))) }
    };
    until("the refused reload", has("the new configuration is not valid")).await;
    fs::write(
        vault.path("keyvault.toml"),
        config.replace("keys_per_second = 1", "keys_per_second = 2").replacen("nodes = [", "nodes = [\"another\", ", 1),
    )
    .unwrap();
    until("the reload", has("configuration reloaded")).await;

    let log = vault.log();
    assert_all_are_events(&log);
    for (message, level, field, expected) in [
        ("the first wrapper key is registered", "INFO", "operation", json!("wrapper-keys.bootstrap")),
        ("a key was disabled", "WARN", "key", json!(key)),
        ("a key was enabled", "INFO", "principal", json!("dns:key-admin")),
        ("the deletion of a key was scheduled", "WARN", "node", json!("participant1")),
        ("the deletion of a key was cancelled", "INFO", "key", json!(key)),
        ("a wrapper key was registered", "INFO", "operation", json!("wrapper-keys.add")),
        ("a rotation started", "INFO", "operation", json!("rotations.start")),
        ("a rotation was aborted", "WARN", "subject", job["id"].clone()),
        ("the vault is frozen", "WARN", "operation", json!("vault.freeze")),
        ("the vault is no longer frozen", "WARN", "operation", json!("vault.unfreeze")),
        ("configuration reloaded", "INFO", "parts", json!(["policy"])),
        ("these sections changed", "WARN", "sections", json!(["[jobs]"])),
    ] {
        let line = find(&log, message);
        let principal =
            line["principal"].as_str().unwrap_or_default().trim_start_matches("dns:").trim_start_matches("spiffe://").to_owned();
        if field == "principal" {
            assert!(principal.contains("key-admin"), "{line}");
        } else {
            assert_eq!((&line["level"], &line[field]), (&json!(level), &expected), "{line}");
        }
    }
    let failed = log.iter().find(|line| line["request_id"] == json!(frozen.request_id) && line["message"] == "request failed").unwrap();
    assert_eq!((&failed["code"], &failed["key"], &failed["node"]), (&json!("frozen"), &json!(key), &json!("participant1")), "{failed}");
    assert!(vault.terminate());
}

/// The same run as text: each event is one line, and what a caller sends begins no line of its own.
#[tokio::test]
async fn text_has_one_line_for_each_event_too() {
    let vault = TestVault::prepare(|config| config);
    let config = fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    let config = config.replace("format = \"json\"", "format = \"text\"\nfilter = \"debug\"");
    fs::write(vault.path("keyvault.toml"), &config).unwrap();
    let (mut child, lines) = serve(&vault);
    let url = || {
        let lines = lines.lock().unwrap();
        let listening = lines.iter().find(|line| line.contains(" listening ")).cloned()?;
        listening.split(" api=").nth(1)?.split(' ').next().map(|address| format!("https://{address}"))
    };
    until("it listens", || async { url().is_some() }).await;
    let pem = |kind: &str| vault.path(&format!("pki/participant1.{kind}"));
    let options = ConnectOptions { url: url().unwrap(), ca: vault.path("pki/ca.pem"), cert: pem("pem"), key: pem("key") };
    let client = Client::new(&options).unwrap();
    let evil = "\nWARN forged: line\u{1b}[31m";
    assert!(client.create("/v1/keys", &json!({ "node": "participant1", "purpose": evil, "spec": "x" })).await.is_err());
    assert!(client.get("/v1/keys/%0AWARN%20forged%3A%20line").await.is_err());
    fs::write(vault.path("keyvault.toml"), format!("\"non\\nsense\" = 1\n{config}")).unwrap();
    until("the refused reload", || async { lines.lock().unwrap().iter().any(|line| line.contains("the new configuration is not valid")) })
        .await;
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.lock().unwrap().iter() {
        let mut words = line.split_whitespace();
        let is_time = words.next().is_some_and(|time| time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T');
        let is_level = words.next().is_some_and(|level| ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level));
        assert!(is_time && is_level && !line.chars().any(char::is_control), "{line:?}");
    }
}

fn serve(vault: &TestVault) -> (Child, Arc<Mutex<Vec<String>>>) {
    let mut serve: Command = vault.command(&["serve", "--config"]);
    let mut child = serve.arg(vault.path("keyvault.toml")).stderr(Stdio::piped()).spawn().unwrap();
    let (stderr, lines) = (child.stderr.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let into = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            into.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    (child, lines)
}
