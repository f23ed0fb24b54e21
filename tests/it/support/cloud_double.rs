//! A server for doubles of cloud services: HTTPS and plain HTTP on loopback, on a thread of its own, with faults that tests inject.
//!
//! A double implements [`Service`]: it gets each request and gives the answer that the documentation of the service describes. It is no service:
//! what a provider shows against it is shown against the documentation.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::pki::{Ca, Spec};

/// A request to a double.
pub(crate) struct Ask {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Without the question mark.
    pub(crate) query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
}

impl Ask {
    /// The value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as a JSON object with exactly these fields, which are texts. `None` for anything else.
    pub(crate) fn texts<const N: usize>(&self, names: [&str; N]) -> Option<[String; N]> {
        let found: BTreeMap<String, String> = serde_json::from_slice(&self.body).ok()?;
        let all = self.header("content-type") == "application/json" && found.len() == N;
        all.then(|| names.map(|name| found.get(name).cloned()))
            .and_then(|texts| texts.into_iter().collect::<Option<Vec<_>>>()?.try_into().ok())
    }

    /// The fields of an HTML form, decoded.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        assert_eq!(self.header("content-type"), "application/x-www-form-urlencoded");
        let text = std::str::from_utf8(&self.body).unwrap();
        text.split('&').filter_map(|field| field.split_once('=')).map(|(name, value)| (name.to_owned(), decoded(value))).collect()
    }
}

/// A percent-encoded text.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().unwrap()).to_digit(16).unwrap();
        bytes.push(if byte == b'%' { u8::try_from(digit() * 16 + digit()).unwrap() } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}

/// An answer: status and a JSON document.
pub(crate) struct Answer(pub(crate) u16, pub(crate) Value);

/// What a double does.
pub(crate) trait Service: Send + Sync + 'static {
    fn answer(&self, ask: &Ask) -> Answer;
}

/// What happens to requests whose path contains a text.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This answer instead, whose body may be no JSON.
    Answer(u16, String),
    /// The answer ends in the middle.
    Truncated,
    /// There is no answer.
    Hanging,
    /// The connection is closed.
    Closed,
    /// A field of the answer has this value instead.
    Field(&'static str, Value),
}

/// A running server. Its tasks end with the test process.
pub(crate) struct CloudDouble<S> {
    folder: tempfile::TempDir,
    tls: SocketAddr,
    plain: SocketAddr,
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    service: S,
    faults: Mutex<Vec<Injected>>,
}

struct Injected {
    part: String,
    fault: Fault,
    once: bool,
}

impl<S> Shared<S> {
    fn fault_of(&self, ask: &Ask) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let place = faults.iter().position(|injected| ask.path.contains(&injected.part))?;
        Some(if faults[place].once { faults.remove(place).fault } else { faults[place].fault.clone() })
    }
}

impl<S: Service> CloudDouble<S> {
    /// Starts it. The service learns its addresses: `https://127.0.0.1:…` and `http://127.0.0.1:…`.
    pub(crate) fn start(make: impl FnOnce(&str, &str) -> S) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("cloud");
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let leaf = ca.issue(Spec::server());
        let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let [secure, plain] = [(), ()].map(|()| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let addresses = [&secure, &plain].map(|listener| listener.local_addr().unwrap());
        let service = make(&format!("https://{}", addresses[0]), &format!("http://{}", addresses[1]));
        let shared = Arc::new(Shared { service, faults: Mutex::default() });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let acceptor = TlsAcceptor::from(Arc::new(config));
                tokio::join!(accept(secure, Some(acceptor), Arc::clone(&of_thread)), accept(plain, None, of_thread))
            });
        });
        Self { folder, tls: addresses[0], plain: addresses[1], shared }
    }

    /// What the double does.
    pub(crate) fn service(&self) -> &S {
        &self.shared.service
    }

    /// `https://127.0.0.1:…`
    pub(crate) fn address(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// `http://127.0.0.1:…`
    pub(crate) fn plain_address(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// A file of its folder; `ca.pem` is what issued its certificate.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on, this happens to requests whose path contains `part`.
    pub(crate) fn fault(&self, part: &str, fault: Fault) {
        self.inject(part, fault, false);
    }

    /// This happens to the next request whose path contains `part`.
    pub(crate) fn fault_once(&self, part: &str, fault: Fault) {
        self.inject(part, fault, true);
    }

    fn inject(&self, part: &str, fault: Fault, once: bool) {
        self.shared.faults.lock().unwrap().push(Injected { part: part.to_owned(), fault, once });
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }
}

async fn accept<S: Service>(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared<S>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let is_tls = tls.is_some();
            let serve = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { respond(&shared, request, is_tls).await }
            });
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                    }
                }
                None => drop(http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await),
            }
        });
    }
}

type Body = BoxBody<Bytes, io::Error>;

async fn respond<S: Service>(shared: &Shared<S>, request: Request<Incoming>, tls: bool) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let ask = Ask {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        tls,
    };
    let fault = shared.fault_of(&ask);
    let whole = |text: String| Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed();
    let (status, body) = match fault {
        Some(Fault::Answer(status, text)) => (status, whole(text)),
        Some(Fault::Hanging) => std::future::pending().await,
        Some(Fault::Closed) => return Err(io::Error::other("closed")),
        Some(Fault::Truncated) => {
            let Answer(status, document) = shared.service.answer(&ask);
            let mut half = document.to_string();
            half.truncate(half.len() / 2);
            let frames = [Ok(Frame::data(Bytes::from(half))), Err(io::Error::other("truncated"))];
            (status, BoxBody::new(StreamBody::new(stream::iter(frames))))
        }
        Some(Fault::Field(name, value)) => {
            let Answer(status, mut document) = shared.service.answer(&ask);
            document[name] = value;
            (status, whole(document.to_string()))
        }
        None => {
            let Answer(status, document) = shared.service.answer(&ask);
            (status, whole(document.to_string()))
        }
    };
    Ok(Response::builder().status(status).header("content-type", "application/json").body(body).unwrap())
}
