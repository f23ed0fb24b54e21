//! The trust changes while the vault serves: which connections end, which stay, and which reloads are refused.

use std::{
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::http::StatusCode;
use canton_keyvault::server::reload::{self, Look, ReloadedParts};
use rustls::{HandshakeKind, version::TLS13};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::support::{
    listener::{Client, PATIENCE, Vault},
    pki::{self, Ca, Spec, at, uri},
};

const P1: &str = "spiffe://example.org/p1";

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
    assert_eq!(vault.trust.expiries().iter().find(|expiry| expiry.kind.as_str() == "crl").unwrap().seconds, -1);
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
async fn the_deny_list_works_by_digest_and_by_serial_and_in_the_configuration_or_a_file() {
    let mut vault = Vault::start().await;
    let (one, two, three) = (vault.client(21, P1), vault.client(22, P1), vault.client(23, P1));
    let mut open = vault.http2(&one).await;
    assert_eq!(open.whoami().await.unwrap().0, StatusCode::OK);
    let digest = digest(&one.der);
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
async fn the_names_of_a_ca_reload_while_serving() {
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
async fn a_reload_with_an_invalid_part_changes_nothing() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let good = std::fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    let key = std::fs::read_to_string(vault.path("server.key")).unwrap();
    let other = vault.ca.issue(Spec::server());
    let expired = vault.ca.issue(Spec::server().expires(at(-1)));
    let toml = |from: &str, to: &str| good.replace(from, to);
    for (file, text, complaint) in [
        ("server.key", other.key_pem.clone(), "does not belong to the certificate"),
        ("server.key", String::new(), "server.key"),
        ("server.pem", expired.chain_pem.clone(), "server.pem"),
        ("server.pem", "nothing".to_owned(), "contains no certificate"),
        ("ca.pem", leaf.chain_pem.clone(), "not a CA"),
        ("ca.crl", "nothing".to_owned(), "ca.crl"),
        ("keyvault.toml", toml("[tls]", "[tls]\ndney = []"), "dney"),
        ("keyvault.toml", toml("\"deny.txt\"", "[\"zz\"]"), "zz"),
        ("keyvault.toml", toml("role = \"node\"", "role = \"king\""), "king"),
        ("keyvault.toml", toml("ca.crl", "gone.crl"), "gone.crl"),
    ] {
        let before = std::fs::read_to_string(vault.path(file)).unwrap();
        // Something good that comes with something bad is not taken over either.
        let deny = digest(&leaf.der);
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
async fn anything_but_a_regular_file_of_bounded_size_is_refused_at_once() {
    let mut vault = Vault::start().await;
    let leaf = vault.client(7, P1);
    let place = |name: &str, path: &Path| match name {
        "is a FIFO" => rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap(),
        "is a device" => symlink("/dev/zero", path).unwrap(),
        "is a folder" => std::fs::create_dir(path).unwrap(),
        _ => std::fs::File::create(path).unwrap().set_len(17 << 20).unwrap(),
    };
    for file in ["keyvault.toml", "server.pem", "server.key", "ca.pem", "ca.crl", "deny.txt"] {
        let (path, aside) = (vault.path(file), vault.path("aside"));
        for complaint in ["is a FIFO", "is a device", "is a folder", "has 17825792 bytes"] {
            std::fs::rename(&path, &aside).unwrap();
            place(complaint, &path);
            // In a thread, because the fault is to wait for ever.
            let (sender, looked) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let look = vault.reloader.look();
                drop(sender.send((look, vault)));
            });
            let look;
            (look, vault) = tokio::time::timeout(PATIENCE, looked).await.expect("the reload blocks").unwrap();
            let Look::Refused(error) = look else { panic!("{file}: {complaint}: {look:?}") };
            let error = error.to_string();
            assert!(error.contains(file) && error.contains(complaint), "{file}: {complaint}: {error}");
            assert_eq!(vault.http1(&leaf).await.whoami().await.unwrap().0, StatusCode::OK);
            if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.unwrap();
            std::fs::rename(&aside, &path).unwrap();
            assert!(matches!(vault.reloader.look(), Look::Same), "{file}");
        }
    }
}

#[tokio::test]
async fn grants_reload_with_their_revision() {
    let mut vault = Vault::start().await;
    let before = vault.policy_revision();
    vault.edit("role = \"node\"", "role = \"auditor\"");
    let Look::Changed(ReloadedParts { revision, parts }) = vault.reloader.look() else { panic!("not taken over") };
    assert_eq!(parts, ["policy"]);
    assert_ne!(revision, before);
    assert_eq!(vault.policy_revision(), revision);
}

#[tokio::test]
async fn the_reloader_reports_each_change_once() {
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

/// SHA-256 of a certificate, as in a deny-list.
fn digest(der: &[u8]) -> String {
    Sha256::digest(der).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
