//! The metrics of the status: the same answer as `/readyz`, set anew for each answer of `/metrics`, so that both agree.

use crate::vault::{Code, Status};

/// The codes that the status may have. A test compares `docs/metrics.md`; a code that is missing here is counted as `other`.
pub const DEGRADED_REASONS: &[&str] = &[
    Code::ShuttingDown.as_str(),
    Code::AuditUnavailable.as_str(),
    Code::StorageUnavailable.as_str(),
    Code::Frozen.as_str(),
    Code::SinkFailing.as_str(),
    Code::RotationIncomplete.as_str(),
    Code::WrapperDenied.as_str(),
    Code::WrapperKeyNotFound.as_str(),
    Code::WrapperCredentialsRejected.as_str(),
    Code::WrapperMisconfigured.as_str(),
    Code::WrapperNotAllowed.as_str(),
    Code::WrapperUnavailable.as_str(),
    OTHER,
];

const OTHER: &str = "other";

/// Sets the gauges.
pub(super) fn set(status: &Status) {
    let frozen = status.reasons.iter().any(|fault| fault.code == Code::Frozen);
    metrics::gauge!("keyvault_ready").set(f64::from(u8::from(status.ready)));
    metrics::gauge!("keyvault_frozen").set(f64::from(u8::from(frozen)));
    for reason in DEGRADED_REASONS {
        let holds = status.reasons.iter().any(|fault| label(fault.code) == *reason);
        metrics::gauge!("keyvault_degraded", "reason" => *reason).set(f64::from(u8::from(holds)));
    }
}

fn label(code: Code) -> &'static str {
    if DEGRADED_REASONS.contains(&code.as_str()) { code.as_str() } else { OTHER }
}
