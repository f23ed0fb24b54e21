//! A small HTTP/1.1 client for the API of the vault: mutual TLS, one kept connection, JSON answers, problem documents as a type. With several
//! URLs it uses the first one that works.

mod call;
pub mod connector;
mod endpoint;
mod endpoints;
mod error;
mod post;
mod send;
mod stream;

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

pub use self::call::{Call, percent_encoded};
pub use self::connector::Connection;
pub use self::endpoint::{ConnectOptions, Endpoint};
pub use self::endpoints::{Candidate, Endpoints};
pub use self::error::{ClientError, Problem, Tried};
pub use self::post::PostTarget;
pub use self::stream::Lines;

pub(crate) use self::error::chain;

/// How long an answer may take by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one vault, which may have several URLs. It makes one call at a time over a kept connection. Use several clients for parallel
/// calls.
pub struct Client {
    endpoints: Endpoints,
    timeout: Duration,
    kept: Mutex<send::Kept>,
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
    /// The URLs of the vault.
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Checks the options; the first call connects.
    ///
    /// # Errors
    /// [`ClientError::Usage`], naming what to mend.
    pub fn new(options: &ConnectOptions) -> Result<Self, ClientError> {
        Ok(Self::of(Endpoint::new(options)?, DEFAULT_TIMEOUT))
    }

    /// A client of these URLs that waits for the answer of each at most `timeout`.
    pub fn of(endpoints: impl Into<Endpoints>, timeout: Duration) -> Self {
        Self { endpoints: endpoints.into(), timeout, kept: Mutex::new(None) }
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
}

/// The error of an answer that is no success.
fn problem(status: u16, body: &[u8]) -> ClientError {
    Problem::decode(status, body).map_or_else(
        || ClientError::Unreadable { status, reason: "no problem document".into() },
        |problem| ClientError::Problem(Box::new(problem)),
    )
}
