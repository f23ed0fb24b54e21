//! A client of one OpenBao server: requests with a token, and answers in the form that OpenBao documents.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::error::{UNUSABLE_ANSWER, by_status};
use super::key_reference::is_cluster;
use crate::kms::{
    KmsCalls, Outage,
    call_error::CallError,
    http::{Address, HttpRequest, HttpResponse, HttpServer, Recording, ServerAddress},
};

/// One server of a cluster.
pub(super) struct OpenbaoServer {
    pub(super) server: HttpServer,
    /// Where each request leaves its id.
    calls: Arc<KmsCalls>,
}

/// A request, made once and sent as often as needed.
pub(super) struct OpenbaoRequest(HttpRequest);

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
        Self(HttpRequest::get(path))
    }

    /// `POST path` with a body that is wiped when the last holder drops it.
    pub(super) fn post(path: String, body: &impl Serialize) -> Self {
        Self(HttpRequest::post(path, body))
    }

    /// The path as the audit log of the server has it. `None` for the one path here that it leaves out.
    fn audited_path(&self) -> Option<&str> {
        self.0.path.strip_prefix("/v1/").filter(|path| !path.starts_with("sys/health"))
    }

    /// The operation as the audit log of the server has it.
    fn action(&self) -> &'static str {
        if self.0.method == Method::GET { "read" } else { "update" }
    }
}

impl OpenbaoResponse {
    /// The body of a success.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<SuccessBody<T>> {
        serde_json::from_slice(&self.body).ok()
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

impl From<HttpResponse> for OpenbaoResponse {
    fn from(HttpResponse { status, body }: HttpResponse) -> Self {
        Self { status, body }
    }
}

impl OpenbaoServer {
    pub(super) fn new(server: ServerAddress, calls: Arc<KmsCalls>) -> Self {
        Self { server: HttpServer::new(server), calls }
    }

    /// The address.
    pub(super) const fn address(&self) -> &Address {
        self.server.address()
    }

    /// Sends a request and waits for the whole answer, whatever its status. The caller sets the time limit.
    pub(super) async fn send(&self, ask: &OpenbaoRequest, token: Option<&str>) -> Result<OpenbaoResponse, CallError> {
        let headers = headers(token)?;
        self.server.send(&ask.0, &headers, self.recording(ask)).await.map(OpenbaoResponse::from)
    }

    /// Sends a request over a new connection, which shows the current client certificate.
    pub(super) async fn send_on_new_connection(&self, ask: &OpenbaoRequest, token: Option<&str>) -> Result<OpenbaoResponse, CallError> {
        let headers = headers(token)?;
        self.server.send_on_new_connection(&ask.0, &headers, self.recording(ask)).await.map(OpenbaoResponse::from)
    }

    fn recording<'a>(&'a self, ask: &'a OpenbaoRequest) -> Option<Recording<'a>> {
        let place = ask.audited_path()?;
        Some(Recording { calls: &self.calls, action: ask.action(), place, id: &request_id })
    }

    /// The id of the cluster, which an unsealed server reports without a login.
    pub(super) async fn cluster_id(&self) -> Result<String, CallError> {
        #[derive(Deserialize)]
        struct Health {
            cluster_id: Option<String>,
            #[serde(default)]
            sealed: bool,
        }
        let answer = self.send(&OpenbaoRequest::get("/v1/sys/health?standbyok=true".to_owned()), None).await?;
        let health: Option<Health> = serde_json::from_slice(&answer.body).ok();
        if health.as_ref().is_some_and(|health| health.sealed) {
            return Err(CallError::Outage(Outage::Sealed));
        }
        done(answer)?;
        health.and_then(|health| health.cluster_id).filter(|id| is_cluster(id)).ok_or(UNUSABLE_ANSWER)
    }
}

/// The answer, if it is a success.
pub(super) fn done(answer: OpenbaoResponse) -> Result<OpenbaoResponse, CallError> {
    if matches!(answer.status, 200 | 204) { Ok(answer) } else { Err(sort(&answer)) }
}

/// The error that an unsuccessful answer means. The caller explains a 400, because the caller knows the request.
pub(super) fn sort(answer: &OpenbaoResponse) -> CallError {
    by_status(answer.status, answer.is_error())
}

fn secret_text<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

fn headers(token: Option<&str>) -> Result<Vec<(HeaderName, HeaderValue)>, CallError> {
    let unusable = |_| CallError::Misconfigured("the token contains characters that an HTTP header cannot have".to_owned());
    let header = |token: &str| {
        let mut value = HeaderValue::from_str(token).map_err(unusable)?;
        value.set_sensitive(true);
        Ok((HeaderName::from_static("x-vault-token"), value))
    };
    token.map(header).into_iter().collect()
}

/// The request id, which only a success has.
fn request_id(answer: &HttpResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Identified<'a> {
        #[serde(borrow)]
        request_id: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Identified<'_>>(&answer.body).ok()?.request_id.map(Cow::into_owned)
}
