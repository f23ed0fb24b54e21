//! Why a request failed, as text for people and as a problem document for programs.

use std::{error::Error, fmt::Write as _};

use serde_json::{Value, json};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An option or a file is not valid. Nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// No connection could be opened, or the vault rejected it.
    #[error("cannot connect to {url}: {reason}")]
    CannotConnect {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The connection ended or timed out before the response. The operation may have been performed.
    #[error("no answer from {url}: {reason}; the call may have been done")]
    NoAnswer {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The vault responded with a problem document.
    #[error("{}", .0.text())]
    Problem(Box<Problem>),
    /// The response is not in the expected form: the server is not a vault, or a vault of another version.
    #[error("the answer (HTTP {status}) is not one of a vault: {reason}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What is wrong.
        reason: String,
    },
    /// Several URLs were tried, in this order, and none did the call.
    #[error("{}", all_tried(self))]
    NoneDid(Vec<Tried>),
}

/// A URL that was tried, and why it did not do the call.
#[derive(Debug)]
pub struct Tried {
    /// The URL.
    pub url: String,
    /// The reason.
    pub error: ClientError,
}

/// An RFC 9457 problem document of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: String,
    /// What happened, as a sentence. May be empty.
    pub detail: String,
    /// Whether a retry can succeed.
    pub retryable: bool,
    /// The request id, as in the audit log.
    pub request_id: Option<String>,
    /// The remedy.
    pub remedy: Option<String>,
    /// The document as received.
    pub document: Value,
}

impl Problem {
    /// Parses the body of an error response. `None` if it is not a problem document.
    pub fn decode(status: u16, body: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            status,
            code: text("code")?,
            detail: text("detail").or_else(|| text("title")).unwrap_or_default(),
            retryable: document.get("retryable").and_then(Value::as_bool).unwrap_or(false),
            request_id: text("request_id"),
            remedy: text("remedy"),
            document,
        })
    }

    /// The text for people: what happened, the remedy, and the request id.
    fn text(&self) -> String {
        let mut text = format!("{}: {} (HTTP {})", self.code, self.detail, self.status);
        if let Some(remedy) = &self.remedy {
            let _ = write!(text, "\n  to do:     {remedy}");
        }
        let _ = write!(text, "\n  try again: {}", if self.retryable { "yes" } else { "no, it would fail again" });
        if let Some(id) = &self.request_id {
            let _ = write!(text, "\n  request:   {id}");
        }
        text
    }
}

impl ClientError {
    /// The error of all these attempts. That of a single one is the error itself.
    pub(super) fn none_did(mut tried: Vec<Tried>) -> Self {
        match tried.pop() {
            None => Self::Usage("there is no URL to try".into()),
            Some(only) if tried.is_empty() => only.error,
            Some(last) => {
                tried.push(last);
                Self::NoneDid(tried)
            }
        }
    }

    /// The error that says most: itself, or of several attempts the last one after which the call may have been done, or else the last answer.
    pub fn decisive(&self) -> &Self {
        let Self::NoneDid(tried) = self else { return self };
        let weight = |error: &Self| match error {
            Self::NoAnswer { .. } => 3,
            Self::Problem(_) => 2,
            Self::Unreadable { .. } => 1,
            Self::CannotConnect { .. } | Self::Usage(_) | Self::NoneDid(_) => 0,
        };
        tried.iter().map(|tried| &tried.error).max_by_key(|error| weight(error)).unwrap_or(self)
    }

    /// What happened, on one line and without the URL.
    pub fn brief(&self) -> String {
        match self {
            Self::Usage(text) => text.clone(),
            Self::CannotConnect { reason, .. } | Self::NoAnswer { reason, .. } | Self::Unreadable { reason, .. } => reason.clone(),
            Self::Problem(problem) => format!("{}: {}", problem.code, problem.detail),
            Self::NoneDid(_) => self.decisive().brief(),
        }
    }

    /// The document for programs: that of the vault, or one of the same shape. If several URLs were tried, `tried` has all of them.
    pub fn document(&self) -> Value {
        let (code, retryable) = match self {
            Self::NoneDid(tried) => {
                let mut document = self.decisive().document();
                if let Value::Object(fields) = &mut document {
                    let tried = tried.iter().map(|tried| json!({ "url": tried.url, "detail": tried.text() }));
                    fields.insert("tried".into(), tried.collect());
                }
                return document;
            }
            Self::Problem(problem) => return problem.document.clone(),
            Self::Usage(_) => ("usage", false),
            Self::CannotConnect { .. } => ("cannot_connect", true),
            Self::NoAnswer { .. } => ("no_answer", true),
            Self::Unreadable { .. } => ("unreadable_answer", false),
        };
        json!({ "code": code, "detail": self.to_string(), "retryable": retryable })
    }
}

impl Tried {
    /// Why, on one line.
    fn text(&self) -> String {
        let brief = self.error.brief();
        match &self.error {
            ClientError::CannotConnect { .. } => format!("cannot connect: {brief}"),
            ClientError::NoAnswer { .. } => format!("no answer: {brief}; the call may have been done"),
            ClientError::Unreadable { status, .. } => format!("HTTP {status}: {brief}"),
            ClientError::Usage(_) | ClientError::Problem(_) | ClientError::NoneDid(_) => brief,
        }
    }
}

/// The decisive error, then every URL with its reason.
fn all_tried(error: &ClientError) -> String {
    let ClientError::NoneDid(tried) = error else { return error.to_string() };
    let mut text = error.decisive().to_string();
    for (index, tried) in tried.iter().enumerate() {
        let head = if index == 0 { "tried:    " } else { "          " };
        let _ = write!(text, "\n  {head} {}: {}", tried.url, tried.text());
    }
    text
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Wrappers such as `io::Error` repeat the text of their cause.
        if !text.ends_with(&next_text) {
            let _ = write!(text, ": {next_text}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_remedy_and_says_whether_it_is_retryable() {
        let body = br#"{"type":"about:blank","title":"Frozen","status":503,"code":"frozen","detail":"the vault is frozen",
            "retryable":true,"request_id":"r-1","remedy":"unfreeze"}"#;
        let problem = Problem::decode(503, body).unwrap();
        assert!(problem.retryable);
        assert_eq!(problem.text(), "frozen: the vault is frozen (HTTP 503)\n  to do:     unfreeze\n  try again: yes\n  request:   r-1");
        let error = ClientError::Problem(Box::new(problem));
        assert_eq!(error.document()["remedy"], "unfreeze");
    }

    #[test]
    fn a_missing_field_is_never_read_as_retryable() {
        let problem = Problem::decode(404, br#"{"code":"not_found","title":"No such key"}"#).unwrap();
        assert_eq!((problem.detail.as_str(), problem.retryable), ("No such key", false));
        for body in [&b""[..], b"<html>", b"{}", br#"{"code":7}"#, b"[]"] {
            assert_eq!(Problem::decode(500, body), None);
        }
    }
}
