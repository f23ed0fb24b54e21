//! Requests to one server over HTTP/1.1 with kept connections. The size of an answer is limited, and the bytes of requests and answers are
//! wiped when dropped.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderName, HeaderValue, Method, Request,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1::SendRequest};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Address, ServerAddress};
use crate::{
    client::connector::is_tls,
    kms::{KmsCalls, Outage, call_error::CallError},
};

/// One server.
pub(in crate::kms) struct HttpServer {
    server: ServerAddress,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// A request, made once and sent as often as needed.
pub(in crate::kms) struct HttpRequest {
    pub(in crate::kms) method: Method,
    pub(in crate::kms) path: String,
    content_type: &'static str,
    body: Bytes,
}

/// What a server answered.
pub(in crate::kms) struct HttpResponse {
    /// HTTP status.
    pub(in crate::kms) status: u16,
    pub(in crate::kms) body: Zeroizing<Vec<u8>>,
}

/// How the log of the vault names a request that the log of the KMS has too.
#[derive(Clone, Copy)]
pub(in crate::kms) struct Recording<'a> {
    pub(in crate::kms) calls: &'a Arc<KmsCalls>,
    pub(in crate::kms) action: &'a str,
    pub(in crate::kms) place: &'a str,
    /// The request id in an answer.
    pub(in crate::kms) id: &'a (dyn Fn(&HttpResponse) -> Option<String> + Sync),
}

impl HttpRequest {
    /// `GET path`
    pub(in crate::kms) fn get(path: String) -> Self {
        Self { method: Method::GET, path, content_type: "", body: Bytes::new() }
    }

    /// `POST path` with a JSON document that is wiped when the last holder drops it.
    pub(in crate::kms) fn post(path: String, body: &impl Serialize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
        // Serializes strings and numbers into memory, which cannot fail.
        let _ = serde_json::to_writer(&mut *bytes, body);
        Self { method: Method::POST, path, content_type: "application/json", body: Bytes::from_owner(bytes) }
    }

    /// `POST path` with an HTML form that is wiped when the last holder drops it.
    #[cfg(any(feature = "gcp-kms", feature = "azure-key-vault"))]
    pub(in crate::kms) fn form(path: String, form: Zeroizing<Vec<u8>>) -> Self {
        Self { method: Method::POST, path, content_type: "application/x-www-form-urlencoded", body: Bytes::from_owner(form) }
    }

    fn build(&self, authority: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(&self.method).uri(&self.path).header(HOST, authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        request.body(Full::new(self.body.clone()))
    }
}

impl HttpServer {
    pub(in crate::kms) fn new(server: ServerAddress) -> Self {
        Self { server, idle: Mutex::default() }
    }

    /// The address.
    pub(in crate::kms) const fn address(&self) -> &Address {
        &self.server.address
    }

    /// The reason why no connection can be opened. `None` if one can be.
    pub(in crate::kms) async fn fault(&self) -> Option<String> {
        self.server.fault().await
    }

    /// Sends a request and waits for the whole answer, whatever its status. The caller sets the time limit.
    pub(in crate::kms) async fn send(
        &self,
        ask: &HttpRequest,
        headers: &[(HeaderName, HeaderValue)],
        recording: Option<Recording<'_>>,
    ) -> Result<HttpResponse, CallError> {
        // The server may have closed an idle connection. Then the request is sent again over a new one. Every request here may be sent
        // twice.
        if let Some(mut kept) = self.kept()
            && let Ok(answer) = self.recorded(&mut kept, ask, headers, recording).await
        {
            self.keep(kept);
            return Ok(answer);
        }
        self.send_on_new_connection(ask, headers, recording).await
    }

    /// Sends a request over a new connection, which shows the current client certificate.
    pub(in crate::kms) async fn send_on_new_connection(
        &self,
        ask: &HttpRequest,
        headers: &[(HeaderName, HeaderValue)],
        recording: Option<Recording<'_>>,
    ) -> Result<HttpResponse, CallError> {
        let mut fresh = self.server.open().await?;
        let answer = self.recorded(&mut fresh, ask, headers, recording).await?;
        self.keep(fresh);
        Ok(answer)
    }

    /// Sends a request over this connection. Its request id reaches the audit log.
    async fn recorded(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        ask: &HttpRequest,
        headers: &[(HeaderName, HeaderValue)],
        recording: Option<Recording<'_>>,
    ) -> Result<HttpResponse, CallError> {
        let request = ask
            .build(&self.server.address.authority(), headers)
            .map_err(|_| CallError::Misconfigured("the address of the request contains characters that a URL cannot have".to_owned()))?;
        let sent = recording.map(|recording| (recording, recording.calls.begin(recording.action, recording.place)));
        let answer = exchange(sender, request).await;
        if let (Some((recording, sent)), Ok(answer)) = (sent, &answer) {
            sent.answered((recording.id)(answer).as_deref());
        }
        answer
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < MAX_IDLE && !idle.sender.is_closed());
        idle.pop().map(|idle| idle.sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_KEPT {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// One request and its answer on an open connection.
async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<HttpResponse, CallError> {
    let broken = |error: hyper::Error| CallError::Outage(if is_tls(&error) { Outage::TlsFailed } else { Outage::Unreachable });
    sender.ready().await.map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (status, body) = (answer.status().as_u16(), answer.into_body());
    let mut collected = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
    let mut frames = Limited::new(body, MAX_ANSWER);
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|error| {
            let endless = || CallError::Misconfigured("the server is not the configured KMS: the answer is too long".to_owned());
            if error.is::<LengthLimitError>() { endless() } else { CallError::Outage(Outage::Unreachable) }
        })?;
        collected.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
    }
    Ok(HttpResponse { status, body: collected })
}

/// Bytes; holds a data key in JSON without growing. Growing would leave a copy behind.
const BODY_CAPACITY: usize = 4096;
/// Bytes; a key with thousands of versions fits.
const MAX_ANSWER: usize = 1 << 20;
/// Shorter than the idle timeout of servers and load balancers.
const MAX_IDLE: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 32;
