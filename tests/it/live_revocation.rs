//! Trust and grants change while the binary serves: who is refused, who is admitted, and the audit entries.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream as StdStream,
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{cli::pki, mtls::identity};
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::{
    known_bytes::hex,
    support::{
        listener::{Client, connect},
        vault::{TestVault, problem, until},
    },
};

/// Files are looked at every second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(6);

fn certificate(vault: &TestVault, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(vault.path(&format!("pki/{name}.pem"))).unwrap()
}

/// What a principal of `dev` connects with; sessions are resumed.
pub(crate) fn config(vault: &TestVault, name: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(vault, "ca")).unwrap();
    let key = PrivateKeyDer::from_pem_file(vault.path(&format!("pki/{name}.key"))).unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate(vault, name)], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// An entry of the log for each reload, as its subject says what changed.
fn reloads(vault: &TestVault) -> Vec<String> {
    let db = vault.database();
    let mut sql = db.prepare("SELECT subject FROM audit_log WHERE operation = 'vault.reload' ORDER BY sequence").unwrap();
    sql.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// An open, a resumed and an idle connection of `participant1` end when `revoke` has put its certificate out; a new one is refused.
async fn loses_all_connections(vault: &TestVault, revoke: impl FnOnce(), part: &str) {
    let address = vault.url().trim_start_matches("https://").parse().unwrap();
    let (config, spared) = (config(vault, "participant1"), config(vault, "participant2"));
    let mut open = Client::http1(connect(address, &config).await.unwrap()).await;
    assert_eq!(open.get("/v1/whoami").await.unwrap().0, 200);
    let stream = connect(address, &config).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "else this shows nothing of resumed sessions");
    let mut resumed = Client::http1(stream).await;
    assert_eq!(resumed.get("/v1/whoami").await.unwrap().0, 200);
    let mut spared = Client::http1(connect(address, &spared).await.unwrap()).await;
    assert_eq!(spared.get("/v1/whoami").await.unwrap().0, 200);

    let began = Instant::now();
    revoke();
    open.is_closed().await;
    resumed.is_closed().await;
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
    println!("{part}: connections ended after {took:?}");
    // In TLS 1.3 the client learns of it with its first read.
    let refused = match connect(address, &config).await {
        Ok(mut stream) => stream.read(&mut [0]).await.map_or_else(|error| error.to_string(), |bytes| format!("let in: {bytes}")),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("CertificateRevoked") || refused.contains("AccessDenied"), "{refused}");
    assert_eq!(spared.get("/v1/whoami").await.unwrap().0, 200, "others stay connected");
    until("the log has it", || async { reloads(vault).len() == 1 }).await;
    assert!(reloads(vault)[0].starts_with(&format!("{part} (policy ")), "{:?}", reloads(vault));
}

#[tokio::test]
async fn a_certificate_on_the_deny_list_loses_all_its_connections() {
    let mut vault = TestVault::prepare(|config| config.replace("[tls]\n", "[tls]\ndeny = \"deny.txt\"\n"));
    fs::write(vault.path("deny.txt"), "# nobody yet\n").unwrap();
    vault.serve();
    let line = format!("{}  # lost\n", hex(&Sha256::digest(certificate(&vault, "participant1"))));
    loses_all_connections(&vault, || fs::write(vault.path("deny.txt"), line).unwrap(), "deny").await;
}

/// A list of the CA of `dev`, good for an hour.
#[expect(clippy::disallowed_methods, reason = "the binary under test has the real clock")]
fn crl(vault: &TestVault, revoked: &[&str]) -> String {
    let key = KeyPair::from_pem(&fs::read_to_string(vault.path("pki/ca.key")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&certificate(vault, "ca"), key).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let revoked = revoked.iter().map(|name| {
        let serial = identity::read(&certificate(vault, name)).unwrap().serial;
        let serial = crate::known_bytes::unhex(&serial);
        RevokedCertParams { serial_number: SerialNumber::from(serial), revocation_time: now, reason_code: None, invalidity_date: None }
    });
    let params = CertificateRevocationListParams {
        this_update: now - Duration::from_mins(1),
        next_update: now + Duration::from_hours(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_revoked_certificate_loses_all_its_connections() {
    let trust = "trust_domains = ";
    let mut vault = TestVault::prepare(|config| config.replace(trust, &format!("crl = [\"pki/ca.crl\"], {trust}")));
    fs::write(vault.path("pki/ca.crl"), crl(&vault, &[])).unwrap();
    vault.serve();
    let list = crl(&vault, &["participant1"]);
    loses_all_connections(&vault, || fs::write(vault.path("pki/ca.crl"), list).unwrap(), "crl").await;
}

#[tokio::test]
async fn a_fifo_in_place_of_a_list_stops_neither_reloads_nor_the_shutdown() {
    let trust = "trust_domains = ";
    let mut vault = TestVault::prepare(|config| config.replace(trust, &format!("crl = [\"pki/ca.crl\"], {trust}")));
    let list = vault.path("pki/ca.crl");
    fs::write(&list, crl(&vault, &[])).unwrap();
    vault.serve();
    let refused = |vault: &TestVault| {
        let log = vault.log();
        log.iter().filter(|line| line["error"].as_str().is_some_and(|error| error.contains("is a FIFO"))).count()
    };
    let fifo = |vault: &TestVault| {
        fs::remove_file(vault.path("pki/ca.crl")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, vault.path("pki/ca.crl"), rustix::fs::Mode::RWXU).unwrap();
    };
    fifo(&vault);
    until("the FIFO is refused", || async { refused(&vault) == 1 }).await;
    fs::remove_file(&list).unwrap();
    fs::write(&list, crl(&vault, &[])).unwrap();
    until("the list is read again", || async { metric(&vault, "keyvault_last_reload_success").as_deref() == Some("1") }).await;
    fifo(&vault);
    until("the FIFO is refused", || async { refused(&vault) == 2 }).await;
    let stopped = tokio::task::spawn_blocking(move || vault.terminate());
    assert!(tokio::time::timeout(Duration::from_mins(1), stopped).await.expect("the shutdown blocks").unwrap());
}

fn metric(vault: &TestVault, name: &str) -> Option<String> {
    let mut stream = StdStream::connect(vault.ops_url().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

#[tokio::test]
async fn grants_take_effect_live_in_both_directions_and_a_broken_file_changes_nothing() {
    let vault = TestVault::start();
    let (node, auditor) = (vault.client("participant1"), vault.client("auditor"));
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let id = node.create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned();
    let (path, body) = (format!("/v1/keys/{id}/sign"), json!({ "algorithm": "ed25519", "message": "aGVsbG8=" }));
    node.post(&path, &body).await.unwrap();
    let revision = |whoami: Value| whoami["policy_revision"].as_str().unwrap().to_owned();
    let first = revision(auditor.get("/v1/whoami").await.unwrap());

    // The key is open and cached, the connection kept: neither saves a right that is gone.
    let file = vault.path("keyvault.toml");
    let text = fs::read_to_string(&file).unwrap();
    let grant = |name: &str| format!("principal = \"{}\"", pki::principal(name));
    fs::write(&file, text.replace(&grant("participant1"), &grant("nobody"))).unwrap();
    until("the right is gone", || async { node.post(&path, &body).await.is_err() }).await;
    let refused = problem(node.post(&path, &body).await);
    assert_eq!((refused.status, refused.code.as_str()), (404, "not_found"));
    let second = revision(auditor.get("/v1/whoami").await.unwrap());
    assert_ne!(second, first);

    fs::write(&file, &text).unwrap();
    until("the right is back", || async { node.post(&path, &body).await.is_ok() }).await;
    assert_eq!(revision(auditor.get("/v1/whoami").await.unwrap()), first, "the same grants are the same revision");

    for broken in ["nodes = [", &text.replace("role = \"node\"", "role = \"god\""), &text.replace("pki/server.pem", "pki/nothing.pem")] {
        fs::write(&file, broken).unwrap();
        until("it was looked at", || async { metric(&vault, "keyvault_last_reload_success").as_deref() == Some("0") }).await;
        node.post(&path, &body).await.unwrap();
        assert_eq!(revision(auditor.get("/v1/whoami").await.unwrap()), first);
        fs::write(&file, &text).unwrap();
        until("it is mended", || async { metric(&vault, "keyvault_last_reload_success").as_deref() == Some("1") }).await;
    }
    let logged = reloads(&vault);
    assert_eq!(
        logged,
        [format!("policy (policy {second})"), format!("policy (policy {first})")],
        "each revision that was accepted, and no other"
    );
}
