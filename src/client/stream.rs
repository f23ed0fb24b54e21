//! An answer that is read line by line while it arrives.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Answer, Call, Candidate, Client, ClientError, Connection, chain,
    send::{Failed, Lost, Search, read},
};

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
    candidate: Arc<Candidate>,
}

impl Client {
    /// Makes a call over a connection of its own, and gives the lines of its answer while they arrive. The next URL is tried as by
    /// [`Client::send`]; an answer that breaks off later is an error.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn lines(&self, call: Call) -> Result<Lines, ClientError> {
        let mut search = Search::of(&call);
        for candidate in self.endpoints.order() {
            match self.lines_from(&candidate, &call).await {
                Ok(Ok(lines)) => {
                    candidate.answered();
                    return Ok(lines);
                }
                Ok(Err(refused)) => return Err(super::problem(refused.status.as_u16(), &refused.body)),
                Err(failed) => {
                    if search.ends_with(&candidate, failed) {
                        break;
                    }
                }
            }
        }
        Err(search.into_error())
    }

    /// The lines of one URL, or its answer if it is no success.
    async fn lines_from(&self, candidate: &Arc<Candidate>, call: &Call) -> Result<Result<Lines, Answer>, Failed> {
        let endpoint = candidate.endpoint();
        let request = call.request(endpoint.authority()).map_err(Failed::not_done)?;
        let mut connection = endpoint.connect().await.map_err(Failed::not_done)?;
        let exchange = async {
            connection.ready().await.map_err(|error| Lost::from(&error))?;
            connection.send_request(request).await.map_err(|error| Lost::from(&error))
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(Lost::late(self.timeout)));
        let answer = answer.map_err(|lost| lost.of_new_connection(endpoint, false))?;
        if !answer.status().is_success() {
            let answer = read(answer).await.map_err(|lost| lost.of(endpoint))?;
            return self.unless_unavailable(answer).map(Err);
        }
        Ok(Ok(Lines {
            body: answer.into_body(),
            _connection: connection,
            received: Vec::new(),
            given: 0,
            searched: 0,
            ended: false,
            patience: self.timeout,
            candidate: Arc::clone(candidate),
        }))
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
        self.candidate.failed();
        let url = self.candidate.endpoint().url().to_owned();
        ClientError::NoAnswer { url, reason: format!("the answer broke off: {reason}") }
    }
}
