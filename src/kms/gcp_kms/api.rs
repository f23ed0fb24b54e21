//! Requests to Cloud KMS with an access token. A refused token is replaced once. Each request has an id, which the audit log of Google has too.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use serde::{Serialize, de::DeserializeOwned};

use super::error::{Refusal, sort};
use crate::{
    crypto::Random,
    domain::Hex,
    kms::{
        KmsCalls,
        call_error::{CallError, UNUSABLE_ANSWER},
        http::{HttpRequest, HttpResponse, HttpServer, Recording},
        oauth::TokenCache,
    },
};

/// Cloud KMS at one address.
pub(super) struct CloudKms {
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

impl CloudKms {
    /// `GET /v1/<name>`, as the method `action` of the API.
    pub(super) async fn get<T: DeserializeOwned>(&self, action: &str, name: &str) -> Result<T, Failed> {
        self.send(action, name, &HttpRequest::get(format!("/v1/{name}"))).await?.read()
    }

    /// `POST /v1/<name><rest>`, as the method `action` of the API.
    pub(super) async fn post(&self, action: &str, name: &str, rest: &str, body: &impl Serialize) -> Result<Answered, Failed> {
        self.send(action, name, &HttpRequest::post(format!("/v1/{name}{rest}"), body)).await
    }

    async fn send(&self, action: &str, name: &str, ask: &HttpRequest) -> Result<Answered, Failed> {
        let token = self.tokens.token().await?;
        let (answer, request_id) = self.try_send(action, name, ask, token.header()?).await?;
        let (body, request_id) = match answer.status {
            401 => match self.tokens.token_after(&token).await? {
                Some(other) => self.try_send(action, name, ask, other.header()?).await?,
                None => (answer, request_id),
            },
            _ => (answer, request_id),
        };
        if body.status == 200 { Ok(Answered { body, request_id }) } else { Err(Failed { why: sort(&body), request_id: Some(request_id) }) }
    }

    async fn try_send(&self, action: &str, name: &str, ask: &HttpRequest, token: HeaderValue) -> Result<(HttpResponse, String), CallError> {
        let id = self.request_id()?;
        // Cloud Audit Logs have it as `requestMetadata.requestAttributes.reason` (<https://cloud.google.com/apis/docs/system-parameters>).
        let reason = HeaderValue::from_str(&id).map_err(|_| UNUSABLE_ANSWER)?;
        let headers = [(AUTHORIZATION, token), (HeaderName::from_static("x-goog-request-reason"), reason)];
        let recording = Recording { calls: &self.calls, action, place: name, id: &|_| Some(id.clone()) };
        let answer = self.server.send(ask, &headers, Some(recording)).await?;
        Ok((answer, id))
    }

    fn request_id(&self) -> Result<String, CallError> {
        let mut random = [0; 16];
        let failed = |_| CallError::Misconfigured("the random number generator of the system failed".to_owned());
        self.random.fill(&mut random).map_err(failed)?;
        Ok(format!("canton-keyvault-{}", Hex(&random)))
    }
}
