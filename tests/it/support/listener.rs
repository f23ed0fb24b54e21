//! Both listeners over a folder of files, with a test clock, and clients with one connection each.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, body::Body, extract, http::StatusCode, middleware, response::IntoResponse, routing::get};
use canton_keyvault::{
    domain::{Clock, Principal, Timestamp},
    mtls::{ConnectionLimits, Peer, Trust, admit, identity, serve, serve_ops},
    server::reload::{self, Live, Look, Reloader},
};
use http_body_util::BodyExt;
use hyper::{
    Request,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::pki::{self, Ca, Leaf, NOW, Spec, at, uri};

/// Both listeners over a folder of files, with a clock that tests move.
pub(crate) struct Vault {
    folder: tempfile::TempDir,
    pub(crate) ca: Ca,
    pub(crate) partner: Ca,
    pub(crate) api: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) trust: Arc<Trust>,
    pub(crate) reloader: Reloader,
    policy_revision: Box<dyn Fn() -> Arc<str> + Send>,
    pub(crate) clock: Clock,
    seconds: Arc<AtomicI64>,
    /// A permit for each answer of `/slow`.
    pub(crate) gate: Arc<Semaphore>,
    /// A permit for each request to `/slow`.
    arrivals: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
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
reference = "wrapper.key"
allowed = ["wrapper.key"]
"#;

impl Vault {
    pub(crate) async fn start() -> Self {
        Self::start_with(ConnectionLimits::default()).await
    }

    /// With limits of its own, except for draining: long enough that a test which has to wait for it fails.
    pub(crate) async fn start_with(limits: ConnectionLimits) -> Self {
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
        let limits = ConnectionLimits { drain_timeout: 10 * PATIENCE, ..limits };
        let (api, ops) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (api_address, ops_address) = (api.local_addr().unwrap(), ops.local_addr().unwrap());
        let routes = routes(&trust, &gate, &arrivals);
        let serving =
            tokio::spawn(serve(api, Arc::clone(&trust), routes, limits.clone(), Arc::new(|_: &Principal| false), shutdown.clone()));
        let health = get(|peer: Option<Extension<Arc<Peer>>>| async move { if peer.is_none() { "nobody" } else { "somebody" } });
        tokio::spawn(serve_ops(ops, Arc::clone(&trust), Router::new().route("/healthz", health), limits, shutdown.clone()));
        let policy_revision = Box::new(move || Arc::clone(policy.load().revision()));
        let (api, ops) = (api_address, ops_address);
        Self { folder, ca, partner, api, ops, trust, reloader, policy_revision, clock, seconds, gate, arrivals, shutdown, serving }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("keyvault.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        self.write("keyvault.toml", &text.replacen(from, to, 1));
    }

    /// Looks at the files now; what changed.
    pub(crate) fn reload(&mut self) -> Vec<&'static str> {
        match self.reloader.look() {
            Look::Changed(change) => change.parts,
            other => panic!("{other:?}"),
        }
    }

    /// Looks at the files now, whether they changed or not.
    pub(crate) fn reload_if_changed(&mut self) {
        let look = self.reloader.look();
        assert!(matches!(look, Look::Same | Look::Changed(_)), "{look:?}");
    }

    pub(crate) fn policy_revision(&self) -> Arc<str> {
        (self.policy_revision)()
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Waits for a request to `/slow`.
    pub(crate) async fn arrived(&self) {
        timeout(PATIENCE, self.arrivals.acquire()).await.unwrap().unwrap().forget();
    }

    pub(crate) fn client(&self, serial: u64, name: &str) -> Leaf {
        self.ca.issue(Spec::client(vec![uri(name)]).serial(serial))
    }

    pub(crate) async fn connect(&self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        connect(self.api, config).await
    }

    pub(crate) async fn http1(&self, leaf: &Leaf) -> Client {
        Client::http1(self.connect(&pki::client(&self.ca, Some(leaf), b"http/1.1", &[&TLS13])).await.unwrap()).await
    }

    pub(crate) async fn http2(&self, leaf: &Leaf) -> Client {
        Client::http2(self.connect(&pki::client(&self.ca, Some(leaf), b"h2", &[&TLS13])).await.unwrap()).await
    }

    /// How a handshake is refused.
    pub(crate) async fn refused_handshake(&self, leaf: Option<&Leaf>) -> String {
        self.refused_handshake_of(&pki::client(&self.ca, leaf, b"http/1.1", &[&TLS13])).await
    }

    pub(crate) async fn refused_handshake_of(&self, config: &Arc<ClientConfig>) -> String {
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

    pub(crate) async fn server_serial(&self, leaf: &Leaf) -> String {
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
    let check = async |extract::State(trust): extract::State<Arc<Trust>>, mut request: extract::Request, next: middleware::Next| match admit(
        &trust, &request,
    ) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => (StatusCode::FORBIDDEN, [("connection", "close")], refused.reason.to_string()).into_response(),
    };
    Router::new().route("/whoami", whoami).route("/slow", slow).layer(middleware::from_fn_with_state(Arc::clone(trust), check))
}

pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// One connection of a client.
pub(crate) struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn new(stream: TlsStream<TcpStream>, protocol: &[u8]) -> Self {
        if protocol == b"h2" { Self::http2(stream).await } else { Self::http1(stream).await }
    }

    pub(crate) async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http1(sender), connection: tokio::spawn(async { drop(connection.await) }) }
    }

    pub(crate) async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http2(sender), connection: tokio::spawn(async { drop(connection.await) }) }
    }

    pub(crate) async fn whoami(&mut self) -> hyper::Result<(StatusCode, String)> {
        self.get("/whoami").await
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        self.send(Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> hyper::Result<(StatusCode, String)> {
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                // Over HTTP/2 the authority is in the URI.
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
    pub(crate) async fn is_closed(&mut self) {
        timeout(PATIENCE, &mut self.connection).await.expect("the connection stays open").unwrap();
    }
}

/// Far more than anything here takes; who waits for so long waits for ever.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
