//! The client commands, run as a program against a fake vault: requests, output, exit codes.

mod fake;
mod jobs;
mod profiles;
mod references;
mod several_urls;
mod tables;

use std::{
    os::unix::fs::PermissionsExt as _,
    process::Output,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use canton_keyvault::client::{Call, Client, ClientError, DEFAULT_TIMEOUT, Endpoint};
use serde_json::{Value, json};

use fake::{FakeVault, Reply, Seen};

const PAIR: &str = "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809";
const JOB: &str = "job-001122334455";
const SYMMETRIC: &str = "sym-00112233445566778899aabbccddeeff";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn assert_done(line: &str, output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output.stderr));
}

fn problem(status: u16, code: &str, retryable: bool) -> Reply {
    Reply::Json(
        status,
        json!({"type": "about:blank", "title": "T", "detail": "because", "status": status, "code": code, "retryable": retryable,
            "request_id": "r-7", "remedy": "mend it"}),
    )
}

/// Something for every call, so that each command gets to its end.
fn agreeable(seen: &Seen) -> Reply {
    let path = seen.target.split('?').next().unwrap();
    let answer = match (seen.method.as_str(), path.rsplit('/').next().unwrap()) {
        ("GET", "keys" | "wrapper-keys" | "entries") => json!({"items": [], "next_cursor": null}),
        ("GET", "rotations" | "reseals") => json!({"items": [jobs::job("succeeded", 2)], "next_cursor": null}),
        (_, "sign") => json!({"key_id": PAIR, "algorithm": "ed25519", "signature": "c2ln", "signature_format": "concat"}),
        (_, "decrypt") => json!({"plaintext": "cGxhaW4="}),
        (_, "encrypt") => json!({"ciphertext": "Y2lwaGVy"}),
        (_, "export") => json!({"format": "pkcs8", "material": "bWF0ZXJpYWw="}),
        _ => json!({"id": PAIR, "public_key": "AAAA"}),
    };
    Reply::Json(200, answer)
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn every_command_makes_its_one_call() {
    let vault = FakeVault::start(agreeable);
    std::fs::write(vault.file("message"), b"\x01\x02").unwrap();
    let key = format!("/v1/keys/{PAIR}");
    let sign = json!({"algorithm": "ed25519", "message": "AQI="});
    let none = Value::Null;
    // Arguments, method, target, body, whether it creates.
    let table: &[(&str, &str, String, Value, bool)] = &[
        (
            "keys create --node p1 --purpose signing --spec ec-curve25519",
            "POST",
            "/v1/keys".into(),
            json!({"node": "p1", "purpose": "signing", "spec": "ec-curve25519"}),
            true,
        ),
        (
            "keys create --node p1 --purpose signing --spec ec-p256 --usage protocol,namespace --class permanent --name root --exportable",
            "POST",
            "/v1/keys".into(),
            json!({"node": "p1", "purpose": "signing", "spec": "ec-p256", "usage": ["protocol", "namespace"], "class": "permanent",
                "name": "root", "exportable": true}),
            true,
        ),
        (
            "keys import --node p1 --format raw --material-file message --purpose symmetric",
            "POST",
            "/v1/keys/import".into(),
            json!({"node": "p1", "format": "raw", "material": "AQI=", "purpose": "symmetric"}),
            true,
        ),
        ("keys list", "GET", "/v1/keys".into(), none.clone(), false),
        (
            "keys list --class long-term --created-before 2026-01-31T12:00:00Z",
            "GET",
            "/v1/keys?class=long-term&created_before=2026-01-31T12%3A00%3A00Z".into(),
            none.clone(),
            false,
        ),
        (
            "keys list --node p1 --purpose signing --state active --limit 5 --cursor c/1",
            "GET",
            "/v1/keys?node=p1&purpose=signing&state=active&cursor=c%2F1&limit=5".into(),
            none.clone(),
            false,
        ),
        (
            "keys list --name orders --since 2026-01-31",
            "GET",
            "/v1/keys?name=orders&created_since=2026-01-31T00%3A00%3A00Z".into(),
            none.clone(),
            false,
        ),
        ("keys show KEY", "GET", key.clone(), none.clone(), false),
        ("keys verify KEY", "POST", format!("{key}/verify"), json!({}), false),
        ("keys sign KEY --algorithm ed25519 --message-file message", "POST", format!("{key}/sign"), sign.clone(), false),
        ("keys sign KEY --algorithm ed25519 --message-hex 0102", "POST", format!("{key}/sign"), sign.clone(), false),
        ("keys sign KEY --algorithm ed25519 --message-base64 AQI=", "POST", format!("{key}/sign"), sign, false),
        (
            "keys sign KEY --algorithm ed25519 --message-text hi",
            "POST",
            format!("{key}/sign"),
            json!({"algorithm": "ed25519", "message": "aGk="}),
            false,
        ),
        (
            "keys decrypt KEY --algorithm rsa-oaep-sha256 --ciphertext-file message --out -",
            "POST",
            format!("{key}/decrypt"),
            json!({"algorithm": "rsa-oaep-sha256", "ciphertext": "AQI="}),
            false,
        ),
        ("keys encrypt SYM --plaintext-file message", "POST", format!("/v1/keys/{SYMMETRIC}/encrypt"), json!({"plaintext": "AQI="}), false),
        (
            "keys encrypt SYM --plaintext-file message --algorithm aes-256-gcm",
            "POST",
            format!("/v1/keys/{SYMMETRIC}/encrypt"),
            json!({"algorithm": "aes-256-gcm", "plaintext": "AQI="}),
            false,
        ),
        ("keys export KEY --format pkcs8 --out -", "POST", format!("{key}/export"), json!({"format": "pkcs8"}), false),
        ("keys enable KEY", "POST", format!("{key}/enable"), json!({}), false),
        ("keys disable KEY", "POST", format!("{key}/disable"), json!({}), false),
        ("keys rotate KEY", "POST", format!("{key}/rotate"), json!({}), true),
        ("keys supersede KEY --yes", "POST", format!("{key}/supersede"), json!({}), false),
        ("keys delete KEY --yes", "DELETE", key.clone(), none.clone(), false),
        ("keys delete KEY --days 30 --yes", "DELETE", format!("{key}?days=30"), none.clone(), false),
        ("keys withdraw KEY --yes", "POST", format!("{key}/withdraw"), json!({}), false),
        ("keys withdraw KEY --days 7 --yes", "POST", format!("{key}/withdraw"), json!({"days": 7}), false),
        (
            "keys import --node p1 --format raw --material-file message --replace-destroyed",
            "POST",
            "/v1/keys/import".into(),
            json!({"node": "p1", "format": "raw", "material": "AQI=", "replace_destroyed": true}),
            true,
        ),
        ("keys cancel-deletion KEY", "POST", format!("{key}/cancel-deletion"), json!({}), false),
        ("keys rename KEY root", "POST", format!("{key}/name"), json!({"name": "root"}), false),
        ("keys rename KEY --remove", "POST", format!("{key}/name"), json!({"name": null}), false),
        ("wrapper create --provider local", "POST", "/v1/wrapper-keys".into(), json!({"provider": "local", "create": true}), true),
        (
            "wrapper create --provider aws-kms --multi-region --regions eu-west-1,eu-central-1",
            "POST",
            "/v1/wrapper-keys".into(),
            json!({"provider": "aws-kms", "create": true, "multi_region": true, "regions": ["eu-west-1", "eu-central-1"]}),
            true,
        ),
        (
            "wrapper register --provider aws-kms --reference arn:x --regions eu-west-1",
            "POST",
            "/v1/wrapper-keys".into(),
            json!({"provider": "aws-kms", "reference": "arn:x", "regions": ["eu-west-1"]}),
            true,
        ),
        (
            "wrapper create --provider local --name spare",
            "POST",
            "/v1/wrapper-keys".into(),
            json!({"provider": "local", "name": "spare", "create": true}),
            true,
        ),
        (
            "wrapper rename wk-001122334455 central",
            "POST",
            "/v1/wrapper-keys/wk-001122334455/name".into(),
            json!({"name": "central"}),
            false,
        ),
        ("wrapper rename wk-001122334455 --remove", "POST", "/v1/wrapper-keys/wk-001122334455/name".into(), json!({"name": null}), false),
        ("wrapper list", "GET", "/v1/wrapper-keys".into(), none.clone(), false),
        ("wrapper show wk-001122334455", "GET", "/v1/wrapper-keys/wk-001122334455".into(), none.clone(), false),
        ("wrapper posture wk-001122334455", "GET", "/v1/wrapper-keys/wk-001122334455/posture".into(), none.clone(), false),
        (
            "wrapper rotation start --to wk-001122334455",
            "POST",
            "/v1/wrapper-keys/rotations".into(),
            json!({"to": "wk-001122334455"}),
            false,
        ),
        ("wrapper rotation show", "GET", "/v1/wrapper-keys/rotations".into(), none.clone(), false),
        ("wrapper rotation show JOB", "GET", format!("/v1/wrapper-keys/rotations/{JOB}"), none.clone(), false),
        ("wrapper rotation abort JOB", "POST", format!("/v1/wrapper-keys/rotations/{JOB}/abort"), json!({}), false),
        ("wrapper retire wk-001122334455 --yes", "POST", "/v1/wrapper-keys/wk-001122334455/retire".into(), json!({}), false),
        (
            "wrapper replicate wk-001122334455 --region eu-west-1",
            "POST",
            "/v1/wrapper-keys/wk-001122334455/replicas".into(),
            json!({"region": "eu-west-1"}),
            false,
        ),
        ("keys reseal KEY", "POST", format!("{key}/reseal"), json!({}), false),
        ("keys reseal-job start", "POST", "/v1/keys/reseals".into(), json!({}), false),
        ("keys reseal-job show", "GET", "/v1/keys/reseals".into(), none.clone(), false),
        ("keys reseal-job show JOB", "GET", format!("/v1/keys/reseals/{JOB}"), none.clone(), false),
        ("keys reseal-job abort JOB", "POST", format!("/v1/keys/reseals/{JOB}/abort"), json!({}), false),
        (
            "audit query --key-id KEY --node p1 --principal dns:p1 --operation keys.sign --outcome ok \
             --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --limit 10",
            "GET",
            format!(
                "/v1/audit/entries?key_id={PAIR}&node=p1&principal=dns%3Ap1&operation=keys.sign&outcome=ok\
                 &from=2026-01-01T00%3A00%3A00Z&to=2026-01-02T00%3A00%3A00Z&limit=10"
            ),
            none.clone(),
            false,
        ),
        (
            "audit query --key-id orders --certificate AB:AB_DIGEST --since 1d --to 2026-01-02 --newest",
            "GET",
            format!(
                "/v1/audit/entries?key=orders&certificate={}&to=2026-01-02T00%3A00%3A00Z&since=1d&order=newest&limit=100",
                "ab".repeat(32)
            ),
            none.clone(),
            false,
        ),
        (
            "audit query --since 2026-01-03 --from 2026-01-02 --limit 1",
            "GET",
            "/v1/audit/entries?from=2026-01-03T00%3A00%3A00Z&limit=1".into(),
            none.clone(),
            false,
        ),
        (
            "audit who --key-id orders --at 2026-01-31",
            "GET",
            "/v1/audit/access?key=orders&at=2026-01-31T00%3A00%3A00Z&window=1d".into(),
            none.clone(),
            false,
        ),
        ("freeze", "POST", "/v1/freeze".into(), json!({}), false),
        ("unfreeze", "POST", "/v1/unfreeze".into(), json!({}), false),
        ("status", "GET", "/v1/status".into(), none.clone(), false),
        ("whoami", "GET", "/v1/whoami".into(), none, false),
        (
            "authorize --operation keys.sign --key-id KEY --principal dns:p1",
            "POST",
            "/v1/authorize".into(),
            json!({"operation": "keys.sign", "key_id": PAIR, "principal": "dns:p1"}),
            false,
        ),
    ];
    for (line, method, target, body, creates) in table {
        for format in ["text", "json"] {
            let line =
                line.replace("AB:AB_DIGEST", &["AB"; 32].join(":")).replace("KEY", PAIR).replace("SYM", SYMMETRIC).replace("JOB", JOB)
                    + " --output "
                    + format;
            assert_done(&line, &vault.run(&line));
            let seen = vault.take_seen();
            let [seen] = seen.as_slice() else { panic!("{line}: {seen:?}") };
            assert_eq!((seen.method.as_str(), &seen.target, &seen.body), (*method, target, body), "{line}");
            assert_eq!(seen.headers.contains_key("idempotency-key"), *creates, "{line}");
            assert_eq!(seen.headers.get("content-type").map(String::as_str), (!body.is_null()).then_some("application/json"), "{line}");
        }
    }
}

#[test]
fn material_and_password_come_from_files_or_standard_input() {
    let vault = FakeVault::start(agreeable);
    std::fs::write(vault.file("material"), b"m").unwrap();
    std::fs::write(vault.file("password"), "pass word\n").unwrap();
    let import = "keys import --node p1 --format canton-key-pair";
    let expected = json!({"node": "p1", "format": "canton-key-pair", "material": "bQ==", "password": "pass word"});

    let line = format!("{import} --material-file material --password-file password");
    assert_done(&line, &vault.run(&line));
    assert_eq!(vault.take_seen()[0].body, expected);

    let line = format!("{import} --material-file - --password-file password");
    assert_done(&line, &vault.run_with_input(&line, b"m"));
    assert_eq!(vault.take_seen()[0].body, expected);

    let line = format!("{import} --material-file material --password-file -");
    assert_done(&line, &vault.run_with_input(&line, b"pass word\n"));
    assert_eq!(vault.take_seen()[0].body, expected);

    let line = format!("{import} --material-file - --password-file -");
    assert_eq!(vault.run_with_input(&line, b"m").status.code(), Some(2));
    assert_eq!(vault.take_seen(), []);

    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let line = "keys import --node p1 --format pkcs8 --material-file -";
    for bytes in [key.serialize_der(), key.serialize_pem().into_bytes()] {
        assert_done(line, &vault.run_with_input(line, &bytes));
        let material = vault.take_seen()[0].body["material"].as_str().unwrap().to_owned();
        assert!(key.serialize_pem().replace('\n', "").contains(&material), "PKCS#8 is sent as DER");
    }
}

#[test]
fn an_exported_key_goes_to_a_new_private_file_and_nowhere_else() {
    let vault = FakeVault::start(agreeable);
    std::fs::write(vault.file("password"), "secret").unwrap();
    let line = format!("keys export {PAIR} --format canton-key-pair --password-file password --out key");
    let output = vault.run(&line);
    assert_done(&line, &output);
    assert_eq!(vault.take_seen()[0].body, json!({"format": "canton-key-pair", "password": "secret"}));
    assert_eq!(std::fs::read(vault.file("key")).unwrap(), b"material");
    assert_eq!(vault.file("key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text(&output.stdout).contains("material"));

    // The file exists now: the vault is not even asked.
    assert_eq!(vault.run(&line).status.code(), Some(2));
    assert_eq!(vault.take_seen(), []);
    assert_eq!(std::fs::read(vault.file("key")).unwrap(), b"material");

    let line = format!("keys export {PAIR} --format pkcs8 --out -");
    assert_eq!(vault.run(&line).stdout, b"material");
    let line = format!("{line} --output json");
    assert_eq!(serde_json::from_slice::<Value>(&vault.run(&line).stdout).unwrap()["material"], "bWF0ZXJpYWw=");
}

#[test]
fn results_go_to_files_as_bytes_and_a_refusal_leaves_no_file() {
    let refuse = std::sync::Arc::new(AtomicBool::new(false));
    let refused = std::sync::Arc::clone(&refuse);
    let vault =
        FakeVault::start(move |seen| if refused.load(Ordering::SeqCst) { problem(403, "forbidden", false) } else { agreeable(seen) });
    // What is asked for, and what is in the file then.
    let lines = [
        (format!("keys sign {PAIR} --algorithm ed25519 --message-text x --out out"), &b"sig"[..]),
        (format!("keys decrypt {PAIR} --algorithm rsa-oaep-sha256 --ciphertext-hex 00 --out out"), b"plain"),
        (format!("keys encrypt {SYMMETRIC} --plaintext-file ca.pem --out out"), b"cipher"),
        (format!("keys export {PAIR} --format pkcs8 --out out"), b"material"),
    ];
    for (line, bytes) in &lines {
        refuse.store(true, Ordering::SeqCst);
        assert_eq!(vault.run(line).status.code(), Some(1));
        assert!(!vault.file("out").exists(), "{line}");
        refuse.store(false, Ordering::SeqCst);
        assert_done(line, &vault.run(line));
        assert_eq!(std::fs::read(vault.file("out")).unwrap(), *bytes, "{line}");
        std::fs::remove_file(vault.file("out")).unwrap();
    }
}

#[test]
fn a_problem_is_printed_for_people_and_for_programs() {
    let vault = FakeVault::start(|_| problem(503, "wrapper_unavailable", true));
    let output = vault.run("status");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert_eq!(
        text(&output.stderr),
        "error: wrapper_unavailable: because (HTTP 503)\n  to do:     mend it\n  try again: yes\n  request:   r-7\n"
    );
    let output = vault.run("status --output json");
    let document: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &document["code"], &document["retryable"]), (Some(1), &json!("wrapper_unavailable"), &json!(true)));
}

#[test]
fn exit_codes_distinguish_a_usage_error_from_an_unreachable_vault() {
    let vault = FakeVault::start(|_| Reply::CloseConnection);
    // What it is run with, and how it ends.
    for (line, code, told) in [
        ("status --nonsense", 2, "--nonsense"),
        ("status --url http://localhost:1", 2, "https://host:port"),
        ("status --url https://localhost:1/v1", 2, "https://host:port"),
        ("status --ca missing.pem", 2, "missing.pem"),
        ("status --ca client.key", 2, "no certificate"),
        ("status --key client.pem", 2, "client.pem"),
        ("status --url https://localhost:1", 3, "cannot connect"),
        ("status --ca other-ca.pem", 3, "cannot connect"),
        ("status --cert stranger.pem --key stranger.key", 3, "from https://localhost|connect to https://localhost"),
        ("freeze", 3, "the call may have been done"),
    ] {
        let output = vault.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        assert!(told.split('|').any(|told| text(&output.stderr).contains(told)), "{line}: {}", text(&output.stderr));
    }
    let mut command = vault.command(["status", "--output", "json"]);
    let output = command.env_remove("KEYVAULT_CA").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(serde_json::from_slice::<Value>(&output.stderr).unwrap()["code"], "usage");
}

#[test]
fn lists_follow_the_cursor_to_the_end_or_to_the_limit() {
    let vault = FakeVault::start(|seen| {
        let after: u32 = seen.target.split_once("cursor=").map_or(0, |(_, rest)| rest.split('&').next().unwrap().parse().unwrap());
        let limit: u32 = seen.target.split_once("limit=").map_or(100, |(_, limit)| limit.parse().unwrap());
        let items: Vec<Value> = (after..250.min(after + limit)).map(|n| json!({"id": format!("k{n}"), "state": "active"})).collect();
        let next = after + limit;
        Reply::Json(200, json!({"items": items, "next_cursor": (next < 250).then(|| next.to_string())}))
    });
    let all: Value = serde_json::from_slice(&vault.run("keys list --output json").stdout).unwrap();
    assert_eq!((all["items"].as_array().unwrap().len(), &all["next_cursor"]), (250, &Value::Null));
    assert_eq!(all["items"][249]["id"], "k249");
    assert_eq!(vault.take_seen().len(), 3);

    let some: Value = serde_json::from_slice(&vault.run("keys list --output json --limit 130").stdout).unwrap();
    assert_eq!((some["items"].as_array().unwrap().len(), &some["next_cursor"]), (130, &json!("130")));
    let rest: Value = serde_json::from_slice(&vault.run("keys list --output json --cursor 130").stdout).unwrap();
    assert_eq!(rest["items"][0]["id"], "k130");

    let table = vault.run("keys list");
    assert_eq!(text(&table.stdout).lines().count(), 251);
    assert!(text(&table.stdout).starts_with("ID   NODE"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_kept_connection_that_ended_is_replaced_once() {
    let vault = FakeVault::start(|_| Reply::JsonThenCloseConnection(200, json!({})));
    let client = Client::new(&vault.options()).unwrap();
    runtime().block_on(async {
        for ended in 1..=3 {
            client.post("/v1/freeze", &json!({})).await.unwrap();
            vault.wait_until_ended(ended).await;
        }
    });
    assert_eq!(vault.take_seen().len(), 3);
}

#[test]
fn a_call_is_repeated_only_if_that_is_like_doing_it_once() {
    // Every second request is read and never answered.
    let count = AtomicUsize::new(0);
    let vault =
        FakeVault::start(
            move |_| if count.fetch_add(1, Ordering::SeqCst) % 2 == 1 { Reply::CloseConnection } else { Reply::Json(200, json!({})) },
        );
    let client = Client::new(&vault.options()).unwrap();
    runtime().block_on(async {
        client.get("/1").await.unwrap();
        client.create("/2", &json!({})).await.unwrap();
        // The third request was the repetition of the second.
        let lost = client.post("/3", &json!({})).await.unwrap_err();
        assert!(matches!(lost, ClientError::NoAnswer { .. }), "{lost}");
    });
    let seen = vault.take_seen();
    assert_eq!(seen.iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/1", "/2", "/2", "/3"]);
    assert_eq!(seen[1].headers["idempotency-key"], seen[2].headers["idempotency-key"]);
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let vault = FakeVault::start(|_| Reply::Late(Duration::from_mins(1), 200, json!({})));
    let client = Client::of(Endpoint::new(&vault.options()).unwrap(), Duration::from_millis(50));
    let error = runtime().block_on(client.get("/v1/status")).unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert_eq!(vault.take_seen().len(), 1);
    assert!(DEFAULT_TIMEOUT > Duration::from_secs(1));
}

#[test]
fn any_status_can_be_looked_at_as_it_is() {
    let vault = FakeVault::start(|_| problem(409, "conflict", false));
    let client = Client::new(&vault.options()).unwrap();
    runtime().block_on(async {
        let answer = client.send(Call::get("/x")).await.unwrap();
        assert_eq!(answer.status, 409);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let Err(ClientError::Problem(problem)) = client.get("/x").await else { panic!("a problem") };
        assert_eq!((problem.status, problem.code.as_str(), problem.request_id.as_deref()), (409, "conflict", Some("r-7")));
    });
}

fn bench(vault: &FakeVault, line: &str) -> Value {
    let line = format!("bench --output json --warmup 0s {line}");
    let output = vault.run(&line);
    assert_done(&line, &output);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_closed_loop_counts_requests_errors_and_the_servers_cpu() {
    let count = AtomicUsize::new(0);
    let vault = FakeVault::start(move |seen| match seen.target.as_str() {
        "/v1/keys" => Reply::Json(201, json!({"id": PAIR, "public_key": "AAAA"})),
        _ if count.fetch_add(1, Ordering::SeqCst) % 10 == 9 => problem(429, "rate_limited", true),
        _ => agreeable(seen),
    });
    // The fake lives in this very process.
    let report = bench(&vault, &format!("--node p1 --connections 3 --threads 2 --duration 400ms --server-pid {}", std::process::id()));
    let seen = vault.take_seen();
    assert_eq!(seen[0].body, json!({"node": "p1", "purpose": "signing", "spec": "ec-curve25519", "name": "bench"}));
    assert_eq!(seen[1].target, format!("/v1/keys/{PAIR}/sign"));
    let (requests, errors) = (report["requests"].as_u64().unwrap(), report["errors"]["rate_limited"].as_u64().unwrap());
    assert_eq!(requests + errors, seen.len() as u64 - 1);
    assert_eq!(errors, (requests + errors) / 10);
    assert_eq!(
        (&report["run"]["loop"], &report["run"]["algorithm"], &report["not_sent"]),
        (&json!("closed"), &json!("ed25519"), &json!(0))
    );
    assert!(report["latency_microseconds"]["p50"].as_f64().unwrap() > 0.0);
    assert!(report["latency_microseconds"]["p99_9"].as_f64().unwrap() <= report["latency_microseconds"]["max"].as_f64().unwrap());
    assert!(report["server"]["resident_bytes_after"].as_u64().unwrap() > 0);

    let output = vault.run(&format!("bench --warmup 0s --duration 100ms --key-id {PAIR}"));
    assert!(text(&output.stdout).starts_with("sign with ed25519, 16 connections, closed loop"), "{}", text(&output.stdout));
}

#[test]
fn in_an_open_loop_a_stall_shows_in_all_that_it_delayed() {
    let stalled = AtomicBool::new(false);
    let vault = FakeVault::start(move |_| {
        let answer = json!({"signature": ""});
        if stalled.swap(true, Ordering::SeqCst) { Reply::Json(200, answer) } else { Reply::Late(Duration::from_millis(400), 200, answer) }
    });
    let report = bench(&vault, &format!("--key-id {PAIR} --connections 1 --rate 200 --duration 1s"));
    // One request was slow, but it held up 80 of 200.
    assert_eq!(report["requests"].as_u64().unwrap() + report["not_sent"].as_u64().unwrap(), 200);
    assert!(report["latency_microseconds"]["p90"].as_f64().unwrap() > 150_000.0, "{report}");
}

#[test]
fn a_vault_that_falls_behind_the_rate_is_not_waited_for() {
    let vault = FakeVault::start(|_| Reply::Late(Duration::from_millis(100), 200, json!({})));
    let report = bench(&vault, &format!("--key-id {PAIR} --connections 1 --rate 100 --duration 500ms"));
    let (sent, not_sent) = (report["requests"].as_u64().unwrap(), report["not_sent"].as_u64().unwrap());
    assert_eq!(sent + not_sent, 50);
    // A tenth of a second each, and the one under way at the end is waited for.
    assert!((1..=6).contains(&sent), "{report}");
}

#[test]
fn each_operation_sends_what_it_says() {
    let vault = FakeVault::start(agreeable);
    let other = PAIR.replace("1220a6", "1220ff");
    std::fs::write(vault.file("ids"), format!("{PAIR}\n\n{other}\n")).unwrap();

    let report = bench(&vault, "--operation cold --key-ids-file ids --duration 10s");
    assert_eq!((&report["requests"], &report["run"]["keys"]), (&json!(2), &json!(2)));
    let mut targets: Vec<String> = vault.take_seen().into_iter().map(|seen| seen.target).collect();
    targets.sort();
    assert_eq!(targets, [format!("/v1/keys/{PAIR}/sign"), format!("/v1/keys/{other}/sign")]);

    let report = bench(&vault, &format!("--operation decrypt --algorithm aes-256-gcm --key-id {SYMMETRIC} --duration 100ms"));
    assert!(report["requests"].as_u64().unwrap() > 0);
    let seen = vault.take_seen();
    assert_eq!(seen[0].target, format!("/v1/keys/{SYMMETRIC}/encrypt"));
    assert_eq!(seen[1].body, json!({"algorithm": "aes-256-gcm", "ciphertext": "Y2lwaGVy"}));

    let report = bench(&vault, &format!("--operation encrypt --message-bytes 3 --key-id {SYMMETRIC} --duration 100ms"));
    assert!(report["requests"].as_u64().unwrap() > 0);
    assert_eq!(vault.take_seen()[0].body, json!({"algorithm": "aes-256-gcm", "plaintext": "paWl"}));

    let report = bench(&vault, &format!("--operation connect --connections 2 --key-id {PAIR} --duration 200ms"));
    assert!(report["requests"].as_u64().unwrap() > 0);

    assert_eq!(vault.run("bench").status.code(), Some(2));
    assert_eq!(vault.run(&format!("bench --operation cold --key-id {PAIR}")).status.code(), Some(2));
    assert_eq!(vault.run(&format!("bench --key-id {PAIR} --url https://localhost:1")).status.code(), Some(3));
}
