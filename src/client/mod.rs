//! A small HTTP/1.1 client for the API of the vault: mutual TLS, one kept connection, JSON answers, problem documents as a type.

mod call;
pub mod connector;
mod endpoint;
mod error;
mod post;
mod stream;

use std::{error::Error as _, time::Duration};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

pub use self::call::Call;
pub use self::connector::Connection;
pub use self::endpoint::{ConnectOptions, Endpoint};
pub use self::error::{ClientError, Problem};
pub use self::post::PostTarget;
pub use self::stream::Lines;

pub(crate) use self::error::chain;

/// The longest answer that is read, in bytes. A page of a list is much shorter.
const LONGEST_ANSWER: usize = 16 << 20;

/// How long an answer may take by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one vault. It makes one call at a time over a kept connection. Use several clients for parallel calls.
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    connection: Mutex<Option<Connection>>,
}

/// An answer: any status, with its whole body. The body is wiped when dropped.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Reads the JSON in place: what `T` borrows is wiped with the answer.
    ///
    /// # Errors
    /// [`ClientError::Unreadable`]; the reason quotes nothing, since a parser may repeat what it read.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClientError> {
        let status = self.status.as_u16();
        serde_json::from_slice(&self.body).map_err(|_| ClientError::Unreadable { status, reason: "not the expected fields".into() })
    }
}

impl Client {
    /// The URL of the vault, as given.
    pub fn url(&self) -> &str {
        self.endpoint.url()
    }

    /// Checks the options; the first call connects.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming what to mend.
    pub fn new(options: &ConnectOptions) -> Result<Self, ClientError> {
        Ok(Self::of(Endpoint::new(options)?, DEFAULT_TIMEOUT))
    }

    /// A client of `endpoint` that waits for an answer at most `timeout`.
    pub fn of(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout, connection: Mutex::new(None) }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Call::get(path)).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Call::post(path).json(body)?).await
    }

    /// `POST path` of a call that creates: sent with an `Idempotency-Key`, so that it can be repeated over a new connection.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Call::post(path).json(body)?.idempotent()?).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Call::delete(path)).await
    }

    /// Makes a call whose answer holds no secret.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn json(&self, call: Call) -> Result<Value, ClientError> {
        let answer = self.success(call).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| ClientError::Unreadable { status: answer.status.as_u16(), reason: error.to_string() })
    }

    /// Makes a call and returns its answer if it is a success, unparsed: what holds secrets is read in place.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn success(&self, call: Call) -> Result<Answer, ClientError> {
        let answer = self.send(call).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(problem(answer.status.as_u16(), &answer.body))
    }

    /// Makes a call and returns the answer, whatever its status. A kept connection that turns out to be closed is replaced once, if nothing
    /// was sent or the call may be repeated.
    ///
    /// # Errors
    /// [`ClientError`], but not for an HTTP status.
    pub async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let request = call.request(self.endpoint.authority())?;
        let mut kept = self.connection.lock().await;
        let mut sent_before = false;
        if let Some(connection) = kept.take().filter(|connection| !connection.is_closed()) {
            match self.once(connection, request.clone()).await {
                Ok((answer, connection)) => {
                    *kept = connection;
                    return Ok(answer);
                }
                Err(lost) if lost.nothing_sent || (call.may_repeat() && !lost.timed_out) => sent_before = !lost.nothing_sent,
                Err(lost) => return Err(self.no_answer(lost)),
            }
        }
        let connection = self.endpoint.connect().await?;
        match self.once(connection, request).await {
            Ok((answer, connection)) => {
                *kept = connection;
                Ok(answer)
            }
            // With TLS 1.3, a client learns only now that the server refused its certificate.
            Err(lost) if !sent_before && (lost.nothing_sent || lost.refused) => {
                Err(ClientError::CannotConnect { url: self.endpoint.url().to_owned(), reason: lost.reason })
            }
            Err(lost) => Err(self.no_answer(lost)),
        }
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
        let answer = tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            let reason = format!("nothing came within {}", humantime::format_duration(self.timeout));
            Err(Lost { timed_out: true, ..Lost::because(reason) })
        })?;
        Ok((answer, (!connection.is_closed()).then_some(connection)))
    }

    fn no_answer(&self, lost: Lost) -> ClientError {
        ClientError::NoAnswer { url: self.endpoint.url().to_owned(), reason: lost.reason }
    }
}

/// The error of an answer that is no success.
fn problem(status: u16, body: &[u8]) -> ClientError {
    Problem::decode(status, body).map_or_else(
        || ClientError::Unreadable { status, reason: "no problem document".into() },
        |problem| ClientError::Problem(Box::new(problem)),
    )
}

/// A call that ended without an answer.
struct Lost {
    reason: String,
    nothing_sent: bool,
    timed_out: bool,
    refused: bool,
}

impl Lost {
    const fn because(reason: String) -> Self {
        Self { reason, nothing_sent: false, timed_out: false, refused: false }
    }
}

impl From<&hyper::Error> for Lost {
    fn from(error: &hyper::Error) -> Self {
        let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let refused = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>()).is_some();
        Self { refused, ..Self::because(chain(error)) }
    }
}

async fn read(answer: http::Response<Incoming>) -> Result<Answer, Lost> {
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
