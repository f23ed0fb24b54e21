//! POST requests to a server that is no vault: a webhook, a witness, a collector of traces. Plain HTTP, or TLS with given authorities; the answer is bounded.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use rustls::{ClientConfig, pki_types::ServerName};

use super::{
    ClientError,
    connector::{Connection, TlsFiles, connect},
    error::chain,
};

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Where to post.
#[derive(Clone)]
pub struct PostTarget {
    url: String,
    authority: String,
    host: String,
    port: u16,
    path: String,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl PostTarget {
    /// Checks the URL, `http://…` or `https://…`, and reads the file of the authorities. Those of the operating system are never used.
    ///
    /// # Errors
    /// [`ClientError::Usage`].
    pub fn new(url: &str, ca: Option<PathBuf>) -> Result<Self, ClientError> {
        let wrong = |why: &dyn std::fmt::Display| ClientError::Usage(format!("{url}: {why}"));
        let uri: http::Uri = url.parse().map_err(|error| wrong(&error))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong(&"write http://host:port/path or https://host:port/path"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong(&"remove the user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match (scheme, ca) {
            ("http", None) => (None, 80),
            ("http", Some(_)) => return Err(wrong(&"authorities have no effect without https")),
            (_, None) => return Err(wrong(&"name the file of the authorities that issue the certificate of the server")),
            (_, ca) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| wrong(&error))?;
                let config = TlsFiles { ca, client: None }.client_config();
                (Some((name, Arc::new(config.map_err(|error| wrong(&format_args!("{}: {}", error.file.display(), error.problem)))?))), 443)
            }
        };
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let (authority, port) = (authority.as_str().to_owned(), authority.port_u16().unwrap_or(port));
        Ok(Self { url: url.to_owned(), authority, host, port, path, tls })
    }

    /// The URL as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts once over a new connection. Returns the status and the body.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`] or [`ClientError::NoAnswer`], after at most `timeout`.
    pub async fn post(&self, content_type: &str, body: Vec<u8>, timeout: Duration) -> Result<(StatusCode, Vec<u8>), ClientError> {
        self.post_over(&mut None, HeaderMap::new(), content_type, body, timeout).await
    }

    /// Posts over `kept`, or over a new connection if it is closed, and leaves in `kept` what can be used again. A server that closes a kept
    /// connection meanwhile gets the request again, so that it may receive it twice.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn post_over(
        &self,
        kept: &mut Option<Connection>,
        headers: HeaderMap,
        content_type: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let exchange = async {
            let mut request = Request::post(&self.path).header(header::HOST, &self.authority).header(header::CONTENT_TYPE, content_type);
            if let Some(all) = request.headers_mut() {
                all.extend(headers);
            }
            let request = request.body(Full::new(Bytes::from(body))).map_err(|error| ClientError::Usage(error.to_string()))?;
            if let Some(connection) = kept.take().filter(|connection| !connection.is_closed())
                && let Ok((answer, connection)) = self.exchange(connection, request.clone()).await
            {
                *kept = Some(connection);
                return Ok(answer);
            }
            let (answer, connection) = self.exchange(self.connect().await?, request).await?;
            *kept = Some(connection);
            Ok(answer)
        };
        let late = || self.no_answer(format!("nothing came within {}", humantime::format_duration(timeout)));
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    /// Opens a connection. The caller sets the timeout.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`].
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let connected = connect(&self.host, self.port, self.tls.clone()).await;
        connected.map_err(|fault| ClientError::CannotConnect { url: self.url.clone(), reason: fault.to_string() })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<((StatusCode, Vec<u8>), Connection), ClientError> {
        let lost = |error: hyper::Error| self.no_answer(chain(&error));
        connection.ready().await.map_err(lost)?;
        let answer = connection.send_request(request).await.map_err(lost)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| self.no_answer(chain(error.as_ref())))?;
        Ok(((status, body.to_bytes().to_vec()), connection))
    }

    fn no_answer(&self, reason: String) -> ClientError {
        ClientError::NoAnswer { url: self.url.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_http_are_accepted_and_tls_needs_its_authorities() {
        let target = PostTarget::new("http://127.0.0.1:8080/hook?a=b", None).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("127.0.0.1", 8080, "/hook?a=b"));
        assert_eq!(PostTarget::new("http://example.com", None).unwrap().port, 80);
        for (url, ca) in
            [("ftp://a", None), ("example.com", None), ("https://a", None), ("http://a", Some("ca.pem".into())), ("http://u@a", None)]
        {
            assert!(matches!(PostTarget::new(url, ca), Err(ClientError::Usage(_))), "{url}");
        }
    }
}
