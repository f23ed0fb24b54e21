//! Servers that take entries: an HTTPS server, and a TLS listener for syslog with a strict parser.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::support::pki::{Ca, Leaf, Spec, dns};

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Accept,
    /// Reads requests and never answers.
    Hang,
    /// Answers with this status.
    Refuse(u16),
    /// Answers as an OTLP receiver that rejects records.
    Reject,
}

/// A request that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether the client showed a certificate.
    pub(crate) certified: bool,
}

/// An HTTPS server of entries.
pub(crate) struct Receiver {
    folder: TempDir,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

struct Shared {
    behaviour: watch::Sender<Behaviour>,
    received: Mutex<Vec<Received>>,
    /// All requests, accepted or not.
    seen: Mutex<usize>,
    /// The `Authorization` that requests need.
    authorization: Mutex<Option<String>>,
}

/// A CA, a server certificate and a client certificate, as files in a folder.
fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let (ca, other) = (Ca::new("sinks"), Ca::new("another CA"));
    let (server, client) = (ca.issue(Spec::server()), ca.issue(Spec::client(vec![dns("vault.example.org")])));
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.pem", &ca.pem);
    write("other-ca.pem", &other.pem);
    client.write(folder, "client");
    let Leaf { der, key_pem, .. } = server;
    let key = canton_keyvault::crypto::read_private_key(key_pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).allow_unauthenticated().build().unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_client_cert_verifier(clients).with_single_cert(vec![der], key).unwrap())
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificates(folder.path());
        let shared = Shared {
            behaviour: watch::Sender::new(Behaviour::Accept),
            received: Mutex::default(),
            seen: Mutex::default(),
            authorization: Mutex::default(),
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let mut this = Self { folder, address: any, tls, shared: Arc::new(shared), server: None };
        this.restart().await;
        this
    }

    /// Listens, again on the same port.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (acceptor, shared) = (TlsAcceptor::from(Arc::clone(&self.tls)), Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let certified = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(|request| shared.answer(request, certified));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }

    /// Closes the listener and every connection.
    pub(crate) async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        self.shared.behaviour.send_replace(behaviour);
    }

    pub(crate) fn require(&self, authorization: &str) {
        *self.shared.authorization.lock().unwrap() = Some(authorization.to_owned());
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address over TLS.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// `[[audit.sinks]]` with this server, and more lines.
    pub(crate) fn sink(&self, mode: &str, options: &str) -> String {
        let (port, ca) = (self.address.port(), self.file("ca.pem"));
        format!(
            "\n[[audit.sinks]]\nname = \"a\"\nmode = \"{mode}\"\nkind = \"http\"\nurl = \"https://localhost:{port}/in?x=1\"\nca = \"{}\"\nfrom = \"beginning\"\n{options}",
            ca.display()
        )
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The number of requests, accepted or not.
    pub(crate) fn seen(&self) -> usize {
        *self.shared.seen.lock().unwrap()
    }

    /// The lines of all accepted requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bodies = self.received().into_iter().map(|received| String::from_utf8(received.body).unwrap());
        bodies.flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Shared {
    async fn answer(&self, request: http::Request<hyper::body::Incoming>, certified: bool) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        *self.seen.lock().unwrap() += 1;
        let answer = |status: u16, text: &'static str| {
            Ok(Response::builder().status(StatusCode::from_u16(status).unwrap()).body(Full::new(Bytes::from(text))).unwrap())
        };
        let needed = self.authorization.lock().unwrap().clone();
        if needed.is_some_and(|needed| head.headers.get("authorization").is_none_or(|found| found.as_bytes() != needed.as_bytes())) {
            return answer(401, "who are you?");
        }
        let behaviour = *self.behaviour.borrow();
        match behaviour {
            Behaviour::Hang => {
                let mut changed = self.behaviour.subscribe();
                // Only the connection ends.
                let _ = changed.wait_for(|now| *now != Behaviour::Hang).await;
                answer(500, "")
            }
            Behaviour::Refuse(status) => answer(status, "not today"),
            Behaviour::Reject => answer(200, r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too long"}}"#),
            Behaviour::Accept => {
                let path = head.uri.to_string();
                assert_eq!(head.method, http::Method::POST);
                self.received.lock().unwrap().push(Received { path, headers: head.headers, body, certified });
                answer(200, "")
            }
        }
    }
}

/// A syslog message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) priority: u16,
    pub(super) hostname: String,
    pub(super) sequence: usize,
    pub(super) vault: String,
    pub(super) text: String,
}

/// A TLS listener for syslog.
pub(super) struct SyslogServer {
    folder: TempDir,
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    certified: Arc<Mutex<Vec<bool>>>,
    /// Ends every connection when it changes.
    end: watch::Sender<()>,
}

impl SyslogServer {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = TlsAcceptor::from(certificates(folder.path()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (messages, certified, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())), watch::Sender::new(()));
        let this = Self { folder, address, messages: Arc::clone(&messages), certified: Arc::clone(&certified), end: end.clone() };
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, messages, certified, mut end) =
                    (acceptor.clone(), Arc::clone(&messages), Arc::clone(&certified), end.subscribe());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    certified.lock().unwrap().push(stream.get_ref().1.peer_certificates().is_some());
                    let mut buffer = Vec::new();
                    loop {
                        let read = tokio::select! {
                            read = stream.read_buf(&mut buffer) => read,
                            _ = end.changed() => return,
                        };
                        if !matches!(read, Ok(1..)) {
                            return;
                        }
                        while let Some((message, used)) = frame(&buffer) {
                            messages.lock().unwrap().push(parse(&message));
                            buffer.drain(..used);
                        }
                    }
                });
            }
        });
        this
    }

    pub(super) fn sink(&self, mode: &str, options: &str) -> String {
        let (port, ca) = (self.address.port(), self.file("ca.pem"));
        format!(
            "\n[[audit.sinks]]\nname = \"a\"\nmode = \"{mode}\"\nkind = \"syslog\"\naddress = \"localhost:{port}\"\nca = \"{}\"\nfrom = \"beginning\"\n{options}",
            ca.display()
        )
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    pub(super) fn certified(&self) -> Vec<bool> {
        self.certified.lock().unwrap().clone()
    }

    /// Ends every connection without reading what arrived.
    pub(super) fn end_connections(&self) {
        self.end.send_replace(());
    }
}

/// RFC 5425: MSG-LEN SP SYSLOG-MSG. `None` if it is not complete.
fn frame(buffer: &[u8]) -> Option<(String, usize)> {
    let digits = buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
    assert!(digits <= 6 && (buffer.len() == digits || (digits > 0 && buffer[0] != b'0' && buffer[digits] == b' ')), "MSG-LEN SP");
    let length: usize = std::str::from_utf8(&buffer[..digits]).unwrap().parse().ok()?;
    let message = buffer.get(digits + 1..digits + 1 + length)?;
    Some((String::from_utf8(message.to_vec()).unwrap(), digits + 1 + length))
}

/// RFC 5424: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [SD] MSG`, strictly.
fn parse(message: &str) -> Message {
    let rest = message.strip_prefix('<').unwrap();
    let (priority, rest) = rest.split_once('>').unwrap();
    assert!(priority == "0" || !priority.starts_with('0'));
    let priority: u16 = priority.parse().unwrap();
    assert!(priority <= 191);
    let rest = rest.strip_prefix("1 ").unwrap();
    let mut parts = rest.splitn(6, ' ');
    let mut next = |most: usize| {
        let part = parts.next().unwrap();
        assert!((1..=most).contains(&part.len()) && part.bytes().all(|byte| (33..=126).contains(&byte)), "{part}");
        part
    };
    let at = next(32);
    // RFC 5424 §6.2.3: T and Z are upper case, at most six digits of a second.
    let fraction = at.split_once('.').map_or("", |(_, fraction)| fraction.strip_suffix('Z').unwrap());
    assert!(
        at.as_bytes()[10] == b'T' && at.ends_with('Z') && fraction.len() <= 6 && canton_keyvault::domain::Timestamp::parse(at).is_some()
    );
    let (hostname, app, process, id) = (next(255).to_owned(), next(48), next(128), next(32));
    assert_eq!((app, id), ("canton-keyvault", "audit"));
    process.parse::<u32>().unwrap();
    let rest = parts.next().unwrap().strip_prefix("[keyvault@32473").unwrap();
    // The values here need no escapes.
    let (data, text) = rest.split_once("] ").unwrap();
    let parameters: Vec<(&str, &str)> = data
        .split(' ')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap();
            (name, value.strip_prefix('"').unwrap().strip_suffix('"').unwrap())
        })
        .collect();
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["sequence", "vault", "instance"]);
    Message { priority, hostname, sequence: parameters[0].1.parse().unwrap(), vault: parameters[1].1.to_owned(), text: text.to_owned() }
}
