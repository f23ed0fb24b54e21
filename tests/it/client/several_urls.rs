//! Several URLs: the first one that works is used, and a call that may not be repeated is never received twice.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use canton_keyvault::client::{Call, Client, ClientError, ConnectOptions, DEFAULT_TIMEOUT, Endpoint, Endpoints};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{api::Caller, proxy::TcpProxy, vault::TestVault};

use super::{
    assert_done,
    fake::{FakeVault, Reply, Seen},
    problem, runtime, text,
};

/// How a double treats a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// There is no listener.
    NoListener,
    /// The connection ends before TLS.
    EndsBeforeTls,
    /// The request is read, and the connection ends.
    EndsAfterRequest,
    /// A 503 with this code.
    Unavailable(&'static str),
    /// A 503 that is not retryable.
    NotRetryable,
    /// A 503 of a proxy, without a problem document.
    Proxy,
    /// None: it answers.
    None,
}

use Fault::{EndsAfterRequest, EndsBeforeTls, NoListener, NotRetryable, Proxy, Unavailable};

impl Fault {
    /// Whether the vault may have done the call.
    fn may_have_done_it(self) -> bool {
        matches!(self, EndsAfterRequest | Unavailable("outcome_unknown") | Proxy)
    }

    fn reply(self) -> Reply {
        match self {
            EndsAfterRequest => Reply::CloseConnection,
            Unavailable(code) => problem(503, code, true),
            NotRetryable => problem(503, "frozen", false),
            Proxy => Reply::Json(503, json!("no backend")),
            NoListener | EndsBeforeTls | Fault::None => Reply::Json(200, json!({"answered": true})),
        }
    }
}

/// A vault with this fault, of the certificates of `of`.
struct Double {
    vault: FakeVault,
    url: String,
    /// Keeps the port of `NoListener`, which another double would get otherwise.
    _unused: Option<TcpSocket>,
}

impl Double {
    fn of(fault: Fault, of: Option<&FakeVault>) -> Self {
        let vault = match of {
            None => FakeVault::start(move |_| fault.reply()),
            Some(of) => of.another(move |_| fault.reply()),
        };
        let (url, unused) = match fault {
            NoListener => {
                let (url, unused) = unused_url();
                (url, Some(unused))
            }
            EndsBeforeTls => (ends_before_tls(), None),
            _ => (vault.url(), None),
        };
        Self { vault, url, _unused: unused }
    }
}

/// A URL that refuses connections as long as the socket lives: it is bound, and does not listen.
fn unused_url() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (format!("https://localhost:{}", socket.local_addr().unwrap().port()), socket)
}

fn ends_before_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            drop(stream.read(&mut [0; 16]));
        }
    });
    format!("https://localhost:{port}")
}

fn client(options: &ConnectOptions, urls: &[&str], timeout: Duration) -> Client {
    let first = Endpoint::new(&ConnectOptions { url: urls[0].to_owned(), ..options.clone() }).unwrap();
    let others: Vec<Endpoint> = urls[1..].iter().map(|url| first.at(url).unwrap()).collect();
    Client::of(Endpoints::new(first, others), timeout)
}

/// Every call against every pair of faults, with a third URL that works.
#[test]
fn a_call_goes_on_unless_it_may_not_be_repeated_and_may_have_been_done() {
    let faults = [
        NoListener,
        EndsBeforeTls,
        EndsAfterRequest,
        Unavailable("shutting_down"),
        Unavailable("outcome_unknown"),
        Proxy,
        NotRetryable,
        Fault::None,
    ];
    let working = Double::of(Fault::None, None);
    let options = working.vault.options();
    let firsts: Vec<Double> = faults.iter().map(|fault| Double::of(*fault, Some(&working.vault))).collect();
    let seconds: Vec<Double> = faults.iter().map(|fault| Double::of(*fault, Some(&working.vault))).collect();
    let body = json!({"a": 1});
    let runtime = runtime();
    for (first_fault, first) in faults.iter().zip(&firsts) {
        for (second_fault, second) in faults.iter().zip(&seconds) {
            for (call, may_repeat) in [
                (Call::get("/x"), true),
                (Call::post("/x").json(&body).unwrap().idempotent().unwrap(), true),
                (Call::post("/x").json(&body).unwrap(), false),
                (Call::delete("/x"), false),
            ] {
                let what = format!("{first_fault:?}, {second_fault:?}, may repeat: {may_repeat}");
                let client = client(&options, &[&first.url, &second.url, &working.url], DEFAULT_TIMEOUT);
                let outcome = runtime.block_on(client.send(call));
                let received: Vec<usize> = [first, second, &working].iter().map(|double| double.vault.take_seen().len()).collect();
                let possibly_done = [first_fault, second_fault]
                    .iter()
                    .zip(&received)
                    .filter(|(fault, received)| **received > 0 && fault.may_have_done_it())
                    .count();
                let answered = outcome.as_ref().is_ok_and(|answer| answer.status == 200);
                assert!(received.iter().all(|received| *received <= 1), "{what}: {received:?}");
                if !may_repeat {
                    assert!(possibly_done + usize::from(answered) <= 1, "{what}: {received:?}");
                }
                let stops = [*first_fault, *second_fault]
                    .into_iter()
                    .find(|fault| matches!(fault, NotRetryable | Fault::None) || (!may_repeat && fault.may_have_done_it()));
                match (outcome, stops) {
                    (Ok(answer), None | Some(Fault::None)) => assert_eq!(answer.status, 200, "{what}"),
                    (Ok(answer), Some(NotRetryable)) => assert_eq!(answer.status, 503, "{what}"),
                    (Err(_), Some(fault)) if fault.may_have_done_it() => {}
                    (outcome, _) => panic!("{what}: {:?}", outcome.map(|answer| answer.status)),
                }
            }
        }
    }
}

#[test]
fn a_read_that_is_not_answered_in_time_goes_on_and_a_change_does_not() {
    let silent = FakeVault::start(|_| Reply::Late(Duration::from_mins(10), 200, json!({})));
    let working = silent.another(|_| Reply::Json(200, json!({})));
    let call = |call| {
        // A client of its own each time, since the first URL is tried last after its failure.
        let client = client(&silent.options(), &[&silent.url(), &working.url()], Duration::from_secs(2));
        (runtime().block_on(client.json(call)), silent.take_seen().len(), working.take_seen().len())
    };
    assert!(matches!(call(Call::get("/x")), (Ok(_), 1, 1)));
    assert!(matches!(call(Call::post("/x")), (Err(ClientError::NoAnswer { .. }), 1, 0)));
}

#[test]
fn a_url_that_failed_is_tried_last_until_its_pause_is_over() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let first =
        FakeVault::start(move |_| if is_up.load(Ordering::SeqCst) { Reply::Json(200, json!({})) } else { problem(503, "frozen", true) });
    let second = first.another(|_| Reply::Json(200, json!({})));
    let client = client(&first.options(), &[&first.url(), &second.url()], DEFAULT_TIMEOUT);
    let seen = || (first.take_seen().len(), second.take_seen().len());
    runtime().block_on(async {
        for expected in [(1, 1), (0, 1), (0, 1)] {
            client.get("/x").await.unwrap();
            assert_eq!(seen(), expected);
        }
        // It is tried once after the pause, and once more after the next one, when it works.
        pass(11).await;
        for expected in [(1, 1), (0, 1)] {
            client.get("/x").await.unwrap();
            assert_eq!(seen(), expected);
        }
        up.store(true, Ordering::SeqCst);
        pass(11).await;
        for expected in [(1, 0), (1, 0)] {
            client.get("/x").await.unwrap();
            assert_eq!(seen(), expected);
        }
    });
}

/// Lets the clock of the client pass, and then run again.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[test]
fn an_error_names_every_url_and_its_reason() {
    let frozen = FakeVault::start(|_| problem(503, "frozen", true));
    let ((nowhere, _unused), early) = (unused_url(), ends_before_tls());
    let urls = format!("{nowhere}, {},{early}", frozen.url());
    let run = |arguments: &[&str]| frozen.command(arguments).env("KEYVAULT_URL", &urls).output().unwrap();
    let output = run(&["freeze"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stderr).to_owned();
    assert!(told.starts_with("error: frozen: because (HTTP 503)\n  to do:     mend it\n"), "{told}");
    assert!(told.contains(&format!("\n  tried:     {nowhere}: cannot connect: ")), "{told}");
    assert!(told.contains(&format!("\n             {}: frozen: because\n", frozen.url())), "{told}");
    assert!(told.contains(&format!("\n             {early}: cannot connect: ")), "{told}");
    let document: Value = serde_json::from_slice(&run(&["freeze", "--output", "json"]).stderr).unwrap();
    assert_eq!((&document["code"], &document["retryable"]), (&json!("frozen"), &json!(true)));
    let tried: Vec<&str> = document["tried"].as_array().unwrap().iter().map(|tried| tried["url"].as_str().unwrap()).collect();
    assert_eq!(tried, [nowhere.as_str(), &frozen.url(), &early]);

    // Nobody answers.
    let output = run(&["status", "--url", &nowhere, "--url", &early]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&early) && text(&output.stderr).contains(&nowhere), "{}", text(&output.stderr));
    // A call that may have been done is not sent on, and the error says so.
    let silent = frozen.another(|_| Reply::CloseConnection);
    frozen.take_seen();
    let output = run(&["freeze", "--url", &format!("{nowhere},{},{}", silent.url(), frozen.url())]);
    assert_eq!((output.status.code(), frozen.take_seen().len()), (Some(3), 0));
    let told = text(&output.stderr);
    assert!(told.starts_with(&format!("error: no answer from {}", silent.url())) && told.contains("may have been done"), "{told}");
    assert!(told.contains(&nowhere) && !told.contains(&frozen.url()), "{told}");
}

#[test]
fn urls_come_from_the_option_or_the_environment() {
    let vault = FakeVault::start(|_| Reply::Json(200, json!({})));
    let ((nowhere, _unused), url) = (unused_url(), vault.url());
    let both = format!("{nowhere},{url}");
    for (arguments, environment) in [
        (vec!["status"], format!("{nowhere},{url}")),
        (vec!["status"], format!(" {nowhere} , {url}")),
        (vec!["status", "--url", &nowhere, "--url", &url], "https://localhost:1".into()),
        (vec!["status", "--url", &both], "https://localhost:1".into()),
    ] {
        let output = vault.command(&arguments).env("KEYVAULT_URL", environment).output().unwrap();
        assert_done(&arguments.join(" "), &output);
        assert_eq!(vault.take_seen().len(), 1);
    }
    for wrong in [format!("{url},"), format!("{url},http://localhost:1"), format!("{url},https://u@localhost:1")] {
        let output = vault.command(["status", "--url", &wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", text(&output.stderr));
    }
    assert_eq!(vault.take_seen().len(), 0);
}

#[test]
fn a_load_moves_to_the_next_url_and_counts_what_was_lost() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let first = FakeVault::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < 5 {
            Reply::Json(200, json!({"signature": ""}))
        } else {
            problem(503, "shutting_down", true)
        }
    });
    let second = first.another(|_| Reply::Json(200, json!({"signature": ""})));
    let line = format!("bench --output json --warmup 0s --duration 1s --connections 2 --key-id {}", super::PAIR);
    let urls = format!("{},{}", first.url(), second.url());
    let output = first.command(line.split_whitespace()).env("KEYVAULT_URL", &urls).output().unwrap();
    assert_done(&line, &output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["run"]["url"], json!(urls));
    let (first, second): (Vec<Seen>, Vec<Seen>) = (first.take_seen(), second.take_seen());
    assert!(second.len() > 5 && report["requests"].as_u64().unwrap() > 5, "{report}");
    // Each of the two connections loses at most one request.
    assert!((6..=7).contains(&first.len()), "{}", first.len());
    assert_eq!(report["errors"]["shutting_down"], first.len() - 5);
    assert!(second.iter().all(|seen| seen.headers["host"] == urls.rsplit('/').next().unwrap()), "the host is that of the URL");
}

/// A proxy in front of `vault` that ends each connection after this many bytes of answers.
fn breaking_off_after(vault: &TestVault, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let target = vault.url().trim_start_matches("https://").to_owned();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (mut near, mut far) = (near.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut requests, mut to_vault) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut requests, &mut to_vault)));
            thread::spawn(move || {
                let (mut buffer, mut left) = ([0; 1024], bytes);
                while let Ok(length @ 1..) = far.read(&mut buffer)
                    && left > 0
                    && near.write_all(&buffer[..length.min(left)]).is_ok()
                {
                    left -= length.min(left);
                }
                drop((near.shutdown(std::net::Shutdown::Both), far.shutdown(std::net::Shutdown::Both)));
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_breaks_off_continues_at_the_next_url() {
    let vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = node.signing_key("participant1").await;
    for _ in 0..60 {
        node.sign(&key).await.success();
    }
    let urls = format!("{},{}", breaking_off_after(&vault, 30_000), vault.url());
    for (file, filter, broken) in
        [("all.ndjson", "", true), ("some.ndjson", " --operation keys.sign", true), ("one.csv", " --format csv", false)]
    {
        let line = format!("audit export --out {file}{filter}");
        let output = {
            let words: Vec<&str> = line.split(' ').collect();
            let mut command = vault.command(&words);
            let pki = |name: &str| vault.path("pki").join(name);
            command.env("KEYVAULT_URL", &urls).env("KEYVAULT_CA", pki("ca.pem"));
            command.env("KEYVAULT_CERT", pki("auditor.pem")).env("KEYVAULT_KEY", pki("auditor.key")).output().unwrap()
        };
        let told = String::from_utf8(output.stderr).unwrap();
        if !broken {
            // A table cannot be continued.
            assert_eq!(output.status.code(), Some(3), "{told}");
            assert!(!vault.path(file).exists());
            continue;
        }
        assert!(output.status.success(), "{told}");
        assert!(told.contains("the export continues after entry"), "{told}");
        let lines: Vec<Value> =
            std::fs::read_to_string(vault.path(file)).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let headers = lines.iter().filter(|line| !line["export"].is_null()).count();
        let sequences: Vec<u64> = lines.iter().filter_map(|line| line["sequence"].as_u64()).collect();
        assert_eq!(headers, 2, "{told}");
        assert!(sequences.len() >= 60 && sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
        assert!(told.contains(&format!("{} entries in {file}", sequences.len())), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_vault_as_the_second_url_takes_over() {
    let vault = TestVault::start();
    let line = TcpProxy::to(vault.url().trim_start_matches("https://"), true);
    let options = vault.options("participant1");
    let client = client(&options, &[&line.url().replace("http://", "https://"), vault.url()], DEFAULT_TIMEOUT);
    let new = json!({"node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "a"});
    let key = client.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned();
    let sign = json!({"algorithm": "ed25519", "message": "AQI="});
    let path = format!("/v1/keys/{key}/sign");
    client.post(&path, &sign).await.unwrap();
    line.cut();
    // The kept connection is closed. Whether the client knows it before it sends depends on time; it does not send twice.
    let signed = match client.post(&path, &sign).await {
        Ok(_) => 2,
        Err(ClientError::NoAnswer { .. }) => 1,
        Err(error) => panic!("{error}"),
    };
    client.post(&path, &sign).await.unwrap();
    let entries = vault.client("auditor").get("/v1/audit/entries?operation=keys.sign").await.unwrap();
    let entries = entries["items"].as_array().unwrap().len();
    assert!((signed + 1..=3).contains(&entries), "{entries} entries for three calls, {signed} of the first two answered");
    assert_eq!(
        client.create("/v1/keys", &json!({"node": "participant1", "purpose": "symmetric", "spec": "aes-256"})).await.unwrap()["state"],
        "active"
    );
}
