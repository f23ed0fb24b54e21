//! `audit reconcile` over the real binary: every call that the KMS recorded has an entry, a job, a report or a probe; calls of others and deleted records are
//! found.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::domain::Timestamp;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    jobs::{active, ended, rotated},
    kms::Kms,
    openbao::{LEAST, Openbao, token_line, write_token},
    proxy::TcpProxy,
    vault::{TestVault, until},
    wrapper::{CENTRAL, WEST},
};

/// The time now, which is the end of a period.
#[expect(clippy::disallowed_methods, reason = "the binary under test has the real clock")]
fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// CloudTrail has whole seconds: a call in the second of the stop could be later than it.
async fn until_next_second() {
    let second = now().seconds();
    until("the next second", || async { now().seconds() > second }).await;
}

/// Writes records as CloudTrail delivers them: compressed, in folders by region.
pub(crate) fn deliver(folder: &Path, records: &[Value]) {
    let _ = fs::remove_dir_all(folder);
    for region in [CENTRAL, WEST] {
        let of_region: Vec<&Value> = records.iter().filter(|record| record["awsRegion"] == region).collect();
        for (number, records) in of_region.chunks(7).enumerate() {
            let day = folder.join(format!("AWSLogs/123456789012/CloudTrail/{region}/2026/11/27"));
            fs::create_dir_all(&day).unwrap();
            let mut file = GzEncoder::new(File::create(day.join(format!("{region}_{number}.json.gz"))).unwrap(), Compression::fast());
            file.write_all(json!({ "Records": records }).to_string().as_bytes()).unwrap();
            file.finish().unwrap();
        }
    }
}

/// The exit code and the result of `audit reconcile`.
fn reconcile(vault: &TestVault, more: &[&str]) -> (i32, Value) {
    let pem = |file: &str| vault.path(file).display().to_string();
    let mut command = vault.command(&["audit", "reconcile", "--output", "json", "--url", vault.url()]);
    command.args(["--ca", &pem("pki/ca.pem"), "--cert", &pem("pki/auditor.pem"), "--key", &pem("pki/auditor.key")]);
    let output = command.args(more).output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), found)
}

/// Runs a command of the binary and gives what it printed.
fn printed(vault: &TestVault, arguments: &[&str]) -> Vec<u8> {
    let output = vault.command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A period from long before to a time.
fn until_time(to: Timestamp) -> [String; 4] {
    ["--from".into(), "2026-01-01".into(), "--to".into(), to.to_string()]
}

/// Nothing is left over in either direction.
fn assert_explained(found: &Value) {
    for list in ["unknown", "of_another_key", "missing", "missing_failed", "canaries", "reads", "not_yet_in_entries", "not_yet_delivered"] {
        assert_eq!(found[list]["total"], 0, "{list}: {found:#}");
    }
    assert_eq!((&found["reconciled"], &found["every_kms"]), (&json!(true), &json!(true)), "{found:#}");
}

fn principals(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["principal"].as_str().unwrap()).collect()
}

/// A vault whose wrapper key is in two regions, with a line to the first, probes every two seconds, and two further KMS keys.
async fn two_regions() -> (AwsVault, TcpProxy, [String; 3]) {
    let kms = Kms::shared().await;
    let arn = kms.create_key(CENTRAL, true).await;
    kms.call(CENTRAL, "ReplicateKey", json!({ "KeyId": arn, "ReplicaRegion": WEST })).await;
    let keys = [arn.clone(), kms.create_key(CENTRAL, false).await, kms.create_key(WEST, false).await];
    let line = TcpProxy::to(kms.endpoint().strip_prefix("http://").unwrap(), true);
    let wrapper = format!("regions = [{CENTRAL:?}, {WEST:?}]\nendpoints = {{ {CENTRAL} = {:?} }}\nprobe_interval = \"2s\"", line.url());
    let limits = Some("attempt_timeout = \"1500ms\"\ntimeout = \"8s\"\nretries = 2\nbreaker_cooldown = \"300ms\"\nbreaker_failures = 20");
    let sections = "[jobs]\nkeys_per_second = 1000\nretry_backoff = \"100ms\"\n[limits]\ncreations_per_minute = 100000".into();
    let aws = AwsVault::start(Setup { arn: Some(arn), wrapper, limits, sections, ..Setup::default() }).await;
    (aws, line, keys)
}

async fn register(aws: &AwsVault, arn: &str) -> String {
    let body = json!({ "provider": "aws-kms", "reference": arn });
    aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// The canaries of probes so far.
fn probes(aws: &AwsVault) -> usize {
    aws.kms.log(&aws.arn).iter().filter(|call| call["action"] == "Decrypt" && call["context"]["canary"].is_string()).count()
}

/// All kinds of calls: creations, uses of keys that are not open, throttling, a failover, an answer that is lost, one that is late, rotations inside and outside
/// of the KMS, a re-seal, probes, a question of an operator, a restart, `verify-backup` and `check`. Gives the reports.
async fn everything(aws: &mut AwsVault, line: &TcpProxy, keys: &[String; 3]) -> [PathBuf; 2] {
    let ids = [aws.key().await, aws.key().await, aws.key().await, aws.key().await, aws.key().await];
    assert!(aws.vault.terminate());
    aws.vault.serve();
    aws.sign(&ids[0]).await.unwrap();
    aws.kms.fault(json!({ "mode": "throttle", "only": "Decrypt", "key": aws.arn, "count": 1 })).await;
    aws.sign(&ids[1]).await.unwrap();
    aws.kms.fault(json!({ "mode": "drop", "only": "Decrypt", "key": aws.arn, "count": 1 })).await;
    aws.sign(&ids[2]).await.unwrap();
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 2500, "only": "Decrypt", "key": aws.arn, "region": CENTRAL, "count": 1 })).await;
    aws.sign(&ids[3]).await.unwrap();
    line.cut();
    aws.sign(&ids[4]).await.unwrap();
    line.mend();
    let central = register(aws, &keys[1]).await;
    let west = register(aws, &keys[2]).await;
    aws.vault.client("wrapper-admin").get(&format!("/v1/wrapper-keys/{west}")).await.unwrap();
    let first = active(&aws.vault).await;
    rotated(&aws.vault, &central).await;
    rotated(&aws.vault, &west).await;
    let reseal = aws.vault.client("key-admin").post("/v1/keys/reseals", &json!({})).await.unwrap();
    ended(&aws.vault, &reseal).await;
    rotated(&aws.vault, &first).await;
    let seen = probes(aws);
    until("the wrapper keys are probed", || async { probes(aws) > seen + 2 }).await;
    // A refusal has its entry too: the wrap is of another context.
    aws.vault.database().execute("UPDATE keys SET class = 'long-term' WHERE id = ?1", [&ids[4]]).unwrap();
    assert!(aws.vault.terminate());
    aws.vault.serve();
    aws.refused(&ids[4]).await;
    assert!(aws.vault.terminate());

    printed(&aws.vault, &["backup", "copy.db"]);
    let output = aws.vault.command(&["verify-backup", "copy.db", "--output", "json"]).output().unwrap();
    let reports = ["verify.json", "check.json"].map(|name| aws.vault.path(name));
    fs::write(&reports[0], output.stdout).unwrap();
    let _ = aws.vault.command(&["check", "--config", "keyvault.toml", "--report", "check.json"]).output().unwrap();
    reports
}

#[tokio::test]
async fn every_call_of_the_vault_is_explained_and_no_call_of_others() {
    let (mut aws, line, keys) = two_regions().await;
    let key_ids = keys.each_ref().map(String::as_str);
    let reports = everything(&mut aws, &line, &keys).await;
    until_next_second().await;
    let (records, to) = (aws.kms.records(&key_ids), now());
    let trail = aws.vault.path("trail");
    deliver(&trail, &records);
    aws.vault.serve();
    let [verify, check] = reports.each_ref().map(|path| path.to_str().unwrap().to_owned());
    let period = until_time(to);
    let period = period.each_ref().map(String::as_str);
    let base = [&["--cloudtrail", trail.to_str().unwrap()], &period[..]].concat();
    let with_reports = [&base[..], &["--report", &verify, "--report", &check]].concat();
    let (code, found) = reconcile(&aws.vault, &with_reports);
    assert_explained(&found);
    assert_eq!(code, 0, "{found:#}");

    // What the KMS recorded of an answer that was lost, and of one that was too late; and of a probe that a stop may have ended.
    let weaker: Vec<_> = found["by_context"]["items"].as_array().unwrap().iter().collect();
    assert!(weaker.iter().all(|call| call["by"].as_str().unwrap().starts_with("entry ")), "{weaker:#?}");
    let of_keys = weaker.iter().filter(|call| call["context"]["key_id"].is_string()).count();
    assert!(
        of_keys == 2 && weaker.iter().all(|call| call["context"].get("key_id").or(call["context"].get("canary")).is_some()),
        "{weaker:#?}"
    );
    // The test made the keys.
    let changes: Vec<&str> = found["changes"]["items"].as_array().unwrap().iter().map(|call| call["action"].as_str().unwrap()).collect();
    assert_eq!(changes.iter().filter(|action| **action == "CreateKey").count(), 3, "{changes:?}");
    assert_eq!((changes.len(), principals(&found["changes"])[0]), (4, "arn:aws:iam::123456789012:user/admin"), "{changes:?}");
    let by = &found["by_request_id"];
    let jobs = by["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 4, "{found:#}");
    for job in jobs {
        let principal = job["principal"].as_str().unwrap();
        assert!(principal.contains("wrapper-admin") || principal.contains("key-admin"), "{job}");
    }
    let reported: Vec<u64> = by["reports"].as_array().unwrap().iter().map(|report| report["calls"].as_u64().unwrap()).collect();
    let calls_of_jobs: u64 = jobs.iter().map(|job| job["calls"].as_u64().unwrap()).sum();
    let (entries, probes) = (by["entries"].as_u64().unwrap(), by["probes"].as_u64().unwrap());
    assert!(reported.iter().all(|calls| *calls > 2) && probes > 2 && entries > 15 && calls_of_jobs > 15, "{by:#}");
    let sum = entries + probes + calls_of_jobs + reported.iter().sum::<u64>() + weaker.len() as u64 + 4;
    assert_eq!(found["calls"], sum, "{found:#}");

    // A call with the context of a key is in the entry of its operation, and not among the calls of no operation.
    let loose: Vec<Value> = aws.entries("wrapper-keys.kms-calls", None).await;
    let loose: Vec<&Value> = loose.iter().flat_map(|entry| entry["kms_request_ids"].as_array().unwrap()).collect();
    let of_keys = records.iter().filter(|record| record["requestParameters"]["encryptionContext"]["key_id"].is_string());
    let stray: Vec<_> = of_keys.filter(|record| loose.contains(&&record["requestID"])).collect();
    assert!(!loose.is_empty() && stray.is_empty(), "{stray:#?}");

    // The same from an export, offline. Its entries are verified.
    let pem = |file: &str| aws.vault.path(file).display().to_string();
    let (ca, cert, key) = (pem("pki/ca.pem"), pem("pki/auditor.pem"), pem("pki/auditor.key"));
    let connection = ["--url", aws.vault.url(), "--ca", &ca, "--cert", &cert, "--key", &key];
    printed(&aws.vault, &[&["audit", "export", "--out", "log.ndjson"], &connection[..]].concat());
    fs::write(aws.vault.path("keys"), printed(&aws.vault, &[&["audit", "verifier-keys"], &connection[..]].concat())).unwrap();
    let offline = [&with_reports[..], &["--export", "log.ndjson", "--verifier-key", "keys"]].concat();
    let (code, from_export) = reconcile(&aws.vault, &offline);
    assert_eq!((code, &from_export["by_request_id"], &from_export["unknown"]), (0, by, &found["unknown"]), "{from_export:#}");

    // Without the reports, nothing explains the calls of the commands; those of check are mostly canaries.
    let (code, found) = reconcile(&aws.vault, &base);
    assert_eq!((code, found["reconciled"].as_bool()), (5, Some(false)));
    let unexplained: u64 = ["unknown", "canaries", "reads"].iter().map(|list| found[list]["total"].as_u64().unwrap()).sum();
    assert!(found["unknown"]["total"].as_u64() >= Some(4) && unexplained == reported.iter().sum::<u64>(), "{found:#}");

    // A deleted record is missing, with the entry that has it; one that was delivered twice counts once.
    let signed = aws.entries("keys.sign", None).await.into_iter().find(|entry| entry["kms_request_ids"].is_array()).unwrap();
    let deleted = signed["kms_request_ids"][0].as_str().unwrap();
    let mut fewer: Vec<Value> = records.iter().filter(|record| record["requestID"] != deleted).cloned().collect();
    fewer.push(fewer[0].clone());
    deliver(&trail, &fewer);
    let (code, found) = reconcile(&aws.vault, &with_reports);
    assert_eq!((code, &found["missing"]["total"], &found["duplicates"]), (5, &json!(1), &json!(1)), "{found:#}");
    let missing = &found["missing"]["items"][0];
    assert_eq!((missing["request_id"].as_str(), &missing["operation"]), (Some(deleted), &json!("keys.sign")));
    assert_eq!(missing["by"], format!("entry {}", signed["sequence"]));

    somebody_else_is_found(&mut aws, &keys, &records).await;
}

/// Someone opens a wrap of the vault in its own context, and changes a key. There is an export from before.
async fn somebody_else_is_found(aws: &mut AwsVault, keys: &[String; 3], records: &[Value]) {
    let context = records.iter().find(|record| record["requestParameters"]["encryptionContext"]["key_id"].is_string()).unwrap();
    let context = &context["requestParameters"]["encryptionContext"];
    let wrapped = json!({ "KeyId": aws.arn, "Plaintext": STANDARD.encode([7; 32]), "EncryptionContext": context });
    let made = aws.kms.call_as("mallory", CENTRAL, "Encrypt", wrapped).await;
    let opened = json!({ "KeyId": aws.arn, "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context });
    aws.kms.call_as("mallory", CENTRAL, "Decrypt", opened).await;
    aws.kms.call_as("mallory", CENTRAL, "DescribeKey", json!({ "KeyId": aws.arn })).await;
    aws.kms.call_as("mallory", CENTRAL, "DisableKey", json!({ "KeyId": keys[1] })).await;
    until_next_second().await;
    assert!(aws.vault.terminate());
    let to = now();
    let trail = aws.vault.path("trail");
    deliver(&trail, &aws.kms.records(&keys.each_ref().map(String::as_str)));
    aws.vault.serve();
    let period = until_time(to);
    let period = period.each_ref().map(String::as_str);
    let all = [&["--cloudtrail", trail.to_str().unwrap(), "--report", "verify.json", "--report", "check.json"], &period[..]].concat();
    let (code, found) = reconcile(&aws.vault, &all);
    let mallory = "arn:aws:iam::123456789012:user/mallory";
    assert_eq!((code, principals(&found["unknown"])), (5, vec![mallory; 2]), "{found:#}");
    let unknown = &found["unknown"]["items"][1];
    assert_eq!((&unknown["action"], &unknown["place"], &unknown["key"]), (&json!("Decrypt"), &json!(CENTRAL), &json!(aws.arn)));
    assert!(
        unknown["context"] == *context && unknown["about"].as_str().unwrap().starts_with("key_id=1220") && unknown["source"] == "127.0.0.1",
        "{unknown}"
    );
    assert_eq!((principals(&found["reads"]), *principals(&found["changes"]).last().unwrap()), (vec![mallory], mallory), "{found:#}");
    let text = aws
        .vault
        .command(&[&["audit", "reconcile"], &all[..], &["--export", "log.ndjson", "--verifier-key", "keys"]].concat())
        .output()
        .unwrap();
    let (shown, error) = (String::from_utf8(text.stdout).unwrap(), String::from_utf8(text.stderr).unwrap());
    assert!(shown.contains("NOT YET IN ENTRIES") && shown.contains(mallory), "the export is older than these calls: {shown} {error}");
}

/// A process that was killed leaves calls without an entry. They are explained by the time of its end only, and only if its identity made them.
#[tokio::test]
async fn calls_of_a_killed_process_are_explained_by_its_end() {
    let mut aws = AwsVault::start(Setup { wrapper: "probe_interval = \"2s\"".into(), ..Setup::default() }).await;
    let key = aws.key().await;
    let seen = probes(&aws);
    until("it is probed", || async { probes(&aws) > seen }).await;
    aws.vault.restart();
    aws.sign(&key).await.unwrap();
    let context = json!({ "version": "1", "vault": "dev", "key_id": key });
    let made = json!({ "KeyId": aws.arn, "Plaintext": STANDARD.encode([7; 32]), "EncryptionContext": context });
    aws.kms.call_as("mallory", CENTRAL, "Encrypt", made).await;
    until_next_second().await;
    assert!(aws.vault.terminate());
    let (records, to) = (aws.kms.records(&[&aws.arn]), now());
    let trail = aws.vault.path("trail");
    deliver(&trail, &records);
    aws.vault.serve();
    let period = until_time(to);
    let (code, found) =
        reconcile(&aws.vault, &[&["--cloudtrail", trail.to_str().unwrap()], &period.each_ref().map(String::as_str)[..]].concat());
    assert_eq!((code, principals(&found["unknown"])), (5, vec!["arn:aws:iam::123456789012:user/mallory"]), "{found:#}");
    let weaker = found["by_context"]["items"].as_array().unwrap();
    assert!(
        !weaker.is_empty() && weaker.iter().all(|call| call["by"].as_str().unwrap().starts_with("the process that ended")),
        "{found:#}"
    );
    assert_eq!((&found["missing"]["total"], &found["canaries"]["total"]), (&json!(0), &json!(0)), "{found:#}");
}

/// The credentials of the vault are stolen: the same role, key and context, and no entry.
#[tokio::test]
async fn a_call_with_the_credentials_of_the_vault_is_unknown() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let key = aws.key().await;
    let wrapped = aws.kms_calls(&key).iter().find(|call| call["action"] == "Encrypt").unwrap()["context"].clone();
    let made = json!({ "KeyId": aws.arn, "Plaintext": STANDARD.encode([7; 32]), "EncryptionContext": wrapped });
    aws.kms.call_as("test", CENTRAL, "Encrypt", made).await;
    until_next_second().await;
    assert!(aws.vault.terminate());
    let (records, to) = (aws.kms.records(&[&aws.arn]), now());
    let trail = aws.vault.path("trail");
    deliver(&trail, &records);
    aws.vault.serve();
    let period = until_time(to);
    let (code, found) =
        reconcile(&aws.vault, &[&["--cloudtrail", trail.to_str().unwrap()], &period.each_ref().map(String::as_str)[..]].concat());
    assert_eq!((code, found["unknown"]["total"].as_u64(), found["by_context"]["total"].as_u64()), (5, Some(1), Some(0)), "{found:#}");
    assert_eq!(found["unknown"]["items"][0]["action"], "Encrypt");
}

/// What cannot be compared is an error, and never a result.
#[tokio::test]
async fn files_that_cannot_be_read_end_the_command() {
    let vault = TestVault::start();
    let file = vault.path("file.json");
    for (content, option, says) in [
        ("{\"Records\": [", "--cloudtrail", "not a file of CloudTrail"),
        ("no lines\n{}\n", "--openbao", "line 1 is none"),
        ("\u{1f}\u{8b}", "--cloudtrail", "not a file of CloudTrail"),
        ("{\"Records\": []}", "--cloudtrail", "no call of a KMS"),
    ] {
        fs::write(&file, content).unwrap();
        let pem = |file: &str| vault.path(file).display().to_string();
        let mut command =
            vault.command(&["audit", "reconcile", option, "file.json", "--wrapper-key", "aws:aws:123456789012:k", "--url", vault.url()]);
        command.args(["--ca", &pem("pki/ca.pem"), "--cert", &pem("pki/auditor.pem"), "--key", &pem("pki/auditor.key")]);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)) && error.contains(says), "{content}: {error}");
    }
}

/// OpenBao gives no request id with an error, so that its refusals are explained by path and time.
#[tokio::test]
async fn every_call_to_openbao_is_explained_and_no_call_of_others() {
    let server = Openbao::shared().await;
    let name = server.create_key(json!({})).await;
    let policy = server.policy(&LEAST).await;
    let login = write_token(&server.token(json!({ "policies": [policy], "period": "1h" })).await);
    let cluster = format!(
        "[[wrapper.openbao]]\naddresses = [{:?}]\nca = '{}'\n{}",
        server.address(),
        server.file("ca.pem").display(),
        token_line(login.path())
    );
    let limits = "[wrapper.limits]\nattempt_timeout = '1500ms'\ntimeout = '4s'\nretries = 1\nbreaker_cooldown = '300ms'";
    let wrapper = format!(
        "provider = 'openbao-transit'\nreference = {:?}\nallowed = [{:?}]\nprobe_interval = '2s'",
        server.url(&name),
        server.url("*")
    );
    let mut vault = TestVault::start_with(|config| {
        let (before, rest) = config.split_once("[wrapper]").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        format!("{before}[wrapper]\n{wrapper}\n{limits}\n{cluster}\n[log]{after}")
    });
    let client = vault.client("participant1");
    until("there is a wrapper key", || async {
        !vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap()["items"][0].is_null()
    })
    .await;
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let id = client.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned();
    let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
    server.set_policy(&policy, &["encrypt", "keys"]).await;
    until("it is refused", || async { vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await.is_err() }).await;
    server.set_policy(&policy, &LEAST).await;
    until("it signs again", || async { vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await.is_ok() }).await;
    assert!(vault.terminate());

    // The file of a server that others use too.
    let (log, to) = (vault.path("bao.log"), now());
    let lines = fs::read_to_string(server.file("requests.log")).unwrap();
    fs::write(&log, &lines).unwrap();
    vault.serve();
    let period = until_time(to);
    let base = [&["--openbao", "bao.log"], &period.each_ref().map(String::as_str)[..]].concat();
    let (code, found) = reconcile(&vault, &base);
    assert_explained(&found);
    assert_eq!(code, 0, "{found:#}");
    assert!(found["by_context"]["total"].as_u64() >= Some(1), "the refusals: {found:#}");
    assert!(found["other_keys"].as_u64() >= Some(1) && found["by_request_id"]["probes"].as_u64() >= Some(1), "{found:#}");

    // A line is deleted, with its response.
    let entries = vault.client("auditor").get("/v1/audit/entries?operation=keys.create").await.unwrap();
    let deleted = entries["items"][0]["kms_request_ids"][0].as_str().unwrap().to_owned();
    let fewer: String = lines.lines().filter(|line| !line.contains(&deleted)).flat_map(|line| [line, "\n"]).collect();
    fs::write(&log, fewer).unwrap();
    let (code, found) = reconcile(&vault, &base);
    assert_eq!(
        (code, &found["missing"]["total"], &found["missing"]["items"][0]["request_id"]),
        (5, &json!(1), &json!(deleted)),
        "{found:#}"
    );

    // Somebody else decrypts with the key.
    let made = server.call("POST", &format!("transit/encrypt/{name}"), json!({ "plaintext": STANDARD.encode("mine") })).await;
    let body = json!({ "ciphertext": made["data"]["ciphertext"] });
    server.call("POST", &format!("transit/decrypt/{name}"), body).await;
    until_next_second().await;
    assert!(vault.terminate());
    fs::copy(server.file("requests.log"), &log).unwrap();
    let period = until_time(now());
    vault.serve();
    let (code, found) = reconcile(&vault, &[&["--openbao", "bao.log"], &period.each_ref().map(String::as_str)[..]].concat());
    assert_eq!((code, principals(&found["unknown"])), (5, vec!["root"; 2]), "{found:#}");
    assert_eq!(found["unknown"]["items"][1]["place"], format!("transit/decrypt/{name}"));
}
