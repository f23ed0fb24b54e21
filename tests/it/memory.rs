//! The memory of the binary under the worst load that its limits admit: below the sum that the documents state, which fits into the container.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use axum::body::Body;
use canton_keyvault::{
    mtls::ConnectionLimits,
    vault::{BODIES_TOTAL, DERIVATIONS, LONG_ANSWERS_TOTAL, LimitsConfig},
};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::{
    live_revocation::config,
    support::{
        api::{Caller, enroll, id},
        listener::connect,
        vault::{TestVault, until},
    },
};

const MIB: usize = 1024 * 1024;

/// The rows of the table of memory in `docs/operations.md`, in MiB, and the sum that it states.
fn documented() -> (usize, usize) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let table = text.split_once("| memory of |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let number =
        |line: &str| line.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap().replace(['*', ' '], "").parse::<usize>().unwrap();
    let (mut sum, mut stated) = (0, 0);
    for row in rows {
        if row.contains("**sum**") { stated = number(row) } else { sum += number(row) }
    }
    (sum, stated)
}

/// A line of `/proc/PID/status` in MiB.
fn status(vault: &TestVault, field: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/status", vault.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024 / MIB
}

#[test]
fn the_documented_worst_case_is_a_sum_and_fits_into_the_container() {
    let (sum, stated) = documented();
    assert_eq!(sum, stated);
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let (connections, limits) = (ConnectionLimits::default(), LimitsConfig::default());
    for default in [
        format!("`total` {} ", connections.total),
        format!("`handshakes` {}, `ops` {} ", connections.handshakes, connections.ops),
        format!("kernel | {} ", connections.total + connections.handshakes + connections.ops),
        format!("`concurrent_total` {} ", limits.concurrent_total),
        format!("| {LONG_ANSWERS_TOTAL} | 6 MiB | {} |", LONG_ANSWERS_TOTAL * 6),
        format!("| {DERIVATIONS} | 12 MiB | {} |", DERIVATIONS * 12),
        format!("| {} MiB | 10 times |", BODIES_TOTAL / MIB),
    ] {
        assert!(text.contains(&default), "the table of memory has another default: {default}");
    }
    let dockerfile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/docker/Dockerfile")).unwrap();
    let limit = dockerfile.split_once("--memory ").unwrap().1.split_once('m').unwrap().0.parse::<usize>().unwrap();
    assert!(stated <= limit, "{stated} of {limit} MiB");
}

/// A connection that sent nearly as many bytes of headers as the vault keeps.
async fn half_a_request(to: SocketAddr, client: &Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let mut stream = connect(to, client).await.unwrap();
    let _ = stream.write_all(format!("GET /v1/whoami?{}", "a".repeat(15_900)).as_bytes()).await;
    stream
}

/// Long answers that are never read.
async fn unread_lists(vault: &TestVault, principal: &str) -> Vec<hyper::Response<hyper::body::Incoming>> {
    let mut h2 = (*config(vault, principal)).clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let to = vault.url().split_once("://").unwrap().1.parse().unwrap();
    let stream = connect(to, &Arc::new(h2)).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut unread = Vec::new();
    for _ in 0..2 {
        sender.ready().await.unwrap();
        let request = Request::get("https://localhost/v1/keys?limit=1000").body(Body::empty()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    unread
}

/// What stays with each load: connections with half a request, half a handshake, and answers that are never read.
struct Held {
    _requests: Vec<TlsStream<TcpStream>>,
    _handshakes: Vec<TcpStream>,
    _unread: Vec<Vec<hyper::Response<hyper::body::Incoming>>>,
}

/// As many connections as the limits admit, and as many unread lists.
async fn hold(vault: &TestVault) -> Held {
    let address = |url: &str| url.split_once("://").unwrap().1.parse::<SocketAddr>().unwrap();
    let (api, ops) = (address(vault.url()), address(vault.ops_url()));
    let mut requests = Vec::new();
    for name in CLIENTS {
        let client = config(vault, name);
        for _ in 0..90 {
            requests.push(half_a_request(api, &client).await);
        }
    }
    let mut handshakes = Vec::new();
    for (to, number, bytes) in [
        // A record whose rest does not come.
        (api, 180, [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 16_000]].concat()),
        (ops, 60, format!("GET /healthz?{}", "a".repeat(15_900)).into_bytes()),
    ] {
        for _ in 0..number {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            handshakes.push(stream);
        }
    }
    let mut unread = Vec::new();
    for principal in ["participant1", "participant2", "key-admin"] {
        unread.push(unread_lists(vault, principal).await);
    }
    Held { _requests: requests, _handshakes: handshakes, _unread: unread }
}

/// Key files with a password in bodies as long as possible, and RSA keys, from several connections of three principals at the same time.
async fn compute(vault: &TestVault, import: &str) {
    let padded = import.to_owned() + &" ".repeat(60_000 - import.len());
    let rsa = json!({ "node": "participant1", "purpose": "encryption", "spec": "rsa-2048" }).to_string();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (principal, path, body) = match number % 3 {
            0 => ("key-admin", "/v1/keys/import", padded.clone()),
            1 => ("second-admin", "/v1/keys/import", padded.clone()),
            _ => ("participant1", "/v1/keys", rsa.clone()),
        };
        let caller = Caller::new(vault, principal);
        calls.spawn(async move {
            let mut done = 0;
            for _ in 0..4 {
                let reply = caller.send("POST", path, &[("content-type", "application/json")], body.clone()).await;
                assert!(matches!(reply.outcome().1.as_str(), "" | "key_exists" | "too_many_requests"), "{reply:?}");
                done += usize::from(reply.status != 429);
            }
            done
        });
    }
    let done = calls.join_all().await.into_iter().sum::<usize>();
    assert!(done >= 20, "{done} of 96 calls");
}

const CLIENTS: [&str; 7] = ["client0", "client1", "client2", "client3", "client4", "client5", "client6"];

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_stays_below_the_documented_worst_case_and_does_not_grow_with_each_load() {
    let vault = TestVault::start_with(|config| {
        let patient = ["header", "handshake", "idle", "answer"].map(|what| format!("{what}_timeout = \"1h\"\n")).concat();
        let admin = canton_keyvault::cli::pki::principal("second-admin");
        config.replace("[log]", &format!("[connections]\n{patient}\n[log]"))
            + "\n[limits]\ncreations_per_minute = 1000000\n"
            + &format!("\n[[grants]]\nprincipal = \"{admin}\"\nrole = \"key-admin\"\nnodes = [\"*\"]\n")
    });
    CLIENTS.iter().chain(&["second-admin"]).for_each(|name| enroll(&vault, name));
    let (admin, exporter) = (Caller::new(&vault, "key-admin"), Caller::new(&vault, "exporter"));
    let node = Caller::new(&vault, "participant1");
    for _ in 0..1_000 {
        node.signing_key("participant1").await;
    }
    let body = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "usage": ["protocol"], "exportable": true });
    let key = id(&admin.post("/v1/keys", &body).await.success());
    let export = json!({ "format": "canton-key-pair", "password": "hello world" });
    let file = exporter.post(&format!("/v1/keys/{key}/export"), &export).await.success();
    // The key exists, which the vault sees only after it has read the file.
    let import =
        json!({ "node": "participant1", "format": "canton-key-pair", "material": file["material"], "password": "hello world" }).to_string();

    let (resting, (_, stated)) = (status(&vault, "VmRSS"), documented());
    let mut peaks = Vec::new();
    for _ in 0..2 {
        let held = hold(&vault).await;
        let with_held = status(&vault, "VmRSS");
        compute(&vault, &import).await;
        let peak = status(&vault, "VmHWM");
        drop(held);
        // Two derivations of 12 MiB ran at the peak, and the connections had at least as much.
        until("the memory falls back", || async { status(&vault, "VmRSS") + 24 < peak }).await;
        println!("MiB: {resting} at rest, {with_held} with all connections, peak {peak}, then {}", status(&vault, "VmRSS"));
        assert!(peak < stated, "{peak} MiB, but the documents state {stated} MiB");
        peaks.push(peak);
    }
    assert!(peaks[1] <= peaks[0] + 24, "it grows with each load: {peaks:?}");
}
