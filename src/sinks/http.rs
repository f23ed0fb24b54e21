//! A sink over HTTP/1.1: one POST request for each batch, over one kept connection. An answer of 2xx confirms the batch.
//!
//! Redirects are not followed, because entries and the token would go to a server that nobody configured.

use async_trait::async_trait;
use http::{
    HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;

use super::{
    EntrySink, HttpFormat, HttpSinkConfig, LogSource, SinkEntry, SinkFault,
    bearer_token::BearerToken,
    endpoint::{HttpUrl, Server},
    lines, otlp,
};
use crate::client::{
    chain,
    connector::{Connection, is_tls},
};

/// The longest answer that is read, in bytes. A server that answers more is not asked for the rest.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How much of an answer a message shows, in characters.
const SHOWN: usize = 200;

/// The sink.
pub(super) struct HttpSink {
    server: Server,
    authority: String,
    path: String,
    format: HttpFormat,
    source: LogSource,
    token: Option<BearerToken>,
    connection: Option<Connection>,
}

impl HttpSink {
    /// The sink of a checked configuration. With a URL that is none, every batch fails.
    pub(super) fn new(config: &HttpSinkConfig, source: &LogSource) -> Self {
        let HttpSinkConfig { url, format, ca, certificate, key, token_file, plain_http: _ } = config;
        let url = HttpUrl::parse(url);
        let tls = url.as_ref().is_none_or(|url| url.tls).then(|| Server::files(ca.clone(), certificate.as_ref(), key.as_ref()));
        let (host, port, path, authority) =
            url.map_or_else(Default::default, |HttpUrl { host, port, path, authority, .. }| (host, port, path, authority));
        Self {
            server: Server { host, port, tls },
            authority,
            path,
            format: *format,
            source: source.clone(),
            token: token_file.as_deref().map(BearerToken::new),
            connection: None,
        }
    }

    async fn request(&mut self, body: &Bytes) -> Result<Request<Full<Bytes>>, SinkFault> {
        let content_type = match self.format {
            HttpFormat::Ndjson => "application/x-ndjson",
            HttpFormat::Otlp => "application/json",
        };
        let mut request =
            Request::post(&self.path).header(HOST, &self.authority).header(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(token) = &mut self.token {
            request = request.header(AUTHORIZATION, token.header().await?);
        }
        request.body(Full::new(body.clone())).map_err(|error| self.not_confirmed(error.to_string()))
    }

    /// Sends a body over a connection. Returns the connection if it can be kept.
    async fn exchange(
        address: &str,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Vec<u8>, Connection), SinkFault> {
        let lost = |error: hyper::Error| {
            let (address, reason) = (address.to_owned(), chain(&error));
            // With TLS 1.3, a client learns only here that the server refused its certificate.
            if is_tls(&error) { SinkFault::Tls { address, reason } } else { SinkFault::Unreachable { address, reason } }
        };
        connection.ready().await.map_err(lost)?;
        let answer = connection.send_request(request).await.map_err(lost)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let unread = |error: &dyn std::fmt::Display| format!("{status}, and the answer could not be read: {error}");
        let body = body.map_err(|error| SinkFault::NotConfirmed { address: address.to_owned(), answer: unread(&error) })?;
        Ok((status, body.to_bytes().to_vec(), connection))
    }

    async fn post(&mut self, body: Bytes) -> Result<(), SinkFault> {
        let kept = self.connection.take().filter(|connection| !connection.is_closed());
        let (request, address) = (self.request(&body).await?, self.server.address());
        let answer = match kept {
            // The server may have closed an idle connection. Then the batch is sent again over a new one.
            Some(kept) => match Self::exchange(&address, kept, request.clone()).await {
                Ok(answer) => answer,
                Err(_) => Self::exchange(&address, self.server.http().await?, request).await?,
            },
            None => Self::exchange(&address, self.server.http().await?, request).await?,
        };
        let (status, text, connection) = answer;
        if !status.is_success() {
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && let Some(token) = &mut self.token
            {
                token.forget();
            }
            return Err(self.not_confirmed(format!("{status} {}", shown(&text)).trim_end().to_owned()));
        }
        if self.format == HttpFormat::Otlp
            && let Some(rejected) = otlp::rejected(&text)
        {
            return Err(self.not_confirmed(rejected));
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn not_confirmed(&self, answer: String) -> SinkFault {
        SinkFault::NotConfirmed { address: self.server.address(), answer }
    }
}

#[async_trait]
impl EntrySink for HttpSink {
    async fn send(&mut self, batch: &[SinkEntry]) -> Result<(), SinkFault> {
        let body = match self.format {
            HttpFormat::Ndjson => lines(batch),
            HttpFormat::Otlp => otlp::encode(batch, &self.source).map_err(|error| self.not_confirmed(error.to_string()))?,
        };
        self.post(body.into()).await
    }

    /// Connects, and reads the token. Sends no request, because a receiver would count it as entries.
    async fn probe(&mut self) -> Result<String, SinkFault> {
        if let Some(token) = &mut self.token {
            token.header().await?;
        }
        self.server.http().await?;
        Ok(format!("{} accepts a connection", self.server.address()))
    }
}

/// The start of an answer, on one line.
fn shown(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
