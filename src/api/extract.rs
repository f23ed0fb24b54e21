//! One extractor for every call: the caller, the operation, the path, the query and the body. A request that cannot be read is refused,
//! with an audit entry.

use std::{borrow::Cow, str::FromStr, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, MatchedPath, Query, RawPathParams, Request, rejection::QueryRejection},
    http::{HeaderMap, request::Parts},
};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use crate::{
    domain::{JobId, KeyId, Operation, Principal, WrapperKeyId},
    mtls::BodyTimeout,
    traces::TraceParent,
    vault::{CallContext, RequestSlot, VaultError},
};

use super::{Api, Problem, trace::CallStart};

/// The longest body of any call: an import of a key in base64 fits.
pub const BODY_LIMIT: usize = 64 * 1024;

/// A call that was read: `P` from the path, `Q` from the query, `B` from the body.
pub(super) struct ApiRequest<P = Nothing, Q = Nothing, B = Nothing> {
    pub call: CallContext,
    pub path: P,
    pub query: Q,
    pub body: B,
    /// Counts this call towards the limits of its principal until it ends.
    _slot: Arc<RequestSlot>,
}

/// No path parameter, no query, or no body. An empty object is accepted.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// The header that makes a creation repeatable, as the OpenAPI document describes it. [`call`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub(super) struct IdempotencyKey {
    /// 1 to 255 visible ASCII characters. The same key and body give the same answer for 24 hours.
    #[param(rename = "Idempotency-Key", nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// The `{id}` in a path.
pub(super) trait PathId: Sized {
    fn read(text: Option<&str>) -> Result<Self, VaultError>;

    fn key(&self) -> Option<KeyId> {
        None
    }
}

impl PathId for Nothing {
    fn read(_: Option<&str>) -> Result<Self, VaultError> {
        Ok(Self {})
    }
}

impl PathId for KeyId {
    fn read(text: Option<&str>) -> Result<Self, VaultError> {
        Ok(Self::from_str(text.unwrap_or_default())?)
    }

    fn key(&self) -> Option<KeyId> {
        Some(*self)
    }
}

impl PathId for WrapperKeyId {
    fn read(text: Option<&str>) -> Result<Self, VaultError> {
        Ok(Self::from_str(text.unwrap_or_default())?)
    }
}

impl PathId for JobId {
    fn read(text: Option<&str>) -> Result<Self, VaultError> {
        Ok(Self::from_str(text.unwrap_or_default())?)
    }
}

impl<P, Q, B> FromRequest<Arc<Api>> for ApiRequest<P, Q, B>
where
    P: PathId + Send,
    Q: DeserializeOwned + Send,
    B: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Some(CallStart { slot, request_id, principal }) = parts.extensions.remove() else { return Err(without_start()) };
        let call = call(&parts, request_id, principal);
        let mut key = None;
        let read = async {
            let slot = slot.ok_or(VaultError::Internal("a request without a place"))?;
            let path = P::read(id(&mut parts).await.as_deref())?;
            key = path.key();
            check_idempotency_key(api, &parts, &call)?;
            let query = Query::<Q>::try_from_uri(&parts.uri).map_err(|error| unreadable_query(&error))?.0;
            let text = body_text(body, &slot).await?;
            let body = serde_json::from_slice(&text).map_err(|error| unreadable_body(&error))?;
            Ok((slot, path, query, body))
        };
        match read.await {
            Ok((slot, path, query, body)) => Ok(Self { call, path, query, body, _slot: slot }),
            Err(error) => Err(Box::pin(reject(api, &parts, &call, key, error)).await),
        }
    }
}

/// The refusal of a call before it is read. Its entry names the key of the path.
pub(super) async fn refuse(api: &Arc<Api>, start: CallStart, request: Request, error: VaultError) -> Problem {
    let (mut parts, _) = request.into_parts();
    let call = call(&parts, start.request_id, start.principal);
    let key = id(&mut parts).await.and_then(|id| id.parse().ok());
    reject(api, &parts, &call, key, error).await
}

/// The refusal of a call that matches no route. It gets an entry like any other call.
pub(super) async fn unroutable(api: &Api, request: Request, error: VaultError) -> Problem {
    let (mut parts, _) = request.into_parts();
    let Some(CallStart { request_id, principal, .. }) = parts.extensions.remove() else { return without_start() };
    let call = call(&parts, request_id, principal);
    Problem::of(&api.vault.reject(&call, Operation::NoSuchCall, None, error).await, &call.request_id)
}

fn without_start() -> Problem {
    Problem::of(&VaultError::Internal("a request without a principal"), "")
}

/// The caller as the connection proved it, and what the headers say about the call. No header identifies the caller.
fn call(parts: &Parts, request_id: Arc<str>, principal: Principal) -> CallContext {
    let header = |name: &str| text(&parts.headers, name);
    CallContext {
        principal,
        request_id,
        client: header("user-agent").map(|agent| client(&agent)).filter(|client| !client.is_empty()).map(Into::into),
        trace_id: header("traceparent").and_then(|parent| TraceParent::parse(&parent).map(|parent| parent.trace_id.into())),
        idempotency_key: parts.headers.contains_key("idempotency-key").then(|| header("idempotency-key").unwrap_or_default().into_owned()),
    }
}

async fn reject(api: &Arc<Api>, parts: &Parts, call: &CallContext, key: Option<KeyId>, error: VaultError) -> Problem {
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let operation = api.operations.of(&parts.method, matched).unwrap_or(Operation::NoSuchCall);
    Problem::of(&api.vault.reject(call, operation, key, error).await, &call.request_id)
}

async fn id(parts: &mut Parts) -> Option<String> {
    // The usual form of a path costs one allocation, that of axum several.
    let matched = parts.extensions.get::<MatchedPath>()?.as_str();
    if let Some(place) = matched.split('/').position(|segment| segment == "{id}") {
        let segment = parts.uri.path().split('/').nth(place)?;
        if !segment.contains('%') {
            return Some(segment.to_owned());
        }
    }
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(name, _)| *name == "id").map(|(_, value)| value.to_owned())
}

// What follows does not depend on the types of the call: it is compiled once, and not for every call.

fn check_idempotency_key(api: &Api, parts: &Parts, call: &CallContext) -> Result<(), VaultError> {
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if call.idempotency_key.is_some() && !api.operations.takes_idempotency_key(&parts.method, matched) {
        // A caller who sends it may rely on it.
        return Err(VaultError::InvalidRequest("Idempotency-Key: this call does not take one. Omit the header".into()));
    }
    Ok(())
}

fn unreadable_query(error: &QueryRejection) -> VaultError {
    VaultError::InvalidRequest(bounded(format!("query: {error}")))
}

fn unreadable_body(error: &serde_json::Error) -> VaultError {
    VaultError::InvalidRequest(format!("body: {}", without_values(error)))
}

/// Reads a bounded JSON body into a buffer that is wiped. An empty body counts as an empty object.
async fn body_text(body: Body, slot: &RequestSlot) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut limited = Limited::new(body, BODY_LIMIT);
    let (mut bytes, mut taken) = (Zeroizing::new(Vec::with_capacity(1024)), 0);
    while let Some(frame) = limited.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                VaultError::TooLarge("a body has at most 64 KiB")
            } else if is_timeout(error.as_ref()) {
                VaultError::BodyTimeout
            } else {
                VaultError::InvalidRequest("the body broke off".into())
            }
        })?;
        if let Some(data) = frame.data_ref() {
            taken = slot.grow_body(bytes.len() + data.len(), taken).await?;
            bytes.extend_from_slice(data);
        }
    }
    if bytes.is_empty() {
        bytes.extend_from_slice(b"{}");
    }
    // serde would also read the fields of an object from an array, by their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(VaultError::InvalidRequest("body: not a JSON object".into()));
    }
    Ok(bytes)
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<BodyTimeout>)
}

/// The message of serde names fields and positions. A message that would quote a value is replaced, because the value may be a secret.
fn without_values(error: &serde_json::Error) -> String {
    let message = error.to_string();
    if message.starts_with("invalid type") || message.starts_with("invalid value") {
        return format!("a value of the wrong type at line {} column {}", error.line(), error.column());
    }
    match message.rsplit_once("`, expected ") {
        Some((variant, known)) if variant.starts_with("unknown variant") => format!("unknown value; expected {known}"),
        _ => bounded(message),
    }
}

/// How much of the request a message may repeat.
fn bounded(message: String) -> String {
    match message.char_indices().nth(400) {
        Some((end, _)) => message.get(..end).unwrap_or_default().to_owned() + "…",
        None => message,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(Cow::Borrowed)
}

/// The part of a `User-Agent` that goes into the audit entry.
fn client(agent: &str) -> String {
    agent.chars().filter(|character| matches!(character, ' '..='~')).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_body_quotes_none_of_its_values() {
        #[derive(Debug, serde::Deserialize)]
        struct Body {
            #[expect(dead_code, reason = "only read")]
            password: u32,
        }
        let error = serde_json::from_str::<Body>(r#"{"password":"hunter2"}"#).unwrap_err();
        assert!(error.to_string().contains("hunter2"));
        assert!(!without_values(&error).contains("hunter2"));

        let error = serde_json::from_str::<crate::domain::Algorithm>(r#""hunter2`, expected more""#).unwrap_err();
        let message = without_values(&error);
        assert!(message.starts_with("unknown value; expected one of `ed25519`, ") && !message.contains("hunter2"), "{message}");
    }
}
