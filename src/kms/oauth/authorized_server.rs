//! Requests to a KMS with an access token. A refused token is replaced once. Each request has an id, which the log of the KMS has too.

use std::{marker::PhantomData, sync::Arc};

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use serde::Deserialize;

use super::TokenCache;
use crate::{
    crypto::Random,
    kms::{
        KmsCalls, KmsReceipt, WrapperError,
        call_error::{CallError, UNUSABLE_ANSWER},
        http::{HttpRequest, HttpResponse, HttpServer, Recording},
    },
};

/// What is particular to the API of a KMS.
pub(in crate::kms) trait Api {
    /// The header with the id of a request, in lower case.
    const ID_HEADER: &'static str;
    /// What an unsuccessful answer can mean.
    type Refusal: Refusal;
    /// The id of a request, made from random bytes.
    fn request_id(random: [u8; 16]) -> String;
    /// What an unsuccessful answer means.
    fn sort(answer: &HttpResponse) -> Self::Refusal;
}

/// An unsuccessful answer, before its caller explains it.
pub(in crate::kms) trait Refusal: From<CallError> {
    /// The meaning, if the call has no better one.
    fn unexpected(self) -> CallError;
    /// The same; if its meaning is known already, with another one.
    fn map_known(self, change: impl FnOnce(CallError) -> CallError) -> Self;
}

/// The API of a KMS at one address.
pub(in crate::kms) struct AuthorizedServer<A> {
    pub(in crate::kms) server: HttpServer,
    pub(in crate::kms) tokens: Arc<TokenCache>,
    calls: Arc<KmsCalls>,
    random: Arc<dyn Random>,
    api: PhantomData<fn() -> A>,
}

/// A call that failed.
pub(in crate::kms) struct Failed<R> {
    pub(in crate::kms) why: R,
    /// The id of the request, if one was sent.
    pub(in crate::kms) request_id: Option<String>,
}

impl<R: From<CallError>> From<CallError> for Failed<R> {
    fn from(error: CallError) -> Self {
        Self { why: error.into(), request_id: None }
    }
}

impl<R: Refusal> Failed<R> {
    /// The same failure; if a permission is missing, with its name.
    pub(in crate::kms) fn needing(self, permission: &'static str) -> Self {
        Self { why: self.why.map_known(|error| error.needing(permission)), ..self }
    }

    /// The same failure, with this meaning.
    pub(in crate::kms) fn meaning(self, error: CallError) -> Self {
        Self { why: error.into(), ..self }
    }

    /// The error about a key.
    pub(in crate::kms) fn about(self, reference: &str) -> WrapperError {
        self.why.unexpected().about_request(reference, self.request_id)
    }
}

/// A successful answer and the id of its request.
pub(in crate::kms) struct Answered<R> {
    body: HttpResponse,
    pub(in crate::kms) request_id: String,
    refusal: PhantomData<fn() -> R>,
}

impl<R: Refusal> Answered<R> {
    /// The body. Texts that are borrowed from it are wiped with it.
    pub(in crate::kms) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failed<R>> {
        serde_json::from_slice(&self.body.body).map_err(|_| self.unusable())
    }

    /// The error of a success without the expected content.
    pub(in crate::kms) fn unusable(&self) -> Failed<R> {
        Failed { why: UNUSABLE_ANSWER.into(), request_id: Some(self.request_id.clone()) }
    }

    /// Who answered.
    pub(in crate::kms) fn receipt(self) -> KmsReceipt {
        KmsReceipt { region: None, request_id: Some(self.request_id) }
    }
}

impl<A: Api> AuthorizedServer<A> {
    /// The API at this server. Sends nothing.
    pub(in crate::kms) fn new(server: HttpServer, tokens: Arc<TokenCache>, calls: Arc<KmsCalls>, random: Arc<dyn Random>) -> Self {
        Self { server, tokens, calls, random, api: PhantomData }
    }

    /// Sends a request, as the method `action` on `place` in the log of the KMS.
    ///
    /// # Errors
    /// What the answer means if its status is not 200, or why there is none.
    pub(in crate::kms) async fn send(
        &self,
        action: &str,
        place: &str,
        ask: &HttpRequest,
    ) -> Result<Answered<A::Refusal>, Failed<A::Refusal>> {
        let token = self.tokens.token().await?;
        let (answer, request_id) = self.try_send(action, place, ask, token.header()?).await?;
        let (body, request_id) = match answer.status {
            401 => match self.tokens.token_after(&token).await? {
                Some(other) => self.try_send(action, place, ask, other.header()?).await?,
                None => (answer, request_id),
            },
            _ => (answer, request_id),
        };
        if body.status == 200 {
            Ok(Answered { body, request_id, refusal: PhantomData })
        } else {
            Err(Failed { why: A::sort(&body), request_id: Some(request_id) })
        }
    }

    async fn try_send(
        &self,
        action: &str,
        place: &str,
        ask: &HttpRequest,
        token: HeaderValue,
    ) -> Result<(HttpResponse, String), CallError> {
        let mut random = [0; 16];
        let failed = |_| CallError::Misconfigured("the random number generator of the system failed".to_owned());
        self.random.fill(&mut random).map_err(failed)?;
        let id = A::request_id(random);
        let value = HeaderValue::from_str(&id).map_err(|_| UNUSABLE_ANSWER)?;
        let headers = [(AUTHORIZATION, token), (HeaderName::from_static(A::ID_HEADER), value)];
        let recording = Recording { calls: &self.calls, action, place, id: &|_| Some(id.clone()) };
        let answer = self.server.send(ask, &headers, Some(recording)).await?;
        Ok((answer, id))
    }
}
