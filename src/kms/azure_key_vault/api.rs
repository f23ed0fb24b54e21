//! Requests to one vault with an access token. A refused token is replaced once. Each request has an id, which the log of the vault has as
//! its correlation id.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use serde::Serialize;

use super::error::{Refusal, sort};
use crate::{
    crypto::Random,
    kms::{
        KmsCalls,
        call_error::{CallError, UNUSABLE_ANSWER},
        http::{HttpRequest, HttpResponse, HttpServer, Recording},
        oauth::TokenCache,
    },
};

/// A vault.
pub(super) struct AzureVault {
    pub(super) server: HttpServer,
    pub(super) tokens: Arc<TokenCache>,
    pub(super) calls: Arc<KmsCalls>,
    pub(super) random: Arc<dyn Random>,
}

/// A call that failed.
pub(super) struct Failed {
    pub(super) why: Refusal,
    /// The id of the request, if one was sent.
    pub(super) request_id: Option<String>,
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self { why: Refusal::Other(error), request_id: None }
    }
}

impl Failed {
    /// The same failure; if a permission is missing, with its name.
    pub(super) fn needing(self, permission: &'static str) -> Self {
        let why = match self.why {
            Refusal::Other(error) => Refusal::Other(error.needing(permission)),
            why => why,
        };
        Self { why, ..self }
    }

    /// The same failure, with this meaning.
    pub(super) fn meaning(self, error: CallError) -> Self {
        Self { why: Refusal::Other(error), ..self }
    }
}

/// A successful answer and the id of its request.
pub(super) struct Answered {
    body: HttpResponse,
    pub(super) request_id: String,
}

impl Answered {
    /// The body. Texts that are borrowed from it are wiped with it.
    pub(super) fn read<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failed> {
        serde_json::from_slice(&self.body.body).map_err(|_| self.unusable())
    }

    /// The error of a success without the expected content.
    pub(super) fn unusable(&self) -> Failed {
        Failed { why: Refusal::Other(UNUSABLE_ANSWER), request_id: Some(self.request_id.clone()) }
    }
}

impl AzureVault {
    /// `GET /<path>`, as the operation `action` in the log of the vault.
    pub(super) async fn get(&self, action: &str, path: &str) -> Result<Answered, Failed> {
        self.send(action, path, &HttpRequest::get(format!("/{path}{API_VERSION}"))).await
    }

    /// `POST /<path>`, as the operation `action` in the log of the vault.
    pub(super) async fn post(&self, action: &str, path: &str, body: &impl Serialize) -> Result<Answered, Failed> {
        self.send(action, path, &HttpRequest::post(format!("/{path}{API_VERSION}"), body)).await
    }

    async fn send(&self, action: &str, path: &str, ask: &HttpRequest) -> Result<Answered, Failed> {
        let token = self.tokens.token().await?;
        let (answer, request_id) = self.try_send(action, path, ask, token.header()?).await?;
        let (body, request_id) = match answer.status {
            401 => match self.tokens.token_after(&token).await? {
                Some(other) => self.try_send(action, path, ask, other.header()?).await?,
                None => (answer, request_id),
            },
            _ => (answer, request_id),
        };
        if body.status == 200 { Ok(Answered { body, request_id }) } else { Err(Failed { why: sort(&body), request_id: Some(request_id) }) }
    }

    async fn try_send(&self, action: &str, path: &str, ask: &HttpRequest, token: HeaderValue) -> Result<(HttpResponse, String), CallError> {
        let id = self.request_id()?;
        // <https://learn.microsoft.com/azure/key-vault/general/logging>: `CorrelationId`
        let correlation = HeaderValue::from_str(&id).map_err(|_| UNUSABLE_ANSWER)?;
        let headers = [(AUTHORIZATION, token), (HeaderName::from_static("x-ms-client-request-id"), correlation)];
        let recording = Recording { calls: &self.calls, action, place: path, id: &|_| Some(id.clone()) };
        let answer = self.server.send(ask, &headers, Some(recording)).await?;
        Ok((answer, id))
    }

    /// A random UUID.
    fn request_id(&self) -> Result<String, CallError> {
        let mut random = [0_u8; 16];
        let failed = |_| CallError::Misconfigured("the random number generator of the system failed".to_owned());
        self.random.fill(&mut random).map_err(failed)?;
        // Version 4 (RFC 9562, section 5.4).
        let number = u128::from_be_bytes(random) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let text = format!("{number:032x}");
        let part = |from, to| text.get(from..to).unwrap_or_default();
        Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
    }
}

const API_VERSION: &str = "?api-version=7.4";
