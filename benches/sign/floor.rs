//! The floor: HTTP, mutual TLS, JSON, one Ed25519 key, and an entry that is durable by group commit before the answer leaves. No
//! identity, no permits, no key store, no metrics: what a vault costs above it is the vault's own.

use std::{path::Path, sync::Arc, thread};

use anyhow::Context as _;
use aws_lc_rs::signature::Ed25519KeyPair;
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    crypto::{PrivateKey, SystemRandom, scheme},
    domain::{Algorithm, KeySpec, Purpose},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rusqlite::Connection;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Any id will do.
const KEY: &str = "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809";

struct Floor {
    signer: Signer,
    log: mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>,
}

enum Signer {
    /// Signs only.
    Plain(Ed25519KeyPair),
    /// The cryptography of the vault, which verifies each signature before it releases it.
    Verifying(Box<dyn PrivateKey>),
}

impl Signer {
    fn new(verify: bool) -> anyhow::Result<Self> {
        if !verify {
            return Ok(Self::Plain(Ed25519KeyPair::from_seed_unchecked(&[7; 32])?));
        }
        let scheme = scheme(KeySpec::EcCurve25519, Purpose::Signing).context("no Ed25519")?;
        Ok(Self::Verifying(scheme.parse(&scheme.generate(&SystemRandom::default())?)?))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, StatusCode> {
        match self {
            Self::Plain(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Verifying(key) => key.sign(Algorithm::Ed25519, message).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

#[derive(Deserialize)]
struct Ask {
    algorithm: String,
    message: String,
}

#[derive(Serialize)]
struct Answer {
    key_id: &'static str,
    algorithm: String,
    signature: String,
    signature_format: &'static str,
}

/// Serves until it is told to end.
pub(crate) fn serve(folder: &Path, verify: bool) -> anyhow::Result<()> {
    let address = std::env::var("FLOOR_LISTEN").context("the benchmark starts its floors by itself")?;
    let signer = Signer::new(verify)?;
    let log = writer(&folder.join(if verify { "floor-verify.db" } else { "floor.db" }))?;
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls(&folder.join("pki"))?));
    let router = Router::new().route("/v1/keys/{id}/sign", post(sign)).with_state(Arc::new(Floor { signer, log }));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("ready {KEY}");
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    })
}

async fn sign(State(floor): State<Arc<Floor>>, Json(ask): Json<Ask>) -> Result<Json<Answer>, StatusCode> {
    let fault = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let message = STANDARD.decode(&ask.message).map_err(|_| StatusCode::BAD_REQUEST)?;
    let signature = floor.signer.sign(&message)?;
    let (written, durable) = oneshot::channel();
    // As long as an entry of the vault.
    floor.log.send((vec![b'.'; 560], written)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    durable.await.map_err(fault)?;
    let signature = STANDARD.encode(signature);
    Ok(Json(Answer { key_id: KEY, algorithm: ask.algorithm, signature, signature_format: "concat" }))
}

/// One thread that takes what is queued into one transaction, syncs once, and answers all.
fn writer(file: &Path) -> anyhow::Result<mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>> {
    let db = Connection::open(file)?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch("PRAGMA synchronous = FULL; CREATE TABLE log (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;")?;
    db.pragma_update(None, "wal_autocheckpoint", 4000)?;
    let (queue, mut queued) = mpsc::channel(4096);
    thread::spawn(move || -> rusqlite::Result<()> {
        let mut batch: Vec<(Vec<u8>, oneshot::Sender<()>)> = Vec::new();
        while queued.blocking_recv_many(&mut batch, 1024) > 0 {
            db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for (entry, _) in &batch {
                db.prepare_cached("INSERT INTO log (entry) VALUES (?1)")?.execute([entry])?;
            }
            db.prepare_cached("COMMIT")?.execute([])?;
            for (_, written) in batch.drain(..) {
                let _ = written.send(());
            }
        }
        Ok(())
    });
    Ok(queue)
}

fn tls(pki: &Path) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(pki.join("ca.pem"))? {
        roots.add(ca?)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_file_iter(pki.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(pki.join("server.key"))?;
    let tls = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(tls.with_client_cert_verifier(clients).with_single_cert(chain, key)?)
}
