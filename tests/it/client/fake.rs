//! A server with the protocol of the vault: mutual TLS, recorded requests, and answers that the test sets.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use canton_keyvault::client::ConnectOptions;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// What the fake does with a request.
pub(crate) enum Reply {
    /// Answers.
    Json(u16, Value),
    /// Answers, later.
    Late(Duration, u16, Value),
    /// Answers, and ends the connection without having said so.
    JsonThenCloseConnection(u16, Value),
    /// Ends the connection instead.
    CloseConnection,
}

type Respond = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The fake, its certificates, and what it saw.
pub(crate) struct FakeVault {
    pub(crate) folder: Arc<TempDir>,
    config: Arc<ServerConfig>,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeVault {
    pub(crate) fn start(respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(pki(folder.path()));
        Self::serve(Arc::new(folder), config, respond)
    }

    /// Another fake with the same certificates.
    pub(crate) fn another(&self, respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Arc::clone(&self.folder), Arc::clone(&self.config), respond)
    }

    fn serve(folder: Arc<TempDir>, config: Arc<ServerConfig>, respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let tls = TlsAcceptor::from(Arc::clone(&config));
        runtime.spawn(accept(listener, tls, Arc::new(respond), Arc::clone(&seen), Arc::clone(&ended)));
        Self { folder, config, address, seen, ended, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions { url: self.url(), ca: self.file("ca.pem"), cert: self.file("client.pem"), key: self.file("client.key") }
    }

    /// Forgets and returns what it saw.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Waits until so many connections have ended, and lets the client's runtime notice.
    pub(crate) async fn wait_until_ended(&self, count: usize) {
        while self.ended.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// The program, with the address of the fake in its environment.
    pub(crate) fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canton-keyvault"));
        let ConnectOptions { url, ca, cert, key } = self.options();
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("KEYVAULT_URL", url).env("KEYVAULT_CA", ca).env("KEYVAULT_CERT", cert).env("KEYVAULT_KEY", key);
        command
    }

    /// Runs the program with a line of arguments.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line.split_whitespace()).output().unwrap()
    }

    /// Runs the program with a line of arguments and something on its standard input.
    pub(crate) fn run_with_input(&self, line: &str, input: &[u8]) -> Output {
        let mut command = self.command(line.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: TlsAcceptor,
    respond: Arc<Respond>,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicUsize>,
) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (tls, respond, seen, ended) = (tls.clone(), Arc::clone(&respond), Arc::clone(&seen), Arc::clone(&ended));
        tokio::spawn(async move {
            // A refused handshake is what some tests want.
            let Ok(stream) = tls.accept(tcp).await else { return };
            let hang_up = Arc::new(tokio::sync::Notify::new());
            let service = service_fn(|request| answer(request, Arc::clone(&respond), Arc::clone(&seen), Arc::clone(&hang_up)));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = hang_up.notified() => {}
            }
            ended.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    respond: Arc<Respond>,
    seen: Arc<Mutex<Vec<Seen>>>,
    hang_up: Arc<tokio::sync::Notify>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let request = Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect(),
        body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
    };
    seen.lock().unwrap().push(request.clone());
    let (status, value) = match respond(&request) {
        Reply::Json(status, value) => (status, value),
        Reply::Late(delay, status, value) => {
            tokio::time::sleep(delay).await;
            (status, value)
        }
        Reply::JsonThenCloseConnection(status, value) => {
            tokio::spawn(async move {
                // Once the answer is out; nothing tells when that is.
                tokio::time::sleep(Duration::from_millis(50)).await;
                hang_up.notify_one();
            });
            (status, value)
        }
        Reply::CloseConnection => return Err(std::io::Error::other("hang up")),
    };
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    Ok(Response::builder().status(status).header("content-type", kind).body(Full::new(value.to_string().into())).unwrap())
}

/// A CA, the fake's certificate, a client's certificate, and one of a CA that the fake does not know.
fn pki(folder: &Path) -> ServerConfig {
    let authority = |name: &str| {
        let mut parameters = CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate, Issuer::new(parameters, key))
    };
    let (ca, issuer) = authority("ca");
    let (other_ca, other_issuer) = authority("other ca");
    let issue = |name: &str, issuer: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap(), key)
    };
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("ca.pem", ca.pem());
    write("other-ca.pem", other_ca.pem());
    for (name, issuer) in [("client", &issuer), ("stranger", &other_issuer)] {
        let (certificate, key) = issue(name, issuer);
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    let (certificate, key) = issue("localhost", &issuer);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap()
}
