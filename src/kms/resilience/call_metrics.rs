//! The metrics of one attempt.

use std::{sync::Arc, time::Duration};

use crate::kms::{Denial, Outage, WrapperError};

/// Counts an attempt in a region by its result. For an attempt that was sent, also its duration.
pub(super) fn measure<T>(operation: &'static str, region: &Arc<str>, took: Option<Duration>, answer: &Result<T, WrapperError>) {
    if let Some(took) = took {
        metrics::histogram!("keyvault_kms_call_seconds", "operation" => operation, "region" => Arc::clone(region)).record(took);
    }
    metrics::counter!("keyvault_kms_calls_total", "operation" => operation, "region" => Arc::clone(region), "outcome" => outcome(answer))
        .increment(1);
}

/// The result of an attempt as a word.
pub(in crate::kms) fn outcome<T>(answer: &Result<T, WrapperError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(WrapperError::Denied { denial: Denial::Credentials(_), .. }) => "credentials",
        Err(WrapperError::Denied { .. }) => "denied",
        Err(WrapperError::Invalid { .. }) => "invalid",
        Err(WrapperError::NotAllowed { .. } | WrapperError::Unfit { .. } | WrapperError::Misconfigured { .. }) => "misconfigured",
        Err(WrapperError::Unavailable { outage, .. }) => match outage {
            Outage::Unreachable => "unreachable",
            Outage::TimedOut | Outage::NotUsableYet => "timed_out",
            Outage::Throttled => "throttled",
            Outage::ServerError => "server_error",
            Outage::Sealed => "sealed",
            Outage::TokenAbsent => "token_absent",
            Outage::TlsFailed => "tls_failed",
            Outage::CredentialsUnavailable => "credentials_unavailable",
            Outage::NotTried => "not_tried",
        },
    }
}
