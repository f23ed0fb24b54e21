//! Rotation between keys of AWS KMS: the calls that KMS receives, that no private key is opened, and what is refused before anything
//! changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{
    memory_scan::scan,
    secret_search::{KnownKey, Patterns, known_keys},
    support::{
        aws_vault::{AwsVault, Setup, ops},
        jobs::{active, ended, rotate, rotated, wrapper_key, wraps},
        vault::problem,
        wrapper::CENTRAL,
    },
};

/// Limits that no test reaches; `[jobs]` as given.
fn sections(keys_per_second: u32) -> String {
    format!(
        "[limits]\ncreations_per_minute = 1000000\ncache_misses_per_second = 1000000\n[jobs]\nkeys_per_second = {keys_per_second}\nretry_backoff = \"100ms\""
    )
}

async fn start(keys_per_second: u32) -> AwsVault {
    AwsVault::start(Setup { sections: sections(keys_per_second), ..Setup::default() }).await
}

/// Registers a new KMS key, and gives its id and its ARN.
async fn register(aws: &AwsVault) -> (String, String) {
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let body = json!({ "provider": "aws-kms", "reference": arn });
    let made = aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap();
    (made["id"].as_str().unwrap().to_owned(), arn)
}

/// A counter of `/metrics`, over all labels.
async fn counter(aws: &AwsVault, name: &str) -> f64 {
    let text = ops(&aws.vault, "/metrics").await.1;
    text.lines().filter(|line| line.starts_with(name)).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// What KMS was asked about one of the two keys.
fn calls_of(aws: &AwsVault, arns: [&str; 2]) -> Vec<Value> {
    let mut calls = aws.kms.log("key/");
    let names = |call: &Value, field: &str| arns.iter().any(|arn| call[field].as_str().is_some_and(|text| text.contains(arn)));
    calls.retain(|call| ["key_id", "source_key_id", "destination_key_id"].iter().any(|field| names(call, field)));
    calls
}

async fn import(aws: &AwsVault, known: &[KnownKey]) -> Vec<String> {
    let (admin, mut ids) = (aws.vault.client("key-admin"), Vec::new());
    for key in known {
        ids.push(admin.create("/v1/keys/import", &key.import).await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_by_reencrypt_asks_kms_for_nothing_else_and_opens_no_private_key() {
    // Slow enough for the memory to be searched while it runs.
    let mut aws = start(2).await;
    let known = known_keys();
    let ids = import(&aws, &known).await;
    aws.vault.restart();
    let from = active(&aws.vault).await;
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let body = json!({ "provider": "aws-kms", "reference": arn });
    let to = aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned();
    let job = rotate(&aws.vault, &to).await;
    let (patterns, pid, mut scans) = (Patterns::of(&known), aws.vault.pid(), 0);
    let client = aws.vault.client("wrapper-admin");
    let path = format!("/v1/wrapper-keys/rotations/{}", job["id"].as_str().unwrap());
    while client.get(&path).await.unwrap()["state"] == "running" {
        assert_eq!(scan(pid, &patterns), [""; 0], "while it runs");
        scans += 1;
    }
    assert!(scans >= 2, "{scans} searches are none");
    assert_eq!(scan(pid, &patterns), [""; 0], "after it");
    let job = client.get(&path).await.unwrap();
    assert_eq!((&job["state"], &job["done"]), (&json!("succeeded"), &json!(known.len())), "{job}");
    assert!(counter(&aws, "keyvault_keys_opened_total").await < 0.5, "no private key came out of its seal");

    // For each key KMS re-encrypted once, and proved the result once; in the same context, and naming both keys.
    for id in &ids {
        let calls = aws.kms_calls(id);
        let new: Vec<_> = calls.iter().skip_while(|call| call["action"] != "ReEncrypt").collect();
        let actions: Vec<_> = new.iter().map(|call| call["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["ReEncrypt", "Decrypt"], "{calls:#?}");
        assert_eq!((&new[0]["source_key_id"], &new[0]["destination_key_id"]), (&json!(aws.arn), &json!(arn)), "{new:#?}");
        assert_eq!(new[1]["key_id"], json!(arn));
        assert_eq!(wraps(&aws.vault, id).await, [from.clone(), to.clone()]);
    }
    let entries = aws.entries("keys.rewrap", None).await;
    assert_eq!(entries.len(), known.len());
    for entry in &entries {
        let subject = entry["subject"].as_str().unwrap();
        assert!(subject.starts_with(&format!("{from} to {to}, re-encrypted by the KMS")), "{subject}");
        let calls = aws.kms_calls(entry["key_id"].as_str().unwrap());
        let ids: Vec<_> = calls.iter().skip_while(|call| call["action"] != "ReEncrypt").map(|call| call["request_id"].clone()).collect();
        assert_eq!(entry["kms_request_ids"], json!(ids), "the log names the requests that KMS saw");
    }
    // The report of the rotation has the same request ids, and counts what KMS re-encrypted.
    let id = job["id"].as_str().unwrap();
    let (text, code) = crate::audit_report::html(&aws.vault, &["wrapper", "rotation", "report", id]);
    assert_eq!(code, Some(0), "{text}");
    let report = crate::audit_report::Report::of(&text);
    let of_job: Vec<_> = entries.iter().filter(|entry| entry["subject"].as_str().unwrap().ends_with(id)).collect();
    assert_eq!((report.number("re-encrypted"), report.number("unwrapped"), report.number("missing")), (of_job.len() as u64, 0, 0));
    for (row, entry) in report.columns("rewraps", &[2, 5]).iter().zip(&of_job) {
        let ids: Vec<_> = entry["kms_request_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!((row[0].as_str(), row[1].as_str()), (entry["key_id"].as_str().unwrap(), &*ids.join(", ")));
    }
    // The one before is not needed any more.
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
    aws.vault.restart();
    for (known, id) in known.iter().zip(&ids) {
        if known.purpose == canton_keyvault::domain::Purpose::Signing {
            let algorithm = match known.spec {
                canton_keyvault::domain::KeySpec::EcCurve25519 => "ed25519",
                canton_keyvault::domain::KeySpec::EcP384 => "ecdsa-sha384",
                _ => "ecdsa-sha256",
            };
            let ask = json!({ "algorithm": algorithm, "message": "aGVsbG8=" });
            aws.vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await.unwrap();
        }
    }
}

/// Nothing begins with a wrapper key that cannot do what it must: the active one stays, and no job is left behind.
#[tokio::test]
async fn a_rotation_to_a_wrapper_key_that_cannot_is_refused_before_anything_changes() {
    let aws = start(1000).await;
    let (first, key) = (active(&aws.vault).await, aws.key().await);
    let (to, arn) = register(&aws).await;
    let admin = aws.vault.client("wrapper-admin");
    for (action, narrowed) in [("Decrypt", &arn), ("Encrypt", &arn)] {
        aws.kms.fault(json!({ "mode": "denied", "only": action, "key": narrowed })).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let refused = problem(admin.post("/v1/wrapper-keys/rotations", &json!({ "to": to })).await);
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (502, "wrapper_denied", false), "{action}");
        aws.kms.fault(json!({ "mode": "none", "key": narrowed })).await;
    }
    assert_eq!(active(&aws.vault).await, first);
    assert_eq!(admin.get("/v1/wrapper-keys/rotations").await.unwrap()["items"], json!([]));
    assert_eq!(wrapper_key(&aws.vault, &to).await["state"], "standby");
    aws.sign(&key).await.unwrap();

    // The active one by another name or from another account is refused where it would be registered.
    let other_account = aws.arn.replace("123456789012", "999999999999");
    for (reference, code) in [(&aws.arn, "wrapper_key_exists"), (&other_account, "wrapper_not_allowed")] {
        let refused = problem(admin.create("/v1/wrapper-keys", &json!({ "provider": "aws-kms", "reference": reference })).await);
        assert_eq!(refused.code, code);
    }
}

/// What one of the keys is needed for, KMS must be willing to re-encrypt: else the rotation would stop at the first key.
#[tokio::test]
async fn a_rotation_without_the_right_to_reencrypt_is_refused_before_anything_changes() {
    let aws = start(1000).await;
    let first = active(&aws.vault).await;
    aws.key().await;
    let arn = aws.kms.create_key(CENTRAL, false).await;
    aws.kms.fault(json!({ "mode": "denied", "only": "ReEncrypt", "key": arn })).await;
    let admin = aws.vault.client("wrapper-admin");
    let added = admin.create("/v1/wrapper-keys", &json!({ "provider": "aws-kms", "reference": arn })).await.unwrap();
    let refused = problem(admin.post("/v1/wrapper-keys/rotations", &json!({ "to": added["id"] })).await);
    assert_eq!(refused.code, "wrapper_denied");
    assert_eq!((active(&aws.vault).await, &admin.get("/v1/wrapper-keys/rotations").await.unwrap()["items"]), (first, &json!([])));
    aws.kms.fault(json!({ "mode": "none", "key": arn })).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rotated(&aws.vault, added["id"].as_str().unwrap()).await;
}

/// A KMS that is away or throttles for a while holds a rotation up and does not end it.
#[tokio::test]
async fn a_rotation_outlives_outages() {
    let aws = start(1000).await;
    for _ in 0..6 {
        aws.key().await;
    }
    let (to, arn) = register(&aws).await;
    let job = rotate(&aws.vault, &to).await;
    for mode in ["throttle", "drop", "internal"] {
        aws.kms.fault(json!({ "mode": mode, "key": arn, "count": 8 })).await;
    }
    let job = ended(&aws.vault, &job).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

/// One that refuses for good ends it, and what is left is done by another.
#[tokio::test]
async fn a_rotation_with_permanent_failures_fails_and_can_be_continued() {
    // Slow enough for the wrapper key to be disabled in the middle, on a busy machine too.
    let aws = start(1).await;
    for _ in 0..6 {
        aws.key().await;
    }
    let (to, arn) = register(&aws).await;
    let job = rotate(&aws.vault, &to).await;
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": arn })).await;
    let job = ended(&aws.vault, &job).await;
    assert_eq!((&job["state"], &job["errors"][0]["code"]), (&json!("failed"), &json!("wrapper_denied")), "{job}");
    assert_eq!(job["failed"].as_u64().unwrap() + job["done"].as_u64().unwrap(), 6, "{job}");
    aws.kms.call(CENTRAL, "EnableKey", json!({ "KeyId": arn })).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rotated(&aws.vault, &to).await;
    assert_eq!(wrapper_key(&aws.vault, &to).await["keys"], 6);
}

/// Keys that clients sign with all the time; the others are only there to be rotated.
const HOT: usize = 64;

/// Signs with the cached keys until stopped, one call after the other.
async fn sign_on(aws: &AwsVault, keys: Arc<Vec<String>>, number: usize, over: Arc<AtomicBool>, failed: Arc<AtomicU64>) -> Histogram<u64> {
    let (client, mut times) = (aws.vault.client("participant1"), Histogram::new(3).unwrap());
    let ask = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    for turn in number.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        if let Err(error) = client.post(&format!("/v1/keys/{}/sign", keys[turn % keys.len()]), &ask).await {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("failed: {error}");
        }
        times.record(u64::try_from(began.elapsed().as_micros()).unwrap()).unwrap();
    }
    times
}

/// The latencies of 16 clients while `during` goes on.
async fn signing<T>(aws: &Arc<AwsVault>, hot: &Arc<Vec<String>>, during: impl Future<Output = T>) -> (Histogram<u64>, u64, T) {
    let (over, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let (aws, hot, over, failed) = (Arc::clone(aws), Arc::clone(hot), Arc::clone(&over), Arc::clone(&failed));
            tokio::spawn(async move { sign_on(&aws, hot, number, over, failed).await })
        })
        .collect();
    let result = during.await;
    over.store(true, Ordering::Relaxed);
    let mut all = Histogram::new(3).unwrap();
    for client in clients {
        all.add(client.await.unwrap()).unwrap();
    }
    (all, failed.load(Ordering::Relaxed), result)
}

fn told(what: &str, times: &Histogram<u64>) -> String {
    let at = |quantile: f64| times.value_at_quantile(quantile);
    format!("{what}: {} signatures, p50 {} us, p99 {} us, max {} us", times.len(), at(0.5), at(0.99), times.max())
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// `KEYVAULT_ROTATION_KEYS=10000 KEYVAULT_ROTATION_RATE=50 cargo test --release --test it -- sixteen_clients --nocapture` is the long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_while_sixteen_clients_sign_and_no_call_fails() {
    let (count, rate) = (number("KEYVAULT_ROTATION_KEYS", 150), number("KEYVAULT_ROTATION_RATE", 50));
    let mut aws = start(u32::try_from(rate).unwrap()).await;
    let began = Instant::now();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let creating: Vec<_> = (0..4)
        .map(|part| {
            let (client, new) = (aws.vault.client("participant1"), new.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in (part..count).step_by(4) {
                    ids.push(client.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned());
                }
                ids
            })
        })
        .collect();
    let mut keys = Vec::new();
    for part in creating {
        keys.extend(part.await.unwrap());
    }
    println!("{} keys made in {:?}", keys.len(), began.elapsed());
    let arn = aws.kms.create_key(CENTRAL, false).await;
    let hot = Arc::new(keys.iter().take(HOT).cloned().collect::<Vec<_>>());
    let shared = Arc::new(aws);
    let _ = signing(&shared, &hot, tokio::time::sleep(Duration::from_secs(2))).await;
    let (rest, failed, ()) = signing(&shared, &hot, tokio::time::sleep(Duration::from_secs(if count > 1000 { 20 } else { 3 }))).await;
    assert_eq!(failed, 0);
    let calls_before = calls_of(&shared, [&shared.arn, &arn]).len();
    let rotation = async {
        // Registered in the moment of the rotation, so that this does the work and not the filling of a standby wrapper key.
        let body = json!({ "provider": "aws-kms", "reference": arn });
        let id = shared.vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned();
        let began = Instant::now();
        let (client, mut job) = (shared.vault.client("wrapper-admin"), rotate(&shared.vault, &id).await);
        while job["state"] == "running" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            job = client.get(&format!("/v1/wrapper-keys/rotations/{}", job["id"].as_str().unwrap())).await.unwrap();
        }
        (job, began.elapsed())
    };
    let (busy, failed, (job, took)) = signing(&shared, &hot, rotation).await;
    assert_eq!((failed, &job["state"], &job["done"]), (0, &json!("succeeded"), &json!(count)), "{job}");
    let calls = calls_of(&shared, [&shared.arn, &arn]).split_off(calls_before);
    let of = |action: &str| calls.iter().filter(|call| call["action"] == action).count();
    println!(
        "rotated in {took:?} at {rate} keys/s; KMS: {} ReEncrypt, {} Decrypt, {} Encrypt",
        of("ReEncrypt"),
        of("Decrypt"),
        of("Encrypt")
    );
    println!("{}\n{}", told("at rest", &rest), told("while it rotates", &busy));
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = busy.value_at_quantile(0.99) as f64 / rest.value_at_quantile(0.99) as f64;
    println!("p99 ratio {ratio:.2}");
    assert!(of("ReEncrypt") >= count && of("Decrypt") >= count, "{calls:#?}");

    // With nothing in memory, and the former wrapper key away, every key signs.
    aws = Arc::into_inner(shared).unwrap();
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
    aws.vault.restart();
    let (began, aws) = (Instant::now(), Arc::new(aws));
    let signing: Vec<_> = (0..8)
        .map(|part| {
            let (aws, keys) = (Arc::clone(&aws), keys.iter().skip(part).step_by(8).cloned().collect::<Vec<_>>());
            tokio::spawn(async move {
                let (client, ask) = (aws.vault.client("participant1"), json!({ "algorithm": "ed25519", "message": "aGVsbG8=" }));
                for key in keys {
                    client.post(&format!("/v1/keys/{key}/sign"), &ask).await.unwrap();
                }
            })
        })
        .collect();
    for part in signing {
        part.await.unwrap();
    }
    println!("{count} cold signatures in {:?}", began.elapsed());
}
