//! Why a call brought no result, for a person and, as a problem document, for a program.

use std::{error::Error, fmt::Write as _};

use serde_json::{Value, json};

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was given cannot be used; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// No connection, or none that the vault accepted.
    #[error("cannot connect to {url}: {reason}")]
    CannotConnect {
        /// Where to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The connection ended, or the time was up, before the answer came: the call may have been done.
    #[error("no answer from {url}: {reason}; the call may have been done")]
    NoAnswer {
        /// From where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The vault answered with a problem document.
    #[error("{}", .0.text())]
    Problem(Box<Problem>),
    /// The answer is neither what was asked for nor a problem document: no vault, or one of another version.
    #[error("the answer (HTTP {status}) is not one of a vault: {reason}")]
    Unreadable {
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
}

/// An RFC 9457 problem document of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The word to act on.
    pub code: String,
    /// What happened, in a sentence; may be empty.
    pub detail: String,
    /// Whether the same call can succeed later.
    pub retryable: bool,
    /// The vault's id of the call, as in its audit log.
    pub request_id: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The document as received.
    pub document: Value,
}

impl Problem {
    /// Reads the body of an answer that is not a success; `None` if it is no problem document.
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

    /// For a person: what happened, what to do, and what to look for in the log.
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
    /// For a program: the vault's problem document, or one of the same shape.
    pub fn document(&self) -> Value {
        let (code, retryable) = match self {
            Self::Problem(problem) => return problem.document.clone(),
            Self::Usage(_) => ("usage", false),
            Self::CannotConnect { .. } => ("cannot_connect", true),
            Self::NoAnswer { .. } => ("no_answer", true),
            Self::Unreadable { .. } => ("unreadable_answer", false),
        };
        json!({ "code": code, "detail": self.to_string(), "retryable": retryable })
    }
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Wrappers like io::Error repeat what they wrap.
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
    fn a_problem_tells_what_to_do_and_whether_to_try_again() {
        let body = br#"{"type":"about:blank","title":"Frozen","status":503,"code":"frozen","detail":"the vault is frozen",
            "retryable":true,"request_id":"r-1","remedy":"unfreeze"}"#;
        let problem = Problem::decode(503, body).unwrap();
        assert!(problem.retryable);
        assert_eq!(problem.text(), "frozen: the vault is frozen (HTTP 503)\n  to do:     unfreeze\n  try again: yes\n  request:   r-1");
        let error = ClientError::Problem(Box::new(problem));
        assert_eq!(error.document()["remedy"], "unfreeze");
    }

    #[test]
    fn what_is_left_out_is_never_read_as_retryable() {
        let problem = Problem::decode(404, br#"{"code":"not_found","title":"No such key"}"#).unwrap();
        assert_eq!((problem.detail.as_str(), problem.retryable), ("No such key", false));
        for body in [&b""[..], b"<html>", b"{}", br#"{"code":7}"#, b"[]"] {
            assert_eq!(Problem::decode(500, body), None);
        }
    }
}
