//! One call, sent to the URLs in their order until one answers. A call that may not be repeated is never sent again after a vault may have
//! received it.

use std::{error::Error as _, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use rustls::AlertDescription;
use zeroize::Zeroizing;

use super::{Answer, Call, Client, ClientError, Connection, Endpoint, Problem, chain, endpoints::Candidate, error::Tried};

/// The longest answer that is read, in bytes. A page of a list is much shorter.
const LONGEST_ANSWER: usize = 16 << 20;

/// The code of a problem after which the call may still be done.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// The alerts with which a server refuses a client certificate, RFC 8446 §6.2. They end a handshake, so that no request was received.
const REFUSALS: &[AlertDescription] = &[
    AlertDescription::HandshakeFailure,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

/// The connection that is kept for the next call, and where it leads.
pub(super) type Kept = Option<(Arc<Candidate>, Connection)>;

impl Client {
    /// Makes a call and returns the answer with any status. The next URL is tried if this one certainly did not do the call (no
    /// connection, a retryable 503), or may have done it and the call may be repeated. A kept connection that turns out to be closed is
    /// replaced once under the same conditions.
    ///
    /// # Errors
    /// [`ClientError`]; of an HTTP status only if there are several URLs and none of them can do the call now.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let mut kept = self.kept.lock().await;
        let mut search = Search::of(&call);
        for candidate in self.endpoints.order() {
            let outcome = self.send_to(&candidate, &call, &mut kept).await;
            match outcome.and_then(|answer| self.unless_unavailable(answer)) {
                Ok(answer) => {
                    candidate.answered();
                    return Ok(answer);
                }
                Err(failed) => {
                    if search.ends_with(&candidate, failed) {
                        break;
                    }
                }
            }
        }
        Err(search.into_error())
    }

    /// Sends the call to one URL.
    async fn send_to(&self, candidate: &Arc<Candidate>, call: &Call, kept: &mut Kept) -> Result<Answer, Failed> {
        let endpoint = candidate.endpoint();
        let request = call.request(endpoint.authority()).map_err(Failed::not_done)?;
        let mut sent_before = false;
        if let Some((_, connection)) = kept.take_if(|(of, _)| Arc::ptr_eq(of, candidate)).filter(|(_, connection)| !connection.is_closed())
        {
            match self.once(connection, request.clone()).await {
                Ok((answer, connection)) => {
                    *kept = connection.map(|connection| (Arc::clone(candidate), connection));
                    return Ok(answer);
                }
                Err(lost) if lost.nothing_sent || (call.may_repeat() && !lost.timed_out) => sent_before = !lost.nothing_sent,
                Err(lost) => return Err(lost.of(endpoint)),
            }
        }
        let connection = endpoint.connect().await.map_err(|error| Failed { error, not_done: !sent_before })?;
        let (answer, connection) = self.once(connection, request).await.map_err(|lost| lost.of_new_connection(endpoint, sent_before))?;
        *kept = connection.map(|connection| (Arc::clone(candidate), connection));
        Ok(answer)
    }

    async fn once(&self, mut connection: Connection, request: Request<Full<Bytes>>) -> Result<(Answer, Option<Connection>), Lost> {
        let exchange = async {
            connection.ready().await.map_err(|error| Lost { nothing_sent: true, ..Lost::from(&error) })?;
            let answer = connection.try_send_request(request).await.map_err(|mut error| {
                let nothing_sent = error.take_message().is_some();
                Lost { nothing_sent, ..Lost::from(error.error()) }
            })?;
            read(answer).await
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(Lost::late(self.timeout)))?;
        Ok((answer, (!connection.is_closed()).then_some(connection)))
    }

    /// The answer, unless there are other URLs and it says that this one cannot do the call now.
    pub(super) fn unless_unavailable(&self, answer: Answer) -> Result<Answer, Failed> {
        if !self.endpoints.are_several() {
            return Ok(answer);
        }
        match (Problem::decode(answer.status.as_u16(), &answer.body), answer.status) {
            (Some(problem), StatusCode::SERVICE_UNAVAILABLE) if problem.retryable => {
                let not_done = problem.code != OUTCOME_UNKNOWN;
                Err(Failed { error: ClientError::Problem(Box::new(problem)), not_done })
            }
            // A proxy between this client and the vault, which may have passed the call on.
            (None, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                let error = ClientError::Unreadable { status: answer.status.as_u16(), reason: "no problem document".into() };
                Err(Failed { error, not_done: false })
            }
            _ => Ok(answer),
        }
    }
}

/// A URL did not do a call.
pub(super) struct Failed {
    pub(super) error: ClientError,
    /// Whether the call was certainly not done.
    pub(super) not_done: bool,
}

impl Failed {
    pub(super) const fn not_done(error: ClientError) -> Self {
        Self { error, not_done: true }
    }
}

/// The URLs that were tried for one call, and whether another one may be.
pub(super) struct Search {
    may_repeat: bool,
    tried: Vec<Tried>,
}

impl Search {
    pub(super) fn of(call: &Call) -> Self {
        Self { may_repeat: call.may_repeat(), tried: Vec::new() }
    }

    /// Records a failure. Returns whether no other URL may be tried.
    pub(super) fn ends_with(&mut self, candidate: &Candidate, Failed { error, not_done }: Failed) -> bool {
        let is_usage = matches!(error, ClientError::Usage(_));
        candidate.failed();
        self.tried.push(Tried { url: candidate.endpoint().url().to_owned(), error });
        is_usage || !(not_done || self.may_repeat)
    }

    pub(super) fn into_error(self) -> ClientError {
        ClientError::none_did(self.tried)
    }
}

/// A call that ended without an answer.
pub(super) struct Lost {
    reason: String,
    nothing_sent: bool,
    timed_out: bool,
    refused: bool,
}

impl Lost {
    const fn because(reason: String) -> Self {
        Self { reason, nothing_sent: false, timed_out: false, refused: false }
    }

    pub(super) fn late(timeout: Duration) -> Self {
        Self { timed_out: true, ..Self::because(format!("nothing came within {}", humantime::format_duration(timeout))) }
    }

    pub(super) fn of(self, endpoint: &Endpoint) -> Failed {
        Failed { error: ClientError::NoAnswer { url: endpoint.url().to_owned(), reason: self.reason }, not_done: self.nothing_sent }
    }

    /// With TLS 1.3, a client learns only with its first request that the server refused its certificate.
    pub(super) fn of_new_connection(self, endpoint: &Endpoint, sent_before: bool) -> Failed {
        if sent_before || !(self.nothing_sent || self.refused) {
            return Failed { not_done: false, ..self.of(endpoint) };
        }
        Failed::not_done(ClientError::CannotConnect { url: endpoint.url().to_owned(), reason: self.reason })
    }
}

impl From<&hyper::Error> for Lost {
    fn from(error: &hyper::Error) -> Self {
        let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
        let refused = matches!(tls, Some(rustls::Error::AlertReceived(alert)) if REFUSALS.contains(alert));
        Self { refused, ..Self::because(chain(error)) }
    }
}

pub(super) async fn read(answer: http::Response<Incoming>) -> Result<Answer, Lost> {
    let (head, body) = answer.into_parts();
    let announced = head.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // Allocates the full size at once, because growing would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(8192).min(LONGEST_ANSWER)));
    let mut body = Limited::new(body, LONGEST_ANSWER);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| Lost::because(chain(error.as_ref())))?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, body: whole })
}
