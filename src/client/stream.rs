//! An answer that is read line by line while it arrives.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Answer, Call, Client, ClientError, Connection, Lost, chain, read};

/// The longest line, in bytes. An entry of the audit log is much shorter.
const LONGEST_LINE: usize = 4 << 20;

/// The lines of an answer.
pub struct Lines {
    body: Incoming,
    /// Keeps the connection open.
    _connection: Connection,
    received: Vec<u8>,
    /// How much of `received` was given, and how much of the rest has no line end.
    given: usize,
    searched: usize,
    ended: bool,
    patience: Duration,
    url: String,
}

impl Client {
    /// Makes a call over a connection of its own, and gives the lines of its answer while they arrive.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn lines(&self, call: Call) -> Result<Lines, ClientError> {
        let request = call.request(self.endpoint.authority())?;
        let mut connection = self.endpoint.connect().await?;
        let exchange = async {
            connection.ready().await.map_err(|error| Lost::from(&error))?;
            connection.send_request(request).await.map_err(|error| Lost::from(&error))
        };
        let answer = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => answer,
            // With TLS 1.3, a client learns only now that the server refused its certificate.
            Ok(Err(lost)) if lost.refused => {
                return Err(ClientError::CannotConnect { url: self.endpoint.url().to_owned(), reason: lost.reason });
            }
            Ok(Err(lost)) => return Err(self.no_answer(lost)),
            Err(_) => {
                return Err(self.no_answer(Lost::because(format!("nothing came within {}", humantime::format_duration(self.timeout)))));
            }
        };
        if !answer.status().is_success() {
            let Answer { status, body, .. } = read(answer).await.map_err(|lost| self.no_answer(lost))?;
            return Err(super::problem(status.as_u16(), &body));
        }
        Ok(Lines {
            body: answer.into_body(),
            _connection: connection,
            received: Vec::new(),
            given: 0,
            searched: 0,
            ended: false,
            patience: self.timeout,
            url: self.endpoint.url().to_owned(),
        })
    }
}

impl Lines {
    /// The next line, without its end. `None` after the last one.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] if the answer broke off, or if nothing came in time.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, ClientError> {
        loop {
            let rest = self.received.get(self.searched..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let (from, to) = (self.given, self.searched + length);
                self.given = to + 1;
                self.searched = self.given;
                return Ok(self.received.get(from..to));
            }
            self.searched = self.received.len();
            if self.ended {
                let broken = self.given < self.received.len();
                return if broken { Err(self.broke_off("its last line is not complete")) } else { Ok(None) };
            }
            self.received.drain(..self.given);
            self.searched -= self.given;
            self.given = 0;
            if self.received.len() > LONGEST_LINE {
                return Err(self.broke_off(&format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            match tokio::time::timeout(self.patience, self.body.frame()).await {
                Err(_) => return Err(self.broke_off(&format!("nothing came within {}", humantime::format_duration(self.patience)))),
                Ok(None) => self.ended = true,
                Ok(Some(Err(error))) => return Err(self.broke_off(&chain(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn broke_off(&self, reason: &str) -> ClientError {
        ClientError::NoAnswer { url: self.url.clone(), reason: format!("the answer broke off: {reason}") }
    }
}
