//! A request for an access token, and its answer (RFC 6749, sections 5.1 and 5.2). Metadata servers answer in the same form.

use std::{borrow::Cow, time::Duration};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::AccessToken;
use crate::{
    client::percent_encoded,
    kms::{
        CredentialFault, Denial, Outage,
        call_error::CallError,
        http::{HttpRequest, HttpServer},
    },
};

/// The body of a request with these fields, which is wiped.
pub(in crate::kms) fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let encoded: Vec<Zeroizing<String>> =
        fields.iter().map(|(name, value)| Zeroizing::new(format!("{name}={}", *Zeroizing::new(percent_encoded(value))))).collect();
    let length: usize = encoded.iter().map(|field| field.len() + 1).sum();
    // Growing would leave a copy behind.
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    for field in &encoded {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(field.as_bytes());
    }
    body
}

/// A token in an answer.
pub(in crate::kms) struct NewToken {
    pub(in crate::kms) value: Zeroizing<String>,
    /// Seconds.
    pub(in crate::kms) lifetime: u64,
}

/// Requests a token.
///
/// # Errors
/// `LoginRefused` if the server refuses the credentials, or an outage of the source of the credentials.
pub(in crate::kms) async fn request_token(
    server: &HttpServer,
    ask: &HttpRequest,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<AccessToken, CallError> {
    let read = |body: &[u8]| {
        let Token { access_token, expires_in } = serde_json::from_slice(body).ok()?;
        Some(NewToken { value: Zeroizing::new(access_token.into_owned()), lifetime: expires_in.seconds()? })
    };
    request_token_in(server, ask, headers, read).await
}

/// As [`request_token`], from an answer of another form.
///
/// # Errors
/// As [`request_token`].
pub(in crate::kms) async fn request_token_in(
    server: &HttpServer,
    ask: &HttpRequest,
    headers: &[(HeaderName, HeaderValue)],
    read: impl FnOnce(&[u8]) -> Option<NewToken>,
) -> Result<AccessToken, CallError> {
    let requested = Instant::now();
    let answer = server.send(ask, headers, None).await.map_err(|error| match error {
        // A person must act on the certificate.
        CallError::Outage(outage) if outage != Outage::TlsFailed => UNAVAILABLE,
        error => error,
    })?;
    match answer.status {
        200 => {
            let usable = |token: &NewToken| token.lifetime > 0 && !token.value.is_empty();
            let NewToken { value, lifetime } = read(&answer.body).filter(usable).ok_or(UNAVAILABLE)?;
            Ok(AccessToken::new(value, requested, Duration::from_secs(lifetime)))
        }
        400 | 401 | 403 => {
            tracing::warn!(address = %server.address(), status = answer.status, reason = refusal(&answer.body), "no access token is given");
            Err(CallError::Denied(Denial::Credentials(CredentialFault::LoginRefused)))
        }
        // Metadata servers answer 404 and 410 while they start and while an identity is assigned.
        404 | 410 | 429 | 500.. => {
            tracing::warn!(address = %server.address(), status = answer.status, "no access token is given now");
            Err(UNAVAILABLE)
        }
        status => {
            Err(CallError::Misconfigured(format!("{} gives no access tokens (status {status}); check the address", server.address())))
        }
    }
}

#[derive(Deserialize)]
struct Token<'a> {
    /// Borrowed from the answer, which is wiped.
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    expires_in: Seconds,
}

/// The metadata server of Azure writes the number as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn seconds(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// The error code of a refusal, if it has the form of one: of OAuth, or of an API of Google. The description may quote the request.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: Code,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        OAuth(String),
        Google { status: String },
    }
    let code = match serde_json::from_slice(body) {
        Ok(Refusal { error: Code::OAuth(code) | Code::Google { status: code } }) => code,
        Err(_) => String::new(),
    };
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    if plain { code } else { "unknown".to_owned() }
}

const UNAVAILABLE: CallError = CallError::Outage(Outage::CredentialsUnavailable);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_and_an_error_code_is_a_word() {
        let body = form(&[("grant_type", "urn:ietf:params"), ("assertion", "a.b-c_d~e&f=+")]);
        assert_eq!(std::str::from_utf8(&body).unwrap(), "grant_type=urn%3Aietf%3Aparams&assertion=a.b-c_d~e%26f%3D%2B");
        assert_eq!(refusal(br#"{"error":"invalid_grant","error_description":"hidden"}"#), "invalid_grant");
        assert_eq!(refusal(br#"{"error":{"code":403,"message":"hidden","status":"PERMISSION_DENIED"}}"#), "PERMISSION_DENIED");
        for other in [r#"{"error":"Hidden text"}"#, r#"{"error":{}}"#, "", "{}"] {
            assert_eq!(refusal(other.as_bytes()), "unknown");
        }
    }

    #[test]
    fn the_lifetime_is_a_number_or_a_text() {
        for (text, seconds) in
            [(r#"{"access_token":"t","expires_in":3599}"#, Some(3599)), (r#"{"access_token":"t","expires_in":"86399"}"#, Some(86399))]
        {
            assert_eq!(serde_json::from_str::<Token<'_>>(text).unwrap().expires_in.seconds(), seconds);
        }
    }
}
