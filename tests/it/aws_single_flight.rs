//! A thousand concurrent requests for one uncached key cause one KMS call, and all are answered.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::TestVault,
};

const CONNECTIONS: usize = 4;
const STREAMS: usize = 250;

#[tokio::test]
async fn a_thousand_requests_for_one_cold_key_cost_one_call_to_kms() {
    // A machine that is busy with a thousand requests may be slow to read an answer, and a call that is tried again counts.
    let aws = AwsVault::start(Setup { limits: Some("attempt_timeout = \"20s\"\ntimeout = \"20s\""), ..Setup::default() }).await;
    let key = aws.key().await;
    let before = aws.count(&key, "Decrypt");
    // Long enough for all of them to arrive while it is under way.
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 1000, "only": "Decrypt", "key": aws.arn, "count": 1 })).await;

    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(&aws.vault).await);
    }
    let body = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") }).to_string();
    let uri = format!("{}/v1/keys/{key}/sign", aws.vault.url());
    let mut calls = JoinSet::new();
    for sender in senders {
        for _ in 0..STREAMS {
            let mut sender = sender.clone();
            let request = http::Request::post(&uri).header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
            calls.spawn(async move {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                let status = answer.status().as_u16();
                (status, answer.into_body().collect().await.unwrap().to_bytes())
            });
        }
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.len(), CONNECTIONS * STREAMS);
    for (status, body) in &answers {
        assert_eq!(*status, 200, "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(aws.count(&key, "Decrypt") - before, 1);

    let entries = aws.entries("keys.sign", Some(&key)).await;
    assert_eq!(entries.len(), CONNECTIONS * STREAMS, "each has its entry");
    let named: Vec<&Value> = entries.iter().filter_map(|entry| entry.get("kms_request_ids")).collect();
    assert_eq!(named, [&json!([aws.kms_calls(&key).pop().unwrap()["request_id"]])], "and one of them names the call to KMS");
}

async fn connect(vault: &TestVault) -> http2::SendRequest<Full<Bytes>> {
    let options = vault.options("participant1");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&options.ca).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(&options.cert).unwrap().map(Result::unwrap).collect();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&options.key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(vault.url().strip_prefix("https://").unwrap()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
