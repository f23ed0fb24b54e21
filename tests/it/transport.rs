//! The listeners over real sockets: who gets in, as whom, and who is put out when trust changes.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, body::Body, http::StatusCode, middleware, response::IntoResponse, routing::get};
use canton_keyvault::{
    api::transport::{Admission, ConnectionLimits, Peer, Trust, admit, identity, serve, serve_ops},
    cli::reload::{self, Change, Live, Look, Reloader},
    domain::{Clock, Principal, Timestamp},
};
use http_body_util::BodyExt;
use hyper::{
    Request,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::support::pki::{self, Ca, Leaf, NOW, Spec, at, dns, uri};

const P1: &str = "spiffe://example.org/p1";

#[tokio::test]
async fn a_good_client_is_known_by_its_name_over_both_protocols() {
    let vault = Vault::start().await;
    for (names, expected) in [
        (vec![uri(P1)], P1),
        (vec![uri(P1), dns("a.example.org"), dns("b.example.org")], P1),
        (vec![dns("P1.Nodes.example.org")], "dns:p1.nodes.example.org"),
    ] {
        let leaf = vault.ca.issue(Spec::client(names));
        assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap(), (StatusCode::OK, expected.to_owned()));
        assert_eq!(vault.http2(&leaf).await.whoami().await.unwrap(), (StatusCode::OK, expected.to_owned()));
    }
}

#[tokio::test]
async fn an_intermediate_is_followed_to_its_ca() {
    let vault = Vault::start().await;
    let leaf = vault.partner.intermediate("Team CA").issue_with_chain(Spec::client(vec![uri("spiffe://partner.org/p1")]));
    assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap().1, "spiffe://partner.org/p1");
}

#[tokio::test]
async fn who_has_no_good_chain_does_not_reach_http() {
    let vault = Vault::start().await;
    let stranger = Ca::new("Other CA");
    let server_usage = Spec { usage: rcgen::ExtendedKeyUsagePurpose::ServerAuth, ..Spec::client(vec![uri(P1)]) };
    for (leaf, alert) in [
        (None, "CertificateRequired"),
        (Some(stranger.issue(Spec::client(vec![uri(P1)]))), "UnknownCA"),
        (Some(Ca::new("Client CA").issue(Spec::client(vec![uri(P1)]))), "UnknownCA"),
        (Some(vault.ca.issue(Spec::client(vec![uri(P1)]).expires(at(-1)))), "CertificateExpired"),
        (Some(vault.ca.issue(server_usage)), "UnsupportedCertificate"),
    ] {
        let refused = vault.refused_handshake(leaf.as_ref()).await;
        assert!(refused.contains(alert), "{alert}: {refused}");
    }
}

#[tokio::test]
async fn who_has_no_good_name_gets_an_answer_that_says_so_and_no_second_one() {
    let vault = Vault::start().await;
    for (names, reason) in [
        (vec![uri(P1), uri("spiffe://example.org/p2")], "more than one URI"),
        (vec![dns("a.example.org"), dns("b.example.org")], "more than one DNS"),
        (vec![dns("*.nodes.example.org")], "wildcard"),
        (vec![], "common name does not count"),
        (vec![uri("spiffe://example.org/p1?admin")], "no SPIFFE id"),
        (vec![uri("spiffe://other.org/p1")], "may not vouch"),
        (vec![dns("p1.other.org")], "may not vouch"),
    ] {
        let leaf = vault.ca.issue(Spec::client(names));
        let mut http1 = vault.http1(&leaf).await;
        let (status, text) = http1.whoami().await.unwrap();
        assert!(status == StatusCode::FORBIDDEN && text.contains(reason), "{reason}: {status} {text}");
        http1.is_closed().await;
        let mut http2 = vault.http2(&leaf).await;
        assert_eq!(http2.whoami().await.unwrap().0, StatusCode::FORBIDDEN);
        http2.is_closed().await;
    }
}

#[tokio::test]
async fn one_ca_cannot_speak_for_the_trust_domain_of_another() {
    let vault = Vault::start().await;
    let partner = |names| vault.partner.issue(Spec::client(names));
    let own = partner(vec![uri("spiffe://partner.org/p1")]);
    assert_eq!(vault.http1(&own).await.whoami().await.unwrap().0, StatusCode::OK);
    let (status, text) = vault.http1(&partner(vec![uri(P1)])).await.whoami().await.unwrap();
    assert!(status == StatusCode::FORBIDDEN && text.contains("may not vouch"), "{text}");
}

#[tokio::test]
async fn headers_that_claim_an_identity_change_nothing() {
    let vault = Vault::start().await;
    let mut client = vault.http1(&vault.ca.issue(Spec::client(vec![uri(P1)]))).await;
    let request = [
        ("x-forwarded-client-cert", "URI=spiffe://example.org/admin"),
        ("x-ssl-client-s-dn", "CN=admin"),
        ("x-forwarded-user", "admin"),
        ("forwarded", "for=1.2.3.4"),
        ("authorization", "Bearer admin"),
    ]
    .into_iter()
    .fold(Request::get("/whoami"), |request, (name, value)| request.header(name, value));
    assert_eq!(client.send(request.body(Body::empty()).unwrap()).await.unwrap().1, P1);
}

#[tokio::test]
async fn tls_1_2_is_refused_unless_it_is_switched_on() {
    let mut vault = Vault::start().await;
    let leaf = vault.ca.issue(Spec::client(vec![uri(P1)]));
    let old = || pki::client(&vault.ca, Some(&leaf), b"http/1.1", &[&TLS12]);
    assert!(vault.connect(&old()).await.unwrap_err().to_string().contains("ProtocolVersion"));
    let old = old();
    vault.edit("[tls]", "[tls]\nmin_version = \"1.2\"");
    assert_eq!(vault.reload(), ["server-certificate"]);
    let stream = vault.connect(&old).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(Client::http1(stream).await.whoami().await.unwrap().1, P1);
    assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap().1, P1, "1.3 as before");
}

#[tokio::test]
async fn key_exchange_is_post_quantum_where_the_client_can() {
    let vault = Vault::start().await;
    let leaf = vault.ca.issue(Spec::client(vec![uri(P1)]));
    let stream = vault.connect(&pki::client(&vault.ca, Some(&leaf), b"h2", &[&TLS13])).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_revoked_client_loses_open_idle_and_resumed_connections() {
    let mut vault = Vault::start().await;
    let (leaf, other) = (vault.client(7, P1), vault.client(8, "spiffe://example.org/p2"));
    let config = pki::client(&vault.ca, Some(&leaf), b"http/1.1", &[&TLS13]);
    let mut first = Client::http1(vault.connect(&config).await.unwrap()).await;
    assert_eq!(first.whoami().await.unwrap().1, P1);
    let resumed = vault.connect(&config).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "else this test shows nothing");
    let mut resumed = Client::http1(resumed).await;
    assert_eq!(resumed.whoami().await.unwrap().1, P1);
    let (mut http2, mut spared) = (vault.http2(&leaf).await, vault.http2(&other).await);
    for client in [&mut http2, &mut spared] {
        assert_eq!(client.whoami().await.unwrap().0, StatusCode::OK);
    }
    vault.write("ca.crl", &vault.ca.crl(&[7], at(3600)));
    assert_eq!(vault.reload(), ["crl"]);
    for client in [&mut first, &mut resumed, &mut http2] {
        client.is_closed().await;
    }
    assert_eq!(spared.whoami().await.unwrap().1, "spiffe://example.org/p2");
    // The client still has a ticket; it opens nothing any more.
    let refused = vault.refused_handshake_of(&config).await;
    assert!(refused.contains("CertificateRevoked"), "{refused}");
}

#[tokio::test]
async fn a_request_under_way_when_trust_ends_is_answered_and_is_the_last() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let mut client = vault.http1(&leaf).await;
    let slow = tokio::spawn(async move { (client.get("/slow").await, client) });
    vault.arrived().await;
    vault.write("ca.crl", &vault.ca.crl(&[7], at(3600)));
    vault.reload();
    vault.gate.add_permits(1);
    let (answer, mut client) = slow.await.unwrap();
    assert_eq!(answer.unwrap().1, "slow");
    client.is_closed().await;
}

#[tokio::test]
async fn a_revocation_list_past_its_next_update_closes_its_ca_and_no_other() {
    let vault = Vault::start().await;
    let (leaf, partner) = (vault.client(7, P1), vault.partner.issue(Spec::client(vec![uri("spiffe://partner.org/p1")])));
    let (mut ours, mut theirs) = (vault.http1(&leaf).await, vault.http1(&partner).await);
    assert_eq!(ours.whoami().await.unwrap().0, StatusCode::OK);
    assert_eq!(theirs.whoami().await.unwrap().0, StatusCode::OK);
    vault.pass(3601);
    let (status, text) = ours.whoami().await.unwrap();
    assert!(status == StatusCode::FORBIDDEN && text.contains("no current revocation list"), "{text}");
    assert_eq!(theirs.whoami().await.unwrap().0, StatusCode::OK);
    assert!(vault.refused_handshake(Some(&leaf)).await.contains("alert"), "nor is it let in anew");
    assert_eq!(vault.trust.expiries().iter().find(|(kind, _)| kind.as_str() == "crl").unwrap().1, -1);
}

#[tokio::test]
async fn a_leaf_of_an_intermediate_without_a_list_is_refused_where_lists_are_asked_for() {
    let mut vault = Vault::start().await;
    let team = vault.ca.intermediate("Team CA");
    let leaf = team.issue_with_chain(Spec::client(vec![uri(P1)]));
    vault.write("ca.crl", &format!("{}{}", vault.ca.crl(&[], at(3600)), team.crl(&[], at(3600))));
    vault.reload();
    assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap().1, P1);
    vault.write("ca.crl", &vault.ca.crl(&[], at(3600)));
    vault.reload();
    assert!(vault.refused_handshake(Some(&leaf)).await.contains("alert"));
}

#[tokio::test]
async fn expiry_ends_open_and_resumed_connections() {
    let vault = Vault::start().await;
    let leaf = vault.ca.issue(Spec::client(vec![uri(P1)]).expires(at(60)));
    let config = pki::client(&vault.ca, Some(&leaf), b"http/1.1", &[&TLS13]);
    let mut open = Client::http1(vault.connect(&config).await.unwrap()).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    vault.pass(60);
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK, "the last second counts");
    vault.pass(1);
    let (status, text) = open.whoami().await.unwrap();
    assert!(status == StatusCode::FORBIDDEN && text.contains("expired"), "{text}");
    open.is_closed().await;
    let stream = vault.connect(&config).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "no verifier ran");
    assert_eq!(Client::http1(stream).await.whoami().await.unwrap().0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_deny_list_works_by_digest_and_by_serial_and_in_the_configuration_or_a_file() {
    let mut vault = Vault::start().await;
    let (one, two, three) = (vault.client(21, P1), vault.client(22, P1), vault.client(23, P1));
    let mut open = vault.http2(&one).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    let digest = Sha256::digest(&one.der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    vault.edit("deny = \"deny.txt\"", &format!("deny = [\"{digest}\", \"16 CN=Client CA\"]"));
    assert_eq!(vault.reload(), ["deny"]);
    open.is_closed().await;
    for leaf in [&one, &two] {
        assert!(vault.refused_handshake(Some(leaf)).await.contains("CertificateRevoked"));
    }
    assert_eq!(vault.http1(&three).await.whoami().await.unwrap().0, StatusCode::OK);
    vault.write("deny.txt", "17 CN=Client CA  # lost\n");
    vault.edit(&format!("deny = [\"{digest}\", \"16 CN=Client CA\"]"), "deny = \"deny.txt\"");
    assert_eq!(vault.reload(), ["deny"]);
    assert!(vault.refused_handshake(Some(&three)).await.contains("CertificateRevoked"));
    assert_eq!(vault.http1(&two).await.whoami().await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn a_ca_is_exchanged_while_serving() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let mut open = vault.http2(&leaf).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    let (old, new) = (vault.ca.pem.clone(), Ca::new("Client CA"));
    let new_leaf = new.issue(Spec::client(vec![uri(P1)]));
    // Both for a while, then the new one alone.
    vault.write("ca.pem", &format!("{old}{}", new.pem));
    vault.write("ca.crl", &format!("{}{}", vault.ca.crl(&[], at(3600)), new.crl(&[], at(3600))));
    assert_eq!(vault.reload(), ["client-cas", "crl"]);
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    assert_eq!(vault.http1(&new_leaf).await.whoami().await.unwrap().0, StatusCode::OK);
    vault.write("ca.pem", &new.pem);
    vault.reload();
    open.is_closed().await;
    assert!(vault.refused_handshake(Some(&leaf)).await.contains("UnknownCA"));
    assert_eq!(vault.http1(&new_leaf).await.whoami().await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn what_a_ca_may_vouch_for_changes_while_serving() {
    let mut vault = Vault::start().await;
    let mut open = vault.http2(&vault.client(7, P1)).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    vault.edit("trust_domains = [\"example.org\"]", "trust_domains = [\"example.net\"]");
    assert_eq!(vault.reload(), ["client-cas"]);
    open.is_closed().await;
}

#[tokio::test]
async fn a_symlink_swap_is_seen_and_new_connections_get_the_new_certificate() {
    let mut vault = Vault::start().await;
    // As the kubelet does it: server.pem → ..data/server.pem, ..data → a folder, exchanged by a rename.
    let server = |serial| vault.ca.issue(Spec::server().serial(serial));
    for (folder, leaf) in [("..v1", server(101)), ("..v2", server(102))] {
        std::fs::create_dir(vault.path(folder)).unwrap();
        leaf.write(&vault.path(folder), "server");
    }
    symlink("..v1", vault.path("..data")).unwrap();
    for file in ["server.pem", "server.key"] {
        std::fs::remove_file(vault.path(file)).unwrap();
        symlink(Path::new("..data").join(file), vault.path(file)).unwrap();
    }
    assert_eq!(vault.reload(), ["server-certificate"]);
    let leaf = vault.client(7, P1);
    let mut open = vault.http1(&leaf).await;
    assert_eq!(vault.server_serial(&leaf).await, "65");
    symlink("..v2", vault.path("..data_tmp")).unwrap();
    std::fs::rename(vault.path("..data_tmp"), vault.path("..data")).unwrap();
    assert_eq!(vault.reload(), ["server-certificate"]);
    assert_eq!(vault.server_serial(&leaf).await, "66");
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK, "who was trusted and still is, stays");
}

#[tokio::test]
async fn what_is_not_good_in_every_part_changes_nothing() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let good = std::fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    let key = std::fs::read_to_string(vault.path("server.key")).unwrap();
    let other = vault.ca.issue(Spec::server());
    let expired = vault.ca.issue(Spec::server().expires(at(-1)));
    let toml = |from: &str, to: &str| good.replace(from, to);
    for (file, text, complaint) in [
        ("server.key", other.key_pem.clone(), "belong together"),
        ("server.key", String::new(), "server.key"),
        ("server.pem", expired.chain_pem.clone(), "server.pem"),
        ("server.pem", "nothing".to_owned(), "holds no certificate"),
        ("ca.pem", leaf.chain_pem.clone(), "no CA"),
        ("ca.crl", "nothing".to_owned(), "ca.crl"),
        ("keyvault.toml", toml("[tls]", "[tls]\ndney = []"), "dney"),
        ("keyvault.toml", toml("\"deny.txt\"", "[\"zz\"]"), "zz"),
        ("keyvault.toml", toml("role = \"node\"", "role = \"king\""), "king"),
        ("keyvault.toml", toml("ca.crl", "gone.crl"), "gone.crl"),
    ] {
        let before = std::fs::read_to_string(vault.path(file)).unwrap();
        // Something good that comes with something bad is not taken over either.
        let deny = Sha256::digest(&leaf.der).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        vault.write("deny.txt", &deny);
        vault.write(file, &text);
        match vault.reloader.look() {
            Look::Refused(error) => assert!(error.to_string().contains(complaint), "{complaint}: {error}"),
            other => panic!("{file} with {complaint}: {other:?}"),
        }
        assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap().0, StatusCode::OK, "{complaint}");
        vault.write(file, &before);
        vault.write("deny.txt", "");
        assert!(matches!(vault.reloader.look(), Look::Same), "{complaint}");
    }
    std::fs::remove_file(vault.path("server.key")).unwrap();
    assert!(matches!(vault.reloader.look(), Look::Refused(_)));
    vault.write("server.key", &key);
    assert!(matches!(vault.reloader.look(), Look::Same));
}

#[tokio::test]
async fn grants_reload_with_their_revision() {
    let mut vault = Vault::start().await;
    let before = vault.policy_revision();
    vault.edit("role = \"node\"", "role = \"auditor\"");
    let Look::Changed(Change { revision, parts }) = vault.reloader.look() else { panic!("not taken over") };
    assert_eq!(parts, ["policy"]);
    assert_ne!(revision, before);
    assert_eq!(vault.policy_revision(), revision);
}

#[tokio::test]
async fn the_reloader_looks_by_itself_and_reports_each_change_once() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let mut open = vault.http2(&leaf).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let (seen, stop) = (Arc::clone(&changes), CancellationToken::new());
    let fresh = reload::load(&vault.path("keyvault.toml"), vault.clock.clone()).unwrap();
    let reloader = std::mem::replace(&mut vault.reloader, fresh.reloader);
    let running = tokio::spawn(reloader.run(stop.clone(), move |change| {
        seen.lock().unwrap().push(change.parts);
        Box::pin(async {})
    }));
    vault.write("ca.crl", &vault.ca.crl(&[7], at(3600)));
    open.is_closed().await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(*changes.lock().unwrap(), [["crl"]]);
}

#[tokio::test]
async fn the_operations_listener_speaks_plain_http_and_tls_and_knows_nobody() {
    let vault = Vault::start().await;
    let plain = TcpStream::connect(vault.ops).await.unwrap();
    assert_eq!(Client::http1(plain).await.get("/healthz").await.unwrap(), (StatusCode::OK, "nobody".to_owned()));
    let leaf = vault.client(7, P1);
    for leaf in [None, Some(&leaf)] {
        let config = pki::client(&vault.ca, leaf, b"http/1.1", &[&TLS13]);
        let stream = connect(vault.ops, &config).await.unwrap();
        assert_eq!(Client::http1(stream).await.get("/healthz").await.unwrap(), (StatusCode::OK, "nobody".to_owned()));
    }
    let config = pki::client(&vault.ca, None, b"h2", &[&TLS13]);
    let stream = connect(vault.ops, &config).await.unwrap();
    assert_eq!(Client::http2(stream).await.get("/healthz").await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn the_api_does_not_speak_plain_http() {
    let vault = Vault::start().await;
    let mut stream = TcpStream::connect(vault.api).await.unwrap();
    stream.write_all(b"GET /whoami HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_does_not_wait_for_the_idle() {
    for protocol in [b"http/1.1".as_slice(), b"h2"] {
        let mut vault = Vault::start().await;
        let leaf = vault.client(7, P1);
        let config = pki::client(&vault.ca, Some(&leaf), protocol, &[&TLS13]);
        // One that never asks, one that asked and is idle, one that does not even shake hands, one that waits for its answer.
        let _silent = vault.connect(&config).await.unwrap();
        let mut idle = Client::new(vault.connect(&config).await.unwrap(), protocol).await;
        idle.whoami().await.unwrap();
        let _mute = TcpStream::connect(vault.api).await.unwrap();
        let mut client = Client::new(vault.connect(&config).await.unwrap(), protocol).await;
        let slow = tokio::spawn(async move { client.get("/slow").await });
        vault.arrived().await;
        vault.shutdown.cancel();
        vault.gate.add_permits(1);
        assert_eq!(slow.await.unwrap().unwrap(), (StatusCode::OK, "slow".to_owned()));
        idle.is_closed().await;
        timeout(PATIENCE, &mut vault.serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(vault.api).await.is_err(), "nobody new");
    }
}

/// Both listeners over a folder of files, with a clock that tests move.
struct Vault {
    folder: tempfile::TempDir,
    ca: Ca,
    partner: Ca,
    api: SocketAddr,
    ops: SocketAddr,
    trust: Arc<Trust>,
    reloader: Reloader,
    policy_revision: Box<dyn Fn() -> Arc<str> + Send>,
    clock: Clock,
    seconds: Arc<AtomicI64>,
    /// A permit for each answer of `/slow`.
    gate: Arc<Semaphore>,
    /// A permit for each request to `/slow`.
    arrivals: Arc<Semaphore>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

const CONFIG: &str = r#"
nodes = ["p1"]
grants = [{ principal = "spiffe://example.org/p1", role = "node", nodes = ["p1"] }]
[vault]
id = "test"
[listen]
api = "127.0.0.1:0"
ops = "127.0.0.1:0"
[tls]
certificate = "server.pem"
key = "server.key"
deny = "deny.txt"
client_cas = [
    { file = "ca.pem", trust_domains = ["example.org"], dns = ["*.nodes.example.org"], crl = ["ca.crl"] },
    { file = "partner.pem", trust_domains = ["partner.org"] },
]
[storage]
path = "keyvault.db"
[wrapper]
provider = "local"
"#;

impl Vault {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, partner) = (Ca::new("Client CA"), Ca::new("Partner CA"));
        ca.issue(Spec::server()).write(folder.path(), "server");
        for (file, text) in [
            ("ca.pem", &*ca.pem),
            ("partner.pem", &partner.pem),
            ("ca.crl", &ca.crl(&[], at(3600))),
            ("deny.txt", ""),
            ("keyvault.toml", CONFIG),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let seconds = Arc::new(AtomicI64::new(NOW.seconds()));
        let clock: Clock = {
            let seconds = Arc::clone(&seconds);
            Arc::new(move || Timestamp::from_micros(seconds.load(Ordering::SeqCst) * 1_000_000))
        };
        let Live { trust, policy, reloader, .. } = reload::load(&folder.path().join("keyvault.toml"), Arc::clone(&clock)).unwrap();
        let (gate, arrivals) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let shutdown = CancellationToken::new();
        // Long enough that a test which has to wait for it fails.
        let limits = ConnectionLimits { drain: 10 * PATIENCE, handshake: 10 * PATIENCE, ..ConnectionLimits::default() };
        let (api, ops) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (api_address, ops_address) = (api.local_addr().unwrap(), ops.local_addr().unwrap());
        let routes = routes(&trust, &gate, &arrivals);
        let serving = tokio::spawn(serve(api, Arc::clone(&trust), routes, limits.clone(), shutdown.clone()));
        let health = get(|peer: Option<Extension<Arc<Peer>>>| async move { if peer.is_none() { "nobody" } else { "somebody" } });
        tokio::spawn(serve_ops(ops, Arc::clone(&trust), Router::new().route("/healthz", health), limits, shutdown.clone()));
        let policy_revision = Box::new(move || Arc::clone(policy.load().revision()));
        let (api, ops) = (api_address, ops_address);
        Self { folder, ca, partner, api, ops, trust, reloader, policy_revision, clock, seconds, gate, arrivals, shutdown, serving }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("keyvault.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        self.write("keyvault.toml", &text.replacen(from, to, 1));
    }

    /// Looks at the files now; what changed.
    fn reload(&mut self) -> Vec<&'static str> {
        match self.reloader.look() {
            Look::Changed(change) => change.parts,
            other => panic!("{other:?}"),
        }
    }

    fn policy_revision(&self) -> Arc<str> {
        (self.policy_revision)()
    }

    /// Lets time pass.
    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Waits for a request to `/slow`.
    async fn arrived(&self) {
        timeout(PATIENCE, self.arrivals.acquire()).await.unwrap().unwrap().forget();
    }

    fn client(&self, serial: u64, name: &str) -> Leaf {
        self.ca.issue(Spec::client(vec![uri(name)]).serial(serial))
    }

    async fn connect(&self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        connect(self.api, config).await
    }

    async fn http1(&self, leaf: &Leaf) -> Client {
        Client::http1(self.connect(&pki::client(&self.ca, Some(leaf), b"http/1.1", &[&TLS13])).await.unwrap()).await
    }

    async fn http2(&self, leaf: &Leaf) -> Client {
        Client::http2(self.connect(&pki::client(&self.ca, Some(leaf), b"h2", &[&TLS13])).await.unwrap()).await
    }

    /// How a handshake is refused.
    async fn refused_handshake(&self, leaf: Option<&Leaf>) -> String {
        self.refused_handshake_of(&pki::client(&self.ca, leaf, b"http/1.1", &[&TLS13])).await
    }

    async fn refused_handshake_of(&self, config: &Arc<ClientConfig>) -> String {
        // In TLS 1.3 a client has finished before the server has looked at its certificate: the alert comes with the first read.
        let mut stream = match self.connect(config).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        match timeout(PATIENCE, stream.read(&mut [0])).await.unwrap() {
            Ok(bytes) => panic!("let in: {bytes} bytes"),
            Err(error) => error.to_string(),
        }
    }

    async fn server_serial(&self, leaf: &Leaf) -> String {
        let stream = self.connect(&pki::client(&self.ca, Some(leaf), b"h2", &[&TLS13])).await.unwrap();
        identity::read(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap().serial
    }
}

fn routes(trust: &Arc<Trust>, gate: &Arc<Semaphore>, arrivals: &Arc<Semaphore>) -> Router {
    let (gate, arrivals) = (Arc::clone(gate), Arc::clone(arrivals));
    let slow = get(move || async move {
        arrivals.add_permits(1);
        gate.acquire().await.unwrap().forget();
        "slow"
    });
    let whoami = get(|Extension(principal): Extension<Principal>| async move { principal.name.to_string() });
    let admission = Admission::new(Arc::clone(trust), |reason| (StatusCode::FORBIDDEN, reason.to_string()).into_response());
    Router::new().route("/whoami", whoami).route("/slow", slow).layer(middleware::from_fn_with_state(admission, admit))
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// One connection of a client.
struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn new(stream: TlsStream<TcpStream>, protocol: &[u8]) -> Self {
        if protocol == b"h2" { Self::http2(stream).await } else { Self::http1(stream).await }
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http1(sender), connection: tokio::spawn(async { drop(connection.await) }) }
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http2(sender), connection: tokio::spawn(async { drop(connection.await) }) }
    }

    async fn whoami(&mut self) -> hyper::Result<(StatusCode, String)> {
        self.get("/whoami").await
    }

    async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        self.send(Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()).await
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<(StatusCode, String)> {
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                // Over HTTP/2 the authority stands in the URI.
                let (mut parts, body) = request.into_parts();
                parts.uri = format!("https://localhost{}", parts.uri).parse().unwrap();
                parts.headers.remove("host");
                sender.send_request(Request::from_parts(parts, body)).await?
            }
        };
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Waits until the server has ended the connection.
    async fn is_closed(&mut self) {
        timeout(PATIENCE, &mut self.connection).await.expect("the connection stays open").unwrap();
    }
}

/// Far more than anything here takes; who waits for so long waits for ever.
const PATIENCE: Duration = Duration::from_secs(10);
