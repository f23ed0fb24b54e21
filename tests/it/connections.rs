//! Attacks with connections against the binary: others get in during each attack, `freeze` and health probes too.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{Request, body::Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{
    live_revocation::config,
    support::{
        api::enroll_as,
        aws_vault::ops,
        listener::{Client, PATIENCE, connect},
        vault::{TestVault, until},
    },
};

/// No time limit ends a connection: only the limit under test can.
const PATIENT: &str = "handshake_timeout = \"1h\"\nheader_timeout = \"1h\"\nidle_timeout = \"1h\"\nbody_timeout = \"1h\"\n";

fn start(connections: &str) -> TestVault {
    TestVault::start_with(|config| config.replace("[log]", &format!("[connections]\n{connections}\n[log]")))
}

fn address(url: &str) -> SocketAddr {
    url.split_once("://").unwrap().1.parse().unwrap()
}

async fn open(vault: &TestVault, principal: &str) -> TlsStream<TcpStream> {
    connect(address(vault.url()), &config(vault, principal)).await.unwrap()
}

/// Opens connections that send `bytes` and then nothing, while `work` runs.
async fn during_flood<T>(to: SocketAddr, bytes: &'static [u8], work: impl Future<Output = T>) -> T {
    let flood = async {
        let mut held = std::collections::VecDeque::new();
        loop {
            if let Ok(mut stream) = TcpStream::connect(to).await {
                let _ = stream.write_all(bytes).await;
                held.push_back(stream);
            }
            // Never fewer than the listener has places for.
            if held.len() > 128 {
                held.pop_front();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::select! {
        () = flood => unreachable!(),
        done = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            timeout(3 * PATIENCE, work).await.expect("others are locked out")
        } => done,
    }
}

/// A new client of every kind is served.
async fn everybody_is_served(vault: &TestVault) {
    for _ in 0..5 {
        vault.client("participant1").get("/v1/whoami").await.unwrap();
        vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap();
        vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.unwrap();
        assert_eq!(ops(vault, "/healthz").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_sockets_lock_nobody_out() {
    let vault = start(&format!("handshakes = 64\nops = 64\n{PATIENT}"));
    // Nothing, a part of a handshake, a part of a request.
    for bytes in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01", b"GET /healthz HTTP/1.1\r\nhost: "] {
        for to in [vault.url(), vault.ops_url()] {
            Box::pin(during_flood(address(to), bytes, everybody_is_served(&vault))).await;
        }
    }
    let (_, text) = ops(&vault, "/metrics").await;
    for name in ["keyvault_handshakes_total{outcome=\"evicted\"}", "keyvault_ops_evictions_total"] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        assert_ne!(value.trim(), "0", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_not_admitted_hold_no_place() {
    let vault = start(&format!("total = 8\nreserved = 2\nhandshakes = 32\n{PATIENT}"));
    enroll_as(&vault, "stranger", "spiffe://other.example/stranger");
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(open(&vault, "stranger").await);
    }
    everybody_is_served(&vault).await;
    let mut stranger = Client::http1(open(&vault, "stranger").await).await;
    assert_eq!(stranger.get("/v1/whoami").await.unwrap().0, 401);
    stranger.is_closed().await;
    // Without a request they are closed too, although they never read their refusal.
    drop(held);
    let vault = start("handshake_timeout = \"1s\"");
    enroll_as(&vault, "stranger", "spiffe://other.example/stranger");
    let mut silent = open(&vault, "stranger").await;
    let _ = timeout(PATIENCE, silent.read(&mut [0])).await.expect("it is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_principals_lock_nobody_out_of_freeze() {
    let vault = start(&format!("total = 12\nreserved = 4\nper_principal = 6\n{PATIENT}"));
    let fill = async |principal: &str, number: usize| {
        let mut held = Vec::new();
        while held.len() < number {
            let mut client = Client::http1(open(&vault, principal).await).await;
            assert_eq!(client.get("/v1/whoami").await.unwrap().0, 200);
            held.push(client);
        }
        held
    };
    let one = fill("participant1", 6).await;
    let mut more = Client::http1(open(&vault, "participant1").await).await;
    assert!(more.get("/v1/whoami").await.is_err(), "a principal has its limit");
    everybody_is_served_but_participant1(&vault).await;
    let two = fill("participant2", 2).await;
    let mut more = Client::http1(open(&vault, "auditor").await).await;
    assert!(more.get("/v1/whoami").await.is_err(), "full");
    everybody_is_served_but_participant1(&vault).await;
    drop((one, two));
    until("the places are free", || async { vault.client("auditor").get("/v1/whoami").await.is_ok() }).await;
    assert!(vault.log().iter().any(|line| line.to_string().contains("[connections] per_principal is reached")));
}

async fn everybody_is_served_but_participant1(vault: &TestVault) {
    for _ in 0..5 {
        // The place of the connection before is free as soon as the vault has seen its end.
        let call = async |principal: &str, path: &str| {
            until(path, || async { vault.client(principal).post(path, &json!({})).await.is_ok() }).await;
        };
        call("key-admin", "/v1/freeze").await;
        call("wrapper-admin", "/v1/unfreeze").await;
        assert_eq!(ops(vault, "/healthz").await.0, 200);
    }
}

/// An answer on a connection: its head in lower case.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut read = Vec::new();
    let head = loop {
        assert!(
            stream.read_buf(&mut read).await.unwrap() > 0,
            "the connection ended before the answer: {}",
            String::from_utf8_lossy(&read)
        );
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8(read[..head].to_vec()).unwrap().to_lowercase();
    let length: usize = text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    while read.len() < head + length {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the connection ended within the answer");
    }
    text
}

/// A body that is refused without being read, by its size, its route, its method or its caller: the client can send all of it, reads the answer, and
/// knows whether the connection can be used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_leaves_a_connection_that_is_open_or_says_that_it_closes() {
    let vault = start("");
    for target in ["POST /v1/audit/removals", "POST /v1/keys", "POST /v1/nothing", "GET /v1/status", "PATCH /v1/status", "POST /v1/freeze"]
    {
        for size in [0, 10, 5_000, 60_000, 200_000, 1_000_000] {
            let mut stream = open(&vault, "exporter").await;
            let head = |length| {
                format!("{target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
            };
            stream.write_all(head(size).as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; size]).await.unwrap_or_else(|error| panic!("{target} {size}: {error}"));
            let first = timeout(PATIENCE, answer(&mut stream)).await.expect("no answer");
            let closes = first.contains("connection: close");
            assert!(if closes { size > 60_000 } else { size < 1_000_000 }, "{target} {size}: {first}");
            if closes {
                // A client that reads to the end sees a proper one.
                assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.expect("it stays open").ok(), Some(0), "{target} {size}");
            } else {
                stream.write_all(head(0).as_bytes()).await.unwrap();
                timeout(PATIENCE, answer(&mut stream)).await.expect("no second answer");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_and_silent_connections_end() {
    let vault = start("header_timeout = \"500ms\"\nidle_timeout = \"1h\"");
    let ended = async |mut stream: TlsStream<TcpStream>, bytes: &[u8]| {
        // A byte now and then does not help.
        for byte in bytes.iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            if timeout(Duration::from_millis(50), stream.read(&mut [0])).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, ended(open(&vault, "participant1").await, b"GET /v1/whoami?aaaa")).await.expect("slow headers");
    let vault = start("idle_timeout = \"500ms\"\ndrain_timeout = \"500ms\"");
    let mut h2 = (*config(&vault, "participant1")).clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let h2 = Arc::new(h2);
    let mut client = Client::http2(connect(address(vault.url()), &h2).await.unwrap()).await;
    assert_eq!(client.get("/v1/whoami").await.unwrap().0, 200);
    client.is_closed().await;
    // No preface, and one that answers nothing.
    let mut silent = connect(address(vault.url()), &h2).await.unwrap();
    timeout(PATIENCE, silent.read(&mut [0])).await.expect("no preface").ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_gets_request_timeout() {
    let vault = start("body_timeout = \"500ms\"\nidle_timeout = \"1h\"");
    let head = "POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n{";
    let mut stream = open(&vault, "participant1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is still open");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"request_timeout\""), "{answer}");

    // Over HTTP/2, streams whose bodies never end.
    let mut h2 = (*config(&vault, "participant1")).clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(address(vault.url()), &Arc::new(h2)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let endless = || {
        let first = futures_util::stream::once(std::future::ready(Ok::<_, std::io::Error>(Frame::data(hyper::body::Bytes::from("{")))));
        http_body_util::StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    };
    let mut answers = Vec::new();
    for _ in 0..20 {
        sender.ready().await.unwrap();
        let request = Request::post("https://localhost/v1/keys").header("content-type", "application/json").body(endless()).unwrap();
        answers.push(sender.send_request(request));
    }
    for answer in answers {
        let answer = timeout(PATIENCE, answer).await.expect("a stream without end").unwrap();
        assert_eq!(answer.status(), 408);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(text.windows(15).any(|part| part == b"request_timeout"), "{text:?}");
    }
}

/// A client over HTTP/2 whose window for answers is zero.
async fn without_window(vault: &TestVault, principal: &str) -> hyper::client::conn::http2::SendRequest<axum::body::Body> {
    let mut h2 = (*config(vault, principal)).clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(address(vault.url()), &Arc::new(h2)).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<axum::body::Body> {
    Request::get(format!("https://localhost{path}")).body(axum::body::Body::empty()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers_is_closed() {
    let vault = start(&format!("answer_timeout = \"1s\"\n{PATIENT}"));
    // Over HTTP/2 with a window of zero, and with further requests, so that the connection is never idle.
    let mut sender = without_window(&vault, "participant1").await;
    let mut unread = Vec::new();
    let closed = async {
        while sender.ready().await.is_ok() {
            match sender.send_request(get("/v1/whoami")).await {
                Ok(answer) => unread.push(answer),
                Err(_) => break,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("an HTTP/2 connection with unread answers stays open");
    assert!(!unread.is_empty());
    // Over HTTP/1.1, one that only sends.
    let mut stream = open(&vault, "participant1").await;
    let closed = async { while stream.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_ok() {} };
    timeout(PATIENCE, closed).await.expect("an HTTP/1.1 connection with unread answers stays open");
    let (_, text) = ops(&vault, "/metrics").await;
    let line = text.lines().find(|line| line.starts_with("keyvault_connections_ended_total{reason=\"answer_timeout\"}"));
    assert!(line.is_some_and(|line| line.ends_with(" 2")), "{line:?}");
    // One that reads slowly, but in time, gets its answers.
    let mut client = Client::http1(open(&vault, "participant1").await).await;
    for _ in 0..4 {
        assert_eq!(client.get("/openapi.json").await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_count_towards_the_limits_of_their_principal_only() {
    let vault = start(&format!("answer_timeout = \"1h\"\n{PATIENT}"));
    let mut sender = without_window(&vault, "participant1").await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        sender.ready().await.unwrap();
        let answer = sender.send_request(get("/v1/keys")).await.unwrap();
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    // A third one, over any connection, waits for one of the two.
    let further = {
        let mut client = Client::http1(open(&vault, "participant1").await).await;
        tokio::spawn(async move { client.get("/v1/keys").await.unwrap().0 })
    };
    let mut other = Client::http1(open(&vault, "participant2").await).await;
    assert_eq!(other.get("/v1/keys").await.unwrap().0, 200, "the lists of others");
    assert_eq!(further.await.unwrap(), 429);
    drop(unread);
    let answered = || async { Client::http1(open(&vault, "participant1").await).await.get("/v1/keys").await.unwrap().0 == 200 };
    until("the places are free", answered).await;
}
