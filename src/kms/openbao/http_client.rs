//! A client of one OpenBao server over HTTP/1.1 with JSON and kept connections. The size of an answer is limited, and its bytes are wiped
//! when dropped.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderValue, Method, Request,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1::SendRequest};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::key_reference::{Address, is_cluster};
use super::{
    connection::ServerAddress,
    error::{OpenbaoError, UNUSABLE_ANSWER, by_status},
};
use crate::{
    client::connector::is_tls,
    kms::{KmsCalls, Outage},
};

/// One server of a cluster.
pub(super) struct OpenbaoServer {
    pub(super) server: ServerAddress,
    /// Where each request leaves its id.
    calls: Arc<KmsCalls>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// A request, made once and sent as often as needed.
pub(super) struct OpenbaoRequest {
    method: Method,
    path: String,
    body: Bytes,
}

/// What a server answered.
pub(super) struct OpenbaoResponse {
    /// HTTP status.
    pub(super) status: u16,
    body: Zeroizing<Vec<u8>>,
}

/// The form of every successful answer.
#[derive(Deserialize)]
pub(super) struct SuccessBody<T> {
    /// The request id of the server, as in its audit log.
    pub(super) request_id: Option<String>,
    /// The requested data.
    pub(super) data: Option<T>,
    /// The answer to a login or to the renewal of a token.
    pub(super) auth: Option<Auth>,
}

/// A token as a login gives it.
#[derive(Deserialize)]
pub(super) struct Auth {
    #[serde(deserialize_with = "secret_text")]
    pub(super) client_token: Zeroizing<String>,
    /// Seconds; 0 means no limit.
    pub(super) lease_duration: u64,
    pub(super) renewable: bool,
}

impl OpenbaoRequest {
    /// `GET path`
    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: Bytes::new() }
    }

    /// `POST path` with a body that is wiped when the last holder drops it.
    pub(super) fn post(path: String, body: &impl Serialize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
        // Serializes strings and numbers into memory, which cannot fail.
        let _ = serde_json::to_writer(&mut *bytes, body);
        Self { method: Method::POST, path, body: Bytes::from_owner(bytes) }
    }

    /// The path as the audit log of the server has it. `None` for the one path here that it leaves out.
    fn audited_path(&self) -> Option<&str> {
        self.path.strip_prefix("/v1/").filter(|path| !path.starts_with("sys/health"))
    }

    /// The operation as the audit log of the server has it.
    fn action(&self) -> &'static str {
        if self.method == Method::GET { "read" } else { "update" }
    }

    fn request(&self, authority: &str, token: Option<&str>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(&self.method).uri(&self.path).header(HOST, authority);
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token)?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(self.body.clone()))
    }
}

impl OpenbaoResponse {
    /// The body of a success.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<SuccessBody<T>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The request id, which only a success has.
    fn request_id(&self) -> Option<Cow<'_, str>> {
        #[derive(Deserialize)]
        struct Identified<'a> {
            #[serde(borrow)]
            request_id: Option<Cow<'a, str>>,
        }
        serde_json::from_slice::<Identified<'_>>(&self.body).ok()?.request_id
    }

    /// Whether it has the form of an error of OpenBao. A load balancer in between uses another form.
    pub(super) fn is_error(&self) -> bool {
        #[derive(Deserialize)]
        struct Errors {
            #[serde(rename = "errors")]
            _errors: Vec<String>,
        }
        serde_json::from_slice::<Errors>(&self.body).is_ok()
    }
}

impl OpenbaoServer {
    pub(super) fn new(server: ServerAddress, calls: Arc<KmsCalls>) -> Self {
        Self { server, calls, idle: Mutex::default() }
    }

    /// The address.
    pub(super) const fn address(&self) -> &Address {
        &self.server.address
    }

    /// Sends a request and waits for the whole answer, whatever its status. The caller sets the time limit.
    pub(super) async fn send(&self, ask: &OpenbaoRequest, token: Option<&str>) -> Result<OpenbaoResponse, OpenbaoError> {
        // The server may have closed an idle connection. Then the request is sent again over a new one. Every request here may be sent
        // twice.
        if let Some(mut kept) = self.kept()
            && let Ok(answer) = self.recorded(&mut kept, ask, token).await
        {
            self.keep(kept);
            return Ok(answer);
        }
        self.send_on_new_connection(ask, token).await
    }

    /// Sends a request over a new connection, which shows the current client certificate.
    pub(super) async fn send_on_new_connection(&self, ask: &OpenbaoRequest, token: Option<&str>) -> Result<OpenbaoResponse, OpenbaoError> {
        let mut fresh = self.server.open().await?;
        let answer = self.recorded(&mut fresh, ask, token).await?;
        self.keep(fresh);
        Ok(answer)
    }

    /// Sends a request over this connection. Its request id reaches the audit log; OpenBao gives none with an error.
    async fn recorded(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        ask: &OpenbaoRequest,
        token: Option<&str>,
    ) -> Result<OpenbaoResponse, OpenbaoError> {
        let request = self.request(ask, token)?;
        let sent = ask.audited_path().map(|path| self.calls.begin(ask.action(), path));
        let answer = exchange(sender, request).await;
        if let (Some(sent), Ok(answer)) = (sent, &answer) {
            sent.answered(answer.request_id().as_deref());
        }
        answer
    }

    fn request(&self, ask: &OpenbaoRequest, token: Option<&str>) -> Result<Request<Full<Bytes>>, OpenbaoError> {
        ask.request(&self.server.address.authority(), token)
            .map_err(|_| OpenbaoError::Misconfigured("the token contains characters that an HTTP header cannot have".to_owned()))
    }

    /// The id of the cluster, which an unsealed server reports without a login.
    pub(super) async fn cluster_id(&self) -> Result<String, OpenbaoError> {
        #[derive(Deserialize)]
        struct Health {
            cluster_id: Option<String>,
            #[serde(default)]
            sealed: bool,
        }
        let answer = self.send(&OpenbaoRequest::get("/v1/sys/health?standbyok=true".to_owned()), None).await?;
        let health: Option<Health> = serde_json::from_slice(&answer.body).ok();
        if health.as_ref().is_some_and(|health| health.sealed) {
            return Err(OpenbaoError::Outage(Outage::Sealed));
        }
        done(answer)?;
        health.and_then(|health| health.cluster_id).filter(|id| is_cluster(id)).ok_or(UNUSABLE_ANSWER)
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

/// The answer, if it is a success.
pub(super) fn done(answer: OpenbaoResponse) -> Result<OpenbaoResponse, OpenbaoError> {
    if matches!(answer.status, 200 | 204) { Ok(answer) } else { Err(sort(&answer)) }
}

/// The error that an unsuccessful answer means. The caller explains a 400, because the caller knows the request.
pub(super) fn sort(answer: &OpenbaoResponse) -> OpenbaoError {
    by_status(answer.status, answer.is_error())
}

fn secret_text<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

/// One request and its answer on an open connection.
async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<OpenbaoResponse, OpenbaoError> {
    let broken = |error: hyper::Error| OpenbaoError::Outage(if is_tls(&error) { Outage::TlsFailed } else { Outage::Unreachable });
    sender.ready().await.map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status().as_u16();
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
    let mut frames = Limited::new(answer.into_body(), MAX_ANSWER);
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|error| {
            let endless = || OpenbaoError::Misconfigured("the server is not OpenBao: the answer is too long".to_owned());
            if error.is::<LengthLimitError>() { endless() } else { OpenbaoError::Outage(Outage::Unreachable) }
        })?;
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
    }
    Ok(OpenbaoResponse { status, body })
}

/// Bytes; holds a data key in JSON without growing. Growing would leave a copy behind.
const BODY_CAPACITY: usize = 4096;
/// Bytes; a key with thousands of versions fits.
const MAX_ANSWER: usize = 1 << 20;
/// Shorter than the idle timeout of servers and load balancers.
const MAX_IDLE: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 32;
