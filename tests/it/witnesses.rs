//! Witnesses cosign checkpoints (C2SP tlog-witness): the vault asks with a proof, verifies and stores the cosignature, and says when a witness knows another
//! history. The witness of this test verifies what it gets with the code for notes and trees.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::audit::{
    Checkpoint, SignedNote, VerifierKey,
    merkle::{Hash, empty_root, verify_consistency},
};
use serde_json::json;

use crate::support::{
    api::Caller,
    aws_vault::ops,
    vault::{TestVault, until},
};

/// What the witness cosigned last.
type Seen = Arc<Mutex<(u64, Hash)>>;

/// A witness that accepts any log.
struct Witness {
    url: String,
    key: VerifierKey,
    seen: Seen,
}

impl Witness {
    fn start(name: &str, number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        let key = VerifierKey::witness(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/w", listener.local_addr().unwrap());
        let seen: Seen = Arc::new(Mutex::new((0, empty_root())));
        let (witness, known) = (key.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &pair, &witness, &known);
            }
        });
        Self { url, key, seen }
    }

    fn config(&self, required: bool) -> String {
        format!("\n[[audit.witnesses]]\nurl = \"{}\"\nverifier_key = \"{}\"\nrequired = {required}\n", self.url, self.key)
    }

    fn size(&self) -> u64 {
        self.seen.lock().unwrap().0
    }
}

/// Reads one request, and answers as the specification says.
fn answer(mut stream: TcpStream, pair: &Ed25519KeyPair, key: &VerifierKey, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        // A vault that stops drops its request.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            None if line == "\r\n" => break,
            None => assert!(line.starts_with("POST /w/add-checkpoint "), "{line}"),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body = String::from_utf8(body).unwrap();
    let (head, note) = body.split_once("\n\n").unwrap();
    let mut head = head.lines();
    let old: u64 = head.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
    let proof: Vec<Hash> = head.map(|hash| STANDARD.decode(hash).unwrap().try_into().unwrap()).collect();
    let note = SignedNote::parse(note.as_bytes()).unwrap();
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    let mut seen = seen.lock().unwrap();
    let (status, text) = if old != seen.0 || (old == checkpoint.size && seen.1 != checkpoint.root) {
        (409, format!("{}\n", seen.0))
    } else if !verify_consistency(&proof, old, &seen.1, checkpoint.size, &checkpoint.root) {
        (422, String::new())
    } else {
        *seen = (checkpoint.size, checkpoint.root);
        let message = format!("cosignature/v1\ntime 1700000000\n{}", note.text());
        let signature = [1_700_000_000_u64.to_be_bytes().as_slice(), pair.sign(message.as_bytes()).as_ref()].concat();
        (200, format!("— {} {}\n", key.name(), STANDARD.encode([key.id().as_slice(), &signature].concat())))
    };
    let _ = write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n{text}", text.len());
}

fn vault(witnesses: &str) -> TestVault {
    TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\n{witnesses}"))
}

async fn checkpoint(vault: &TestVault) -> u64 {
    Caller::new(vault, "auditor").post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap()
}

async fn newest(vault: &TestVault) -> SignedNote {
    let answer = Caller::new(vault, "auditor").get("/v1/audit/checkpoint").await.success();
    SignedNote::parse(answer["note"].as_str().unwrap().as_bytes()).unwrap()
}

fn said(vault: &TestVault, level: &str, why: &str) -> bool {
    vault.log().iter().any(|line| line["level"] == level && line["why"].as_str().is_some_and(|said| said.contains(why)))
}

#[tokio::test]
async fn checkpoints_are_cosigned_and_the_cosignatures_are_kept_with_them() {
    let (one, other) = (Witness::start("w.example/1", 1), Witness::start("w.example/2", 2));
    let mut vault = vault(&format!("{}{}", one.config(true), other.config(false)));
    for _ in 0..2 {
        let size = checkpoint(&vault).await;
        until("the cosignatures", async || {
            let note = newest(&vault).await;
            note.verify(&one.key).is_ok() && note.verify(&other.key).is_ok()
        })
        .await;
        assert_eq!((one.size(), other.size()), (size, size));
    }
    until("the metric", async || {
        let text = ops(&vault, "/metrics").await.1;
        let at = text.lines().find_map(|line| line.strip_prefix("keyvault_witness_cosigned_timestamp_seconds ")).unwrap();
        at.parse::<f64>().unwrap() > 1_700_000_000.0
    })
    .await;
    // A new process does not know what the witness knows. It learns it from the witness.
    vault.restart();
    let size = checkpoint(&vault).await;
    until("the cosignature after a restart", async || one.size() == size).await;
    assert!(!vault.log().iter().any(|line| line["why"].is_string()), "nothing failed: {:#?}", vault.log());
    // Notes with cosignatures are checkpoints like any other.
    let keys = Caller::new(&vault, "auditor").get("/v1/audit/verifier-keys").await.success();
    fs::write(vault.path("keys"), keys["items"][0]["verifier_key"].as_str().unwrap()).unwrap();
    vault.terminate();
    let verify = |witnesses: &[&VerifierKey]| {
        let keys: Vec<String> = witnesses.iter().map(|key| format!("--witness={key}")).collect();
        let mut command = vault.command(&["audit", "verify", "--output", "json", "--database", "keyvault.db", "--verifier-key", "keys"]);
        let output = command.args(keys).output().unwrap();
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap())
    };
    assert_eq!(verify(&[]).1["cosigned"], json!(null));
    let (code, verified) = verify(&[&one.key, &other.key]);
    assert_eq!((code, verified["verified"].as_bool()), (Some(0), Some(true)), "{verified}");
    assert!(verified["cosigned"].as_u64().unwrap() >= size, "{verified}");
    let stranger = Witness::start("w.example/3", 3);
    let (code, refused) = verify(&[&one.key, &stranger.key]);
    assert_eq!((code, refused["code"].as_str()), (Some(4), Some("not_cosigned")), "{refused}");
}

#[tokio::test]
async fn a_witness_notices_a_rollback_and_a_fork() {
    let witness = Witness::start("w.example/1", 1);
    let mut vault = vault(&witness.config(false));
    checkpoint(&vault).await;
    vault.terminate();
    fs::copy(vault.path("keyvault.db"), vault.path("older.db")).unwrap();
    vault.serve();
    for _ in 0..20 {
        Caller::new(&vault, "auditor").get("/v1/whoami").await.success();
    }
    let size = checkpoint(&vault).await;
    until("the cosignature", async || witness.size() == size).await;
    vault.terminate();
    fs::copy(vault.path("older.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    checkpoint(&vault).await;
    until("the alarm of the rollback", async || said(&vault, "ERROR", "the log was rolled back or truncated")).await;
    // The other history becomes longer than the one that the witness knows.
    while checkpoint(&vault).await <= size {}
    until("the alarm of the fork", async || said(&vault, "ERROR", "the witness knows another history")).await;
    assert_eq!(witness.size(), size, "it cosigned nothing of the other history");
}

#[tokio::test]
async fn a_missing_witness_delays_nothing() {
    // Accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = Witness::start("w.example/1", 1).key;
    let config = |url: &str, required| format!("\n[[audit.witnesses]]\nurl = \"{url}\"\nverifier_key = \"{key}\"\nrequired = {required}\n");
    let url = format!("http://{}", silent.local_addr().unwrap());
    let vault = vault(&format!("{}{}", config(&url, false), config("http://127.0.0.1:9", true)));
    let size = checkpoint(&vault).await;
    assert!(checkpoint(&vault).await > size);
    until("the error about the required one", async || said(&vault, "ERROR", "cannot connect to http://127.0.0.1:9")).await;
    until("the warning about the other one", async || said(&vault, "WARN", "no answer from")).await;
}
