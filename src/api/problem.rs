//! Problem documents (RFC 9457) from one table: code, status, whether to retry, and what to do. The only file with status codes.

use std::{collections::BTreeMap, fmt::Write as _};

use axum::{
    Extension, Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response as ResponseDoc, ResponseBuilder},
};

use crate::vault::{CallContext, Code, Reason, VaultError};

/// What a code means for a caller.
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// The HTTP status.
    pub status: u16,
    /// Whether the same call may succeed later without any change by a person. Canton retries such a call for ever.
    pub retryable: bool,
    /// A short summary.
    pub title: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const fn final_(code: Code, status: u16, title: &'static str, remedy: &'static str) -> CodeInfo {
    CodeInfo { code, status, retryable: false, title, remedy }
}

const fn retry(code: Code, status: u16, title: &'static str, remedy: &'static str) -> CodeInfo {
    CodeInfo { code, status, retryable: true, title, remedy }
}

/// Every code, once. `docs/errors.md` is generated from this table.
pub const CODES: &[CodeInfo] = &[
    final_(Code::InvalidRequest, 400, "The request is malformed", "Correct the request. The detail names the fault."),
    final_(Code::TooLarge, 413, "The request is too large", "Keep within the limits of the call."),
    retry(Code::RequestTimeout, 408, "The body did not arrive in time", "Send headers and body together. Check the network."),
    final_(Code::NoSuchRoute, 404, "The path does not exist", "See /openapi.json."),
    final_(Code::MethodNotAllowed, 405, "The path does not support this method", "See /openapi.json."),
    final_(
        Code::Unauthenticated,
        401,
        "The client certificate is not accepted",
        "Use a certificate that is valid, not revoked, and issued by a CA that is trusted for its name.",
    ),
    final_(
        Code::Forbidden,
        403,
        "The principal lacks the role",
        "Ask for the role that the detail names. POST /v1/authorize explains decisions.",
    ),
    final_(
        Code::NotFound,
        404,
        "The object does not exist",
        "Check the id. An object of a node on which this principal has no role is reported as not found too.",
    ),
    final_(
        Code::UnknownNode,
        422,
        "The node is not declared",
        "Add it to `nodes` in the configuration. The vault reads it without a restart.",
    ),
    final_(Code::InvalidAttributes, 422, "The attributes are not valid together", "Correct the request. The detail names the fault."),
    final_(
        Code::InvalidMaterial,
        422,
        "The material is not a supported key",
        "Check the format, spec and password. The detail names the fault.",
    ),
    final_(
        Code::UnsupportedAlgorithm,
        422,
        "The key does not support this algorithm",
        "Choose an algorithm for the spec and purpose of the key.",
    ),
    final_(
        Code::DecryptionFailed,
        422,
        "The ciphertext does not decrypt",
        "The ciphertext is for another key or algorithm, or is damaged. All causes have this code.",
    ),
    final_(Code::KeyDisabled, 409, "The key is disabled", "The role key-admin can enable it."),
    final_(Code::KeySuperseded, 409, "The key is superseded", "Use its successor. The superseded key still decrypts."),
    final_(
        Code::KeyQuarantined,
        409,
        "The key is quarantined",
        "The key failed a check. Read the reason in the audit log, then restore a backup or enable the key.",
    ),
    final_(
        Code::KeyPendingDeletion,
        409,
        "The deletion of the key is scheduled",
        "The role key-admin can cancel the deletion until it is due.",
    ),
    final_(
        Code::KeyDestroyed,
        409,
        "The key is destroyed",
        "Its material is deleted. Import it again with `replace_destroyed` if you have it. A backup may contain it.",
    ),
    final_(Code::InvalidKeyState, 409, "The state of the key does not allow this operation", "The detail names the state. Read the key."),
    final_(
        Code::PermanentKey,
        409,
        "The key is permanent",
        "A permanent key cannot be rotated, superseded or deleted. One that was imported by mistake and never used can be withdrawn.",
    ),
    final_(
        Code::KeyWasUsed,
        409,
        "The key was used",
        "A key that was used cannot be withdrawn. A long-term key can be deleted, any key can be disabled.",
    ),
    final_(
        Code::KeyUseUnknown,
        409,
        "The log does not prove that the key was never used",
        "The detail names what is missing or was changed. Disable the key, and find out who could write the database.",
    ),
    final_(
        Code::NotImported,
        409,
        "The key was not imported",
        "Only an imported key can be withdrawn. A long-term key can be deleted, any key can be disabled.",
    ),
    final_(Code::KeyHasSuccessor, 409, "The key was rotated before", "Use the successor that the detail names, or rotate it."),
    final_(
        Code::TopologyOnly,
        409,
        "The key signs topology transactions only",
        "Send the prepared transaction to sign-topology. The role key-admin can remove the restriction.",
    ),
    final_(
        Code::InvalidTopology,
        422,
        "The bytes are not a topology transaction that the vault signs",
        "Supply the prepared transaction (.prep), unchanged. The detail names the fault.",
    ),
    final_(Code::NotExportable, 409, "The key is not exportable", "A key is exportable only if it was created so."),
    final_(
        Code::KeyExists,
        409,
        "The key exists with another attribute, or on another node",
        "The detail names the difference. The name can be changed. A key that was imported wrongly can be withdrawn, and then imported again with `replace_destroyed`.",
    ),
    final_(
        Code::WrapperKeyExists,
        409,
        "The wrapper key is already registered",
        "An alias or a replica of a registered wrapper key is the same wrapper key.",
    ),
    final_(
        Code::InvalidWrapperKeyState,
        409,
        "The state of the wrapper key does not allow this operation",
        "Read the state of the wrapper key.",
    ),
    final_(
        Code::WrapperKeyInUse,
        409,
        "Keys depend on the wrapper key",
        "Rotate to another wrapper key, and check that it works. The detail names keys.",
    ),
    final_(
        Code::RotationIncomplete,
        409,
        "Keys have no verified wrap under the active wrapper key, and no rotation runs",
        "A rotation was aborted or failed for some keys. Start one to the active wrapper key: it processes the keys that are left. A reason of `/readyz` and `/v1/status`; no call gets it.",
    ),
    final_(
        Code::SinkFailing,
        409,
        "An audit sink does not confirm entries",
        "Check the sink that the detail names. It gets the entries later. A reason of `/readyz` and `/v1/status`; no call gets it.",
    ),
    final_(
        Code::NothingToRemove,
        409,
        "No entry of the audit log can be removed now",
        "The detail says why: `[audit] minimum_retention`, an audit sink, or the archive. Repeat the removal later.",
    ),
    final_(
        Code::EntriesRemoved,
        410,
        "The entries of the audit log were archived and removed",
        "Read them in the archive. An export begins after the last removed entry, which the detail names; their proofs are still served.",
    ),
    final_(Code::JobRunning, 409, "A job over all keys is running", "Wait until it ends, or abort it."),
    final_(Code::JobEnded, 409, "The job has ended", "Read the state of the job."),
    final_(
        Code::IdempotencyMismatch,
        409,
        "The idempotency key was used with another body",
        "Use a new Idempotency-Key for a new request.",
    ),
    final_(Code::Conflict, 409, "Another operation changed the object", "Read the object again, then decide."),
    final_(
        Code::WrapperDenied,
        502,
        "The KMS denies the use of the wrapper key",
        "The reason says whether a policy denies the call, or the key is disabled or pending deletion.",
    ),
    final_(
        Code::WrapperKeyNotFound,
        502,
        "The wrapper key does not exist in the KMS",
        "Check the reference, the account and the region. If the KMS key was deleted, use a backup under another wrapper key.",
    ),
    final_(
        Code::WrapperCredentialsRejected,
        502,
        "The vault has no credentials that the KMS accepts",
        "The reason says what is wrong with the credentials, the role or the token of the vault. The wrapper key may be in order.",
    ),
    final_(
        Code::WrapperMisconfigured,
        502,
        "The wrapper key or its configuration is not valid",
        "Correct what the detail names: the reference, a file, or the kind of the key.",
    ),
    final_(
        Code::WrapperNotAllowed,
        403,
        "The configuration does not allow this wrapper key",
        "If the wrapper key is yours, add it to `[wrapper] allowed`.",
    ),
    retry(Code::WrapperUnavailable, 503, "The KMS cannot be reached", "Retry later. Keys in the cache still work."),
    retry(
        Code::AuditUnavailable,
        503,
        "The audit log cannot be written",
        "Retry later. An operator must check the disk of the store, and the required audit sinks.",
    ),
    retry(
        Code::OutcomeUnknown,
        503,
        "The outcome of the change is not known yet",
        "Repeat the call; repeat a creation with the same Idempotency-Key. Or read the state with GET. An operator must check the disk of the store, and the required audit sinks.",
    ),
    retry(Code::StorageUnavailable, 503, "The store cannot be read", "Retry later. An operator must check the store."),
    retry(Code::Frozen, 503, "The vault is frozen", "The role wrapper-admin can unfreeze it."),
    retry(Code::ShuttingDown, 503, "The vault is shutting down", "Retry later, or at another replica."),
    retry(Code::TooManyRequests, 429, "Too many requests", "Retry later at a lower rate. Other principals are not affected."),
    final_(Code::Internal, 500, "An internal error of the vault", "Report it with the request_id. Nothing was changed."),
];

/// A problem document, `application/problem+json`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// A reference to the documentation of the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The details of this occurrence.
    pub detail: String,
    /// The code, for programs.
    pub code: Code,
    /// Whether the same call may succeed later without any change by a person.
    pub retryable: bool,
    /// What to do about it.
    pub remedy: String,
    /// Of a failed call to the KMS: the reason. Several reasons have one code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// The header `Retry-After` of a retryable document, in seconds.
    #[serde(skip)]
    pub retry_after: u32,
}

impl Problem {
    /// The document for a code.
    pub fn new(code: Code, detail: impl Into<String>, request_id: &str) -> Self {
        // A test checks that every code is in the table.
        let fallback = const { &final_(Code::Internal, 500, "The vault is at fault", "Report it.") };
        let meaning = CODES.iter().find(|meaning| meaning.code == code).unwrap_or(fallback);
        Self {
            kind: format!("/docs/errors#{code}"),
            title: meaning.title.to_owned(),
            status: meaning.status,
            detail: detail.into(),
            code,
            retryable: meaning.retryable,
            remedy: meaning.remedy.to_owned(),
            reason: None,
            request_id: request_id.to_owned(),
            retry_after: 1,
        }
    }

    /// The document for a refusal of the vault.
    pub fn of(error: &VaultError, request_id: &str) -> Self {
        let retry_after = if let VaultError::TooMany { retry_after, .. } = error { *retry_after } else { 1 };
        let document = Self { retry_after, ..Self::new(error.code(), error.to_string(), request_id) };
        match error.reason() {
            Some(reason) => Self { reason: Some(reason), remedy: reason.remedy().to_owned(), ..document },
            None => document,
        }
    }
}

/// A refusal of the vault, as the answer to a call.
pub(super) trait IntoProblem<T> {
    fn or_problem(self, call: &CallContext) -> Result<T, Problem>;
}

impl<T> IntoProblem<T> for Result<T, VaultError> {
    fn or_problem(self, call: &CallContext) -> Result<T, Problem> {
        self.map_err(|error| Problem::of(&error, &call.request_id))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retryable.then(|| HeaderValue::from(self.retry_after));
        let refusal = Refusal { code: self.code, reason: self.reason, cause: self.detail.clone() };
        let mut response = (status, Extension(refusal), Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// What the log line of a refused or failed call says. It travels with the response.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The code of the problem document.
    pub(super) code: Code,
    /// The reason of the KMS.
    pub(super) reason: Option<Reason>,
    /// The detail of the problem document, with the causes.
    pub(super) cause: String,
}

/// A problem document without the id of the request. The id is added where the request is traced.
#[derive(Debug, Clone)]
pub(super) struct Anonymous(Problem);

impl Anonymous {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail, ""))
    }

    /// Writes the pending document of `response`, if there is one.
    pub(super) fn name(response: &mut Response, request_id: &str) {
        if let Some(Self(problem)) = response.extensions_mut().remove() {
            let (parts, body) = Problem { request_id: request_id.to_owned(), ..problem }.into_response().into_parts();
            response.headers_mut().extend(parts.headers);
            response.extensions_mut().extend(parts.extensions);
            *response.body_mut() = body;
        }
    }
}

impl IntoResponse for Anonymous {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Extension(self)).into_response()
    }
}

/// Every status of the table, for the OpenAPI of every call.
pub(super) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<ResponseDoc>> {
        let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
        for meaning in CODES {
            by_status.entry(meaning.status).or_default().push(meaning.code.as_str());
        }
        let document = |(status, codes): (u16, Vec<&str>)| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new().description(codes.join(", ")).content("application/problem+json", content).build();
            (status.to_string(), RefOr::T(response))
        };
        by_status.into_iter().map(document).collect()
    }
}

/// The table as a Markdown page.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Error codes\n\nMade from the table in `src/api/problem.rs`; a test compares. `retryable` means: the same call may succeed later\nwithout anybody changing anything.\n\n| code | status | retryable | what it is | what to do |\n|---|---|---|---|---|\n",
    );
    for CodeInfo { code, status, retryable, title, remedy } in CODES {
        let retryable = if *retryable { "yes" } else { "no" };
        let _ = writeln!(page, "| `{code}` | {status} | {retryable} | {title} | {remedy} |");
    }
    page.push_str("\n## Reasons of the KMS\n\nThe field `reason` of a problem document, of the faults in `status` and `/readyz`, and of the log; from the table in\n");
    page.push_str("`src/kms/reason.rs`. A call with a reason has the remedy of the reason, not that of its code.\n\n");
    page.push_str("| reason | code | retryable | what to do |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let code = Code::of_wrapper(*reason);
        let retryable = if CODES.iter().any(|meaning| meaning.code == code && meaning.retryable) { "yes" } else { "no" };
        let _ = writeln!(page, "| `{reason}` | `{code}` | {retryable} | {} |", reason.remedy());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table_once() {
        for code in Code::ALL {
            assert_eq!(CODES.iter().filter(|meaning| meaning.code == *code).count(), 1, "{code}");
        }
    }

    /// The closed list of retryable codes. Canton retries such a call for ever.
    #[test]
    fn retryable_is_exactly_what_time_can_cure() {
        let retryable: Vec<&str> = CODES.iter().filter(|meaning| meaning.retryable).map(|meaning| meaning.code.as_str()).collect();
        let expected = [
            "request_timeout",
            "wrapper_unavailable",
            "audit_unavailable",
            "outcome_unknown",
            "storage_unavailable",
            "frozen",
            "shutting_down",
            "too_many_requests",
        ];
        assert_eq!(retryable, expected);
    }

    #[test]
    fn the_page_of_codes_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == documentation(), "renew it: KEYVAULT_WRITE_DOCUMENTS=1 cargo test --lib");
    }
}
