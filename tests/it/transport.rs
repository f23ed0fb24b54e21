//! The listeners over real sockets: who is admitted, under which name, and for how long.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use canton_keyvault::mtls::ConnectionLimits;
use hyper::Request;
use rustls::{
    HandshakeKind, NamedGroup, ProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    listener::{Client, PATIENCE, Vault, connect},
    pki::{self, Ca, Spec, at, dns, uri},
};

const P1: &str = "spiffe://example.org/p1";

#[tokio::test]
async fn a_valid_client_has_its_name_over_http1_and_http2() {
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
async fn a_client_without_a_valid_chain_does_not_reach_http() {
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
async fn a_client_without_a_valid_name_gets_one_response_that_says_so() {
    let vault = Vault::start().await;
    for (names, reason) in [
        (vec![uri(P1), uri("spiffe://example.org/p2")], "more than one URI"),
        (vec![dns("a.example.org"), dns("b.example.org")], "more than one DNS"),
        (vec![dns("*.nodes.example.org")], "wildcard"),
        (vec![], "common name is not used"),
        (vec![uri("spiffe://example.org/p1?admin")], "not a SPIFFE id"),
        (vec![uri("spiffe://other.org/p1")], "may not issue certificates for this name"),
        (vec![dns("p1.other.org")], "may not issue certificates for this name"),
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
async fn a_ca_cannot_issue_names_of_the_trust_domain_of_another() {
    let vault = Vault::start().await;
    let partner = |names| vault.partner.issue(Spec::client(names));
    let own = partner(vec![uri("spiffe://partner.org/p1")]);
    assert_eq!(vault.http1(&own).await.whoami().await.unwrap().0, StatusCode::OK);
    let (status, text) = vault.http1(&partner(vec![uri(P1)])).await.whoami().await.unwrap();
    assert!(status == StatusCode::FORBIDDEN && text.contains("may not issue certificates for this name"), "{text}");
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
async fn the_operations_listener_speaks_plain_http_and_tls_without_principals() {
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

#[tokio::test]
async fn no_client_holds_a_connection_for_ever() {
    let short = Duration::from_millis(50);
    let vault = Vault::start_with(ConnectionLimits { handshake_timeout: short, ..ConnectionLimits::default() }).await;
    for address in [vault.api, vault.ops] {
        let mut mute = TcpStream::connect(address).await.unwrap();
        assert_eq!(timeout(PATIENCE, mute.read(&mut [0])).await.unwrap().unwrap(), 0, "no handshake");
    }
    let vault = Vault::start_with(ConnectionLimits { idle_timeout: short, ..ConnectionLimits::default() }).await;
    let leaf = vault.client(7, P1);
    for mut client in [vault.http1(&leaf).await, vault.http2(&leaf).await] {
        // On a busy machine it may be closed before the call.
        let _ = client.whoami().await;
        client.is_closed().await;
    }
    for mut unused in [vault.http1(&leaf).await, vault.http2(&leaf).await] {
        unused.is_closed().await;
    }
    let vault = Vault::start_with(ConnectionLimits { max_age: short, ..ConnectionLimits::default() }).await;
    let leaf = vault.client(7, P1);
    for mut client in [vault.http1(&leaf).await, vault.http2(&leaf).await] {
        client.is_closed().await;
    }
}

#[tokio::test]
async fn there_are_as_many_places_as_allowed() {
    let vault = Vault::start_with(ConnectionLimits { total: 1, reserved: 0, ..ConnectionLimits::default() }).await;
    let leaf = vault.client(7, P1);
    let mut first = vault.http1(&leaf).await;
    assert_eq!(first.whoami().await.unwrap().0, StatusCode::OK);
    vault.http1(&leaf).await.is_closed().await;
    assert_eq!(first.whoami().await.unwrap().0, StatusCode::OK);
    drop(first);
    // The place is free as soon as the server has seen the end.
    let again = async { while vault.http1(&leaf).await.whoami().await.is_err() {} };
    timeout(PATIENCE, again).await.unwrap();
}
