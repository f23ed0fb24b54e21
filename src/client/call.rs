//! A request of the API before it is sent. Bodies are wiped on drop, because some contain key material.

use std::fmt::Write as _;

use http::{
    HeaderName, HeaderValue, Method, Request,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;
use zeroize::Zeroizing;

use super::ClientError;
use crate::crypto::{Random as _, SystemRandom};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request: method, path with query, headers, JSON body.
pub struct Call {
    method: Method,
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Call {
    /// `GET path`
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST path`
    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    /// `DELETE path`
    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn new(method: Method, path: &str) -> Self {
        Self { method, target: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds `name=value` to the query, encoded.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        self.target.push_str(&percent_encoded(value));
        self
    }

    /// Adds `name=value` to the query if there is a value.
    #[must_use]
    pub fn query_if(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, &value.to_string()),
            None => self,
        }
    }

    /// Sets the body.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if `body` cannot be JSON.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
        serde_json::to_writer(&mut *bytes, body).map_err(|error| ClientError::Usage(error.to_string()))?;
        self.body = Bytes::from_owner(bytes);
        Ok(self.header(CONTENT_TYPE, HeaderValue::from_static("application/json")))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a random `Idempotency-Key`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the random number generator of the system failed.
    pub fn idempotent(self) -> Result<Self, ClientError> {
        let mut random = [0; 16];
        SystemRandom::default().fill(&mut random).map_err(|error| ClientError::Usage(error.to_string()))?;
        let text = format!("{:032x}", u128::from_be_bytes(random));
        let value = HeaderValue::try_from(text).map_err(|error| ClientError::Usage(error.to_string()))?;
        Ok(self.header(IDEMPOTENCY_KEY, value))
    }

    /// Whether the request may be sent twice.
    pub(super) fn may_repeat(&self) -> bool {
        self.method == Method::GET || self.headers.iter().any(|(name, _)| name == IDEMPOTENCY_KEY)
    }

    /// The HTTP request for a host.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the path is none.
    pub fn request(&self, authority: &str) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(&self.method).uri(&self.target).header(HOST, authority);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.clone())).map_err(|error| ClientError::Usage(error.to_string()))
    }
}

/// The value of a query parameter, or one part of a path, percent-encoded.
pub fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        // RFC 3986 §2.3: characters that need no encoding.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let call =
            Call::get("/v1/audit/entries").query("principal", "spiffe://a/b c&d=é").query_if("limit", Some(5)).query_if("x", None::<u8>);
        assert_eq!(call.target, "/v1/audit/entries?principal=spiffe%3A%2F%2Fa%2Fb%20c%26d%3D%C3%A9&limit=5");
    }

    #[test]
    fn only_reads_and_calls_with_an_idempotency_key_may_be_repeated() {
        assert!(Call::get("/").may_repeat());
        assert!(!Call::post("/").may_repeat());
        assert!(!Call::delete("/").may_repeat());
        assert!(Call::post("/").idempotent().unwrap().may_repeat());
    }

    #[test]
    fn a_body_is_json_and_the_host_is_named() {
        let request = Call::post("/v1/keys").json(&serde_json::json!({"node": "n"})).unwrap().request("vault:8443").unwrap();
        assert_eq!(request.headers()["host"], "vault:8443");
        assert_eq!(request.headers()["content-type"], "application/json");
    }
}
