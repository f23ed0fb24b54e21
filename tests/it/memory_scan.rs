//! Reads the memory of the running process as root: no key is left after a disable, a freeze, a deletion or its maximum age.

use std::{
    fs::{File, read_to_string},
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, chown},
        process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    cli::pki,
    client::Client,
    crypto::{SystemRandom, ecies_sender::encrypt_to},
    domain::{KeySpec, Purpose},
};
use serde_json::{Value, json};

use crate::{
    known_bytes::unbase64,
    secret_search::{KnownKey, Patterns, key_name, known_keys},
    support::vault::TestVault,
};

/// Within the second of invariant 9 (ARCHITECTURE.md), and one more for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Every writable page of the process, a region at a time.
fn memory(pid: u32, mut visit: impl FnMut(&str, &[u8])) {
    let permission = "reading /proc/PID/mem of a process that is not dumpable needs root (CAP_SYS_PTRACE); run this test as root";
    let maps = read_to_string(format!("/proc/{pid}/maps")).unwrap_or_else(|error| panic!("{permission}: {error}"));
    let mem = File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| panic!("{permission}: {error}"));
    let mut bytes = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        // What is not there any more was unmapped meanwhile.
        let mut region = vec![0; usize::try_from(end - start).unwrap()];
        if mem.read_exact_at(&mut region, start).is_ok() {
            bytes += region.len();
            visit(line, &region);
        }
    }
    assert!(bytes > 1 << 20, "{bytes} bytes are not the memory of a server");
}

/// The positions of the patterns in the memory of the process.
pub(crate) fn scan(pid: u32, patterns: &Patterns) -> Vec<String> {
    let mut found = Vec::new();
    memory(pid, |region, bytes| found.extend(patterns.find(bytes).into_iter().map(|(at, name)| format!("{name} at {at:#x} of {region}"))));
    found
}

/// Uses a key, so that it is open.
async fn use_key(client: &Client, known: &KnownKey, key: &Value) {
    let id = key["id"].as_str().unwrap();
    let message = STANDARD.encode("a message");
    let spki = key["public_key"].as_str().map(unbase64);
    let (verb, body) = match (known.purpose, known.spec) {
        (Purpose::Symmetric, _) => ("encrypt", json!({ "plaintext": message })),
        (Purpose::Encryption, KeySpec::Rsa2048) => {
            let public = aws_lc_rs::rsa::PublicEncryptingKey::from_der(&spki.unwrap()).unwrap();
            let public = aws_lc_rs::rsa::OaepPublicEncryptingKey::new(public).unwrap();
            let mut ciphertext = vec![0; 256];
            public.encrypt(&aws_lc_rs::rsa::OAEP_SHA256_MGF1SHA256, b"plain", &mut ciphertext, None).unwrap();
            ("decrypt", json!({ "algorithm": "rsa-oaep-sha256", "ciphertext": STANDARD.encode(ciphertext) }))
        }
        (Purpose::Encryption, _) => {
            let ciphertext = encrypt_to(&spki.unwrap(), b"plain", &SystemRandom::default()).unwrap();
            ("decrypt", json!({ "algorithm": "ecies-hkdf-hmac-sha256-aes128-cbc", "ciphertext": STANDARD.encode(ciphertext) }))
        }
        (Purpose::Signing, spec) => {
            let algorithm = match spec {
                KeySpec::EcCurve25519 => "ed25519",
                KeySpec::EcP384 => "ecdsa-sha384",
                _ => "ecdsa-sha256",
            };
            ("sign", json!({ "algorithm": algorithm, "message": message }))
        }
    };
    client.post(&format!("/v1/keys/{id}/{verb}"), &body).await.unwrap_or_else(|error| panic!("{} {}: {error}", known.spec, known.purpose));
}

async fn use_all(vault: &TestVault, known: &[KnownKey], keys: &[Value]) {
    let client = vault.client("participant1");
    for (known, key) in known.iter().zip(keys) {
        for _ in 0..3 {
            use_key(&client, known, key).await;
        }
    }
}

/// Every kind of key is in memory now, each in a form that the search knows: without this, finding nothing would mean nothing.
fn assert_all_are_there(pid: u32, known: &[KnownKey]) {
    let found = scan(pid, &Patterns::of(known));
    for (number, key) in known.iter().enumerate() {
        let name = key_name(number, key);
        assert!(found.iter().any(|found| found.starts_with(&name)), "{name} is open, but the search does not see it");
    }
}

/// Nothing is there any more.
fn assert_none_is_there(pid: u32, patterns: &Patterns, within: Duration, when: &str) {
    let began = Instant::now();
    loop {
        let found = scan(pid, patterns);
        if found.is_empty() {
            break;
        }
        assert!(began.elapsed() < within, "{when}: {} found: {found:#?}", found.len());
    }
    let control = pki::principal("participant1");
    assert!(!scan(pid, &Patterns::of_text(&control)).is_empty(), "a principal's name is no secret, and must be found");
}

async fn for_each(client: &Client, keys: &[Value], verb: &str) {
    for key in keys {
        let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
        match verb {
            "delete" => client.delete(&path).await.unwrap(),
            verb => client.post(&format!("{path}/{verb}"), &json!({})).await.unwrap(),
        };
    }
}

/// A vault into which the keys were imported and that has used all of them; with the client that imported them, still connected.
async fn vault_with(known: &[KnownKey], settings: &'static str) -> (TestVault, Vec<Value>, Client) {
    let vault = TestVault::start_with(|config| config + settings);
    let admin = vault.client("key-admin");
    let mut keys = Vec::new();
    for key in known {
        keys.push(admin.create("/v1/keys/import", &key.import).await.unwrap());
    }
    use_all(&vault, known, &keys).await;
    (vault, keys, admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_left_in_memory_once_it_is_out_of_use() {
    let known = known_keys();
    let patterns = Patterns::of(&known);
    let (vault, keys, admin) = vault_with(&known, "").await;
    let pid = vault.pid();
    assert_all_are_there(pid, &known);
    for_each(&admin, &keys, "disable").await;
    assert_none_is_there(pid, &patterns, AT_ONCE, "after an import, uses and a disable");

    for_each(&admin, &keys, "enable").await;
    use_all(&vault, &known, &keys).await;
    assert_all_are_there(pid, &known);
    admin.post("/v1/freeze", &json!({})).await.unwrap();
    assert_none_is_there(pid, &patterns, AT_ONCE, "after a freeze");

    vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.unwrap();
    use_all(&vault, &known, &keys).await;
    assert_all_are_there(pid, &known);
    for_each(&admin, &keys, "delete").await;
    assert_none_is_there(pid, &patterns, AT_ONCE, "after a deletion was scheduled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_outlives_its_residency() {
    let known = known_keys();
    let (vault, _, _admin) = vault_with(&known, "\n[cache]\nmax_age = \"8s\"\nidle_timeout = \"8s\"\n").await;
    assert_all_are_there(vault.pid(), &known);
    assert_none_is_there(vault.pid(), &Patterns::of(&known), Duration::from_secs(30), "after its max_age");
}

/// Whom the files of a process in `/proc` belong to.
fn owner(child: &Child) -> u32 {
    std::fs::metadata(format!("/proc/{}/maps", child.id())).unwrap().uid()
}

#[test]
fn the_process_cannot_be_dumped_nor_read_by_its_own_user() {
    const NOBODY: u32 = 65534;
    let vault = TestVault::prepare(|config| config);
    for path in ["", "pki", "pki/ca.pem", "pki/server.pem", "pki/server.key", "wrapper.key", "keyvault.toml"] {
        let permission = "running the vault as another user needs root; run this test as root";
        chown(vault.path(path), Some(NOBODY), None).unwrap_or_else(|error| panic!("{permission}: {error}"));
    }
    let mut serve = vault.command(&["serve"]).uid(NOBODY).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(serve.stderr.take().unwrap()).lines().map_while(Result::ok);
    let log: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line).expect(&line)).take_while(|line: &Value| line["message"] != "listening").collect();
    let limits = read_to_string(format!("/proc/{}/limits", serve.id())).unwrap();
    let (owned_by, mut other) = (owner(&serve), Command::new("sleep").arg("60").uid(NOBODY).spawn().unwrap());
    // proc(5): the files of a process that is not dumpable belong to root, so that its own user cannot read its memory.
    let control = owner(&other);
    for child in [&mut serve, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!((owned_by, control), (0, NOBODY));
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["Max", "core", "file", "size", "0", "0", "bytes"]);
    let says = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("core dumps and debuggers are off"));
    assert!(log.iter().any(says), "{log:#?}");
}
