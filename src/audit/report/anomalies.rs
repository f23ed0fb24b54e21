//! What differs from the time before: a certificate that was never used, calls at a time of the day without calls in the last 28 days, and an hour
//! with far more calls than others.
//!
//! - First use: no earlier entry of the log is of this certificate.
//! - Usual hours: the hours of the day (UTC) in which the certificate made calls in the 28 days before the hour of the call. They are known if it made at
//!   least 50 calls then.
//! - Burst: an hour (UTC) in which a principal made at least 100 calls, and more than 10 times the median of the hours with calls of the 28 days before.

use crate::{
    audit::Entry,
    domain::{Operation, Timestamp},
};

use super::{
    Listed, Tally,
    activity::{Activity, beginning_of, hour_of},
};

/// Certificates and principals that are compared with their past.
const MOST: usize = 4_096;
/// Anomalies of each kind that are listed.
const MOST_LISTED: usize = 200;
/// The calls in 28 days from which usual hours are known.
const KNOWN_FROM: u64 = 50;
/// The least calls of a burst.
const BURST_CALLS: u64 = 100;
/// How many times its median a burst exceeds.
const BURST_FACTOR: u64 = 10;

/// The first call with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstUse {
    /// The sequence number of the entry.
    pub sequence: u64,
    /// The time.
    pub at: Timestamp,
    /// SHA-256 of the certificate, hex.
    pub certificate: String,
    /// The principal.
    pub principal: String,
    /// The operation.
    pub operation: Operation,
}

/// An hour in which a certificate was used and usually is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusualHour {
    /// The sequence number of the first entry.
    pub sequence: u64,
    /// The beginning of the hour.
    pub hour: Timestamp,
    /// SHA-256 of the certificate, hex.
    pub certificate: String,
    /// The principal of the first call.
    pub principal: String,
    /// The calls in the hour.
    pub calls: u64,
    /// The usual hours of the day (UTC).
    pub usual: Vec<u8>,
}

/// An hour with many calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    /// The beginning of the hour.
    pub hour: Timestamp,
    /// The principal.
    pub principal: String,
    /// The calls in the hour.
    pub calls: u64,
    /// Twice the median of the hours before.
    pub twice_the_median: u64,
}

/// The anomalies of a period.
#[derive(Debug, Clone)]
pub struct Anomalies {
    /// First uses of certificates.
    pub first_uses: Listed<FirstUse>,
    /// Uses at unusual hours.
    pub unusual_hours: Listed<UnusualHour>,
    /// Bursts.
    pub bursts: Listed<Burst>,
    certificates: Tally<String, Certificate>,
    principals: Tally<String, Principal>,
}

#[derive(Debug, Clone, Default)]
struct Certificate {
    activity: Activity,
    known: bool,
    /// The row of the hour that is counted now.
    row: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Principal {
    activity: Activity,
    /// Whether the median before the hour that is counted now was computed, and twice this median.
    compared: bool,
    twice_the_median: Option<u64>,
    /// The row of the hour that is counted now.
    row: Option<usize>,
}

impl Anomalies {
    pub(super) fn new() -> Self {
        Self {
            first_uses: Listed::new(MOST_LISTED),
            unusual_hours: Listed::new(MOST_LISTED),
            bursts: Listed::new(MOST_LISTED),
            certificates: Tally::new(MOST),
            principals: Tally::new(MOST),
        }
    }

    /// Calls that were not compared, because there are too many certificates or principals.
    pub fn not_compared(&self) -> u64 {
        self.certificates.others.max(self.principals.others)
    }

    /// Adds the call of an admitted client.
    pub(super) fn add(&mut self, entry: &Entry, calls: u64, in_period: bool) {
        self.add_to_certificate(entry, calls, in_period);
        self.add_to_principal(entry, calls, in_period);
    }

    fn add_to_certificate(&mut self, entry: &Entry, calls: u64, in_period: bool) {
        let Some(digest) = &entry.certificate else { return };
        let Some(certificate) = self.certificates.of(digest.as_str(), calls) else { return };
        if !std::mem::replace(&mut certificate.known, true) && in_period {
            let (certificate, principal) = (digest.clone(), entry.principal.clone());
            let (sequence, at, operation) = (entry.sequence, entry.at, entry.operation);
            self.first_uses.push(FirstUse { sequence, at, certificate, principal, operation });
        }
        let hour = hour_of(entry.at);
        if certificate.activity.begin(hour) {
            certificate.row = None;
        }
        certificate.activity.add(calls);
        if !in_period {
            return;
        }
        if let Some(row) = certificate.row {
            if let Some(row) = self.unusual_hours.items.get_mut(row) {
                row.calls = row.calls.saturating_add(calls);
            }
        } else if certificate.activity.calls_before() >= KNOWN_FROM && !certificate.activity.is_usual(hour) {
            certificate.row = Some(self.unusual_hours.items.len());
            let (certificate, principal, usual) = (digest.clone(), entry.principal.clone(), certificate.activity.usual_hours());
            self.unusual_hours.push(UnusualHour {
                sequence: entry.sequence,
                hour: beginning_of(hour),
                certificate,
                principal,
                calls,
                usual,
            });
        }
    }

    fn add_to_principal(&mut self, entry: &Entry, calls: u64, in_period: bool) {
        let Some(principal) = self.principals.of(entry.principal.as_str(), calls) else { return };
        let hour = hour_of(entry.at);
        if principal.activity.begin(hour) {
            (principal.row, principal.compared) = (None, false);
        }
        principal.activity.add(calls);
        let counted = principal.activity.calls_now();
        if counted < BURST_CALLS || !in_period {
            return;
        }
        if let Some(row) = principal.row {
            if let Some(row) = self.bursts.items.get_mut(row) {
                row.calls = counted;
            }
            return;
        }
        if !std::mem::replace(&mut principal.compared, true) {
            principal.twice_the_median = principal.activity.twice_the_median();
        }
        let Some(twice_the_median) = principal.twice_the_median else { return };
        if counted.saturating_mul(2) > twice_the_median.saturating_mul(BURST_FACTOR) {
            principal.row = Some(self.bursts.items.len());
            self.bursts.push(Burst { hour: beginning_of(hour), principal: entry.principal.clone(), calls: counted, twice_the_median });
        }
    }
}
