//! Every refused client leaves a log line at the default level and an entry in the audit log, both bounded: who it was and why, with the request id of a
//! 401.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, version::TLS13};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    api::Caller,
    listener::connect,
    pki::{self, Ca, Leaf, Spec, at, dns, uri},
    vault::{TestVault, until},
};

/// A vault with another client CA, which may issue names of `example.org`, and its configuration of a client.
fn vault_with(ca: &Ca) -> TestVault {
    let entry = "client_cas = [";
    let vault = TestVault::prepare(|config| {
        assert!(config.contains(entry));
        config.replace(entry, &format!("{entry}{{ file = \"other.pem\", trust_domains = [\"example.org\"] }}, "))
    });
    fs::write(vault.path("other.pem"), &ca.pem).unwrap();
    vault
}

pub(crate) fn client(vault: &TestVault, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
    let server_ca = fs::read(vault.path("pki/ca.pem")).unwrap();
    pki::client_of(&server_ca, leaf, b"http/1.1", &[&TLS13])
}

fn lines(vault: &TestVault, message: &str) -> Vec<Value> {
    vault.log().into_iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(message))).collect()
}

pub(crate) async fn refused_handshake(vault: &TestVault, config: &Arc<ClientConfig>) {
    let address = vault.url().trim_start_matches("https://").parse().unwrap();
    if let Ok(mut stream) = connect(address, config).await {
        assert!(stream.read(&mut [0]).await.is_err(), "let in");
    }
}

#[tokio::test]
async fn a_refused_handshake_is_logged_with_the_certificate_and_the_reason() {
    let ca = Ca::new("Other CA");
    let mut vault = vault_with(&ca);
    vault.serve();
    let name = || vec![uri("spiffe://example.org/p1")];
    let server_usage = Spec { usage: rcgen::ExtendedKeyUsagePurpose::ServerAuth, ..Spec::client(name()) };
    for (leaf, issuer, code, reason) in [
        (Ca::new("Stranger CA").issue(Spec::client(name()).serial(10)), "CN=Stranger CA", "untrusted", "no client CA of this vault"),
        (ca.issue(Spec::client(name()).serial(11).expires(at(-5 * 365 * 24 * 3600))), "CN=Other CA", "expired", "has expired"),
        (ca.issue(server_usage.serial(12)), "CN=Other CA", "wrong_purpose", "extended key usage"),
    ] {
        refused_handshake(&vault, &client(&vault, Some(&leaf))).await;
        until("the line", || async { lines(&vault, "refused in the handshake").iter().any(|line| line["code"] == code) }).await;
        let line = lines(&vault, "refused in the handshake").pop().unwrap();
        assert_eq!((line["level"].as_str(), line["code"].as_str(), line["issuer"].as_str()), (Some("WARN"), Some(code), Some(issuer)));
        assert!(line["subject"].as_str().unwrap().contains("CN=participant1.example.org"), "{line}");
        assert!(line["serial"].as_str().unwrap().starts_with('0') && line["reason"].as_str().unwrap().contains(reason), "{line}");
        assert_eq!(line["certificate"].as_str().unwrap().len(), 64, "{line}");
    }
    refused_handshake(&vault, &client(&vault, None)).await;
    until("the line", || async { !lines(&vault, "handshake failed").is_empty() }).await;
    let line = lines(&vault, "handshake failed").pop().unwrap();
    assert_eq!((line["code"].as_str(), line["level"].as_str()), (Some("no_certificate"), Some("INFO")), "{line}");
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
}

/// A client that has sent its first request already still learns that its certificate is refused: a reset connection would look like an outage,
/// which clients repeat.
#[tokio::test]
async fn a_refused_client_gets_the_alert_after_its_first_request() {
    let ca = Ca::new("Other CA");
    let mut vault = vault_with(&ca);
    vault.serve();
    let stranger = client(&vault, Some(&Ca::new("Stranger CA").issue(Spec::client(vec![uri("spiffe://example.org/p1")]))));
    let address = vault.url().trim_start_matches("https://").parse().unwrap();
    for _ in 0..5 {
        let mut stream = connect(address, &stranger).await.unwrap();
        // A reset makes one of the later writes fail. The pause lets it arrive.
        for _ in 0..3 {
            stream.write_all(&[b'x'; 1024]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let read = stream.read(&mut [0]).await.unwrap_err().to_string();
        assert!(read.contains("UnknownCA"), "{read}");
    }
}

#[tokio::test]
async fn the_request_id_of_a_401_is_in_the_log() {
    let ca = Ca::new("Other CA");
    let mut vault = vault_with(&ca);
    vault.serve();
    for (names, code, reason) in [
        (vec![uri("spiffe://elsewhere.org/p1")], "not_vouched", "may not issue certificates for this name"),
        (vec![dns("a.example.org"), dns("b.example.org")], "no_identity", "more than one DNS"),
    ] {
        let leaf = ca.issue(Spec::client(names).serial(0xab_cd));
        let address = vault.url().trim_start_matches("https://").parse().unwrap();
        let mut stream = connect(address, &client(&vault, Some(&leaf))).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        until("the line", || async { lines(&vault, "refused with status 401").iter().any(|line| line["request_id"] == id) }).await;
        let line = lines(&vault, "refused with status 401").pop().unwrap();
        assert_eq!(
            (line["code"].as_str(), line["serial"].as_str(), line["issuer"].as_str()),
            (Some(code), Some("abcd"), Some("CN=Other CA"))
        );
        assert!(line["reason"].as_str().unwrap().contains(reason) && line["level"] == "WARN", "{line}");
    }
}

#[tokio::test]
async fn refused_clients_are_in_the_audit_log_also_after_a_reload() {
    let ca = Ca::new("Other CA");
    let mut vault = vault_with(&ca);
    vault.serve();
    let auditor = Caller::new(&vault, "auditor");
    let stranger = Ca::new("Stranger CA").issue(Spec::client(vec![uri("spiffe://example.org/p1")]).serial(0xab_cd));
    let elsewhere = ca.issue(Spec::client(vec![uri("spiffe://elsewhere.org/p1")]).serial(0xab_ce));
    refused_handshake(&vault, &client(&vault, Some(&stranger))).await;
    refused_handshake(&vault, &client(&vault, None)).await;
    let address = vault.url().trim_start_matches("https://").parse().unwrap();
    let mut stream = connect(address, &client(&vault, Some(&elsewhere))).await.unwrap();
    stream.write_all(b"GET /v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();

    let entries = || auditor.log("&operation=vault.refuse-client&outcome=denied");
    until("the entries", || async { entries().await.len() == 3 }).await;
    let entries = entries().await;
    let of = |reason: &str| entries.iter().find(|entry| entry["reason"] == reason).unwrap_or_else(|| panic!("{reason}: {entries:?}"));
    let digest = |leaf: &Leaf| crate::known_bytes::hex(&Sha256::digest(&leaf.der));
    for (reason, certificate, described) in [
        ("untrusted", Some(digest(&stranger)), "issuer CN=Stranger CA, serial abcd: no client CA"),
        ("not_vouched", Some(digest(&elsewhere)), "issuer CN=Other CA, serial abce: the client CA"),
        ("no_certificate", None, "a client certificate is required"),
    ] {
        let entry = of(reason);
        assert_eq!(entry["principal"], "unauthenticated", "{entry}");
        assert_eq!(entry["certificate"].as_str(), certificate.as_deref(), "{entry}");
        assert!(entry["subject"].as_str().unwrap().contains(described), "{entry}");
    }
    assert_eq!(of("not_vouched")["request_id"], id);

    let found = async |leaf: &Leaf| auditor.log(&format!("&certificate={}", digest(leaf))).await;
    assert_eq!(found(&elsewhere).await.len(), 1);

    // The trust after a reload reports too.
    fs::write(vault.path("other.pem"), &Ca::new("Third CA").pem).unwrap();
    until("the reload", || async { !auditor.log("&operation=vault.reload").await.is_empty() }).await;
    let former = ca.issue(Spec::client(vec![uri("spiffe://example.org/p2")]));
    refused_handshake(&vault, &client(&vault, Some(&former))).await;
    until("the entry", || async { found(&former).await.len() == 1 }).await;
}

#[tokio::test]
async fn a_flood_of_refused_handshakes_does_not_flood_the_log() {
    let mut vault = vault_with(&Ca::new("Other CA"));
    vault.serve();
    let config = client(&vault, Some(&Ca::new("Stranger CA").issue(Spec::client(vec![uri("spiffe://example.org/p1")]))));
    let refused = AtomicU64::new(0);
    let omitted = || async {
        refused.fetch_add(32, Ordering::Relaxed);
        futures_util::future::join_all((0..32).map(|_| refused_handshake(&vault, &config))).await;
        lines(&vault, "refused in the handshake").iter().any(|line| line["omitted"].as_u64().unwrap() > 0)
    };
    let began = std::time::Instant::now();
    while !omitted().await {
        assert!(began.elapsed() < std::time::Duration::from_mins(1), "more than ten handshakes in one second");
    }
    let written = lines(&vault, "refused in the handshake").len() as u64;
    assert!(written <= 10 * (began.elapsed().as_secs() + 2), "{written}");
    // One entry at once, and one with the number of the others at the end.
    assert!(vault.terminate());
    vault.serve();
    let auditor = Caller::new(&vault, "auditor");
    let entries = auditor.log("&operation=vault.refuse-client").await;
    let counted: u64 = entries.iter().map(|entry| entry["count"].as_u64().unwrap_or(1)).sum();
    assert!(entries.len() <= 4 && counted == refused.load(Ordering::Relaxed), "{counted} of {refused:?}: {entries:?}");
}
