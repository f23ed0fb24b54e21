//! Calls of clients: over time, by operation, principal and key. A collapsed refusal counts with its number.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome, Timestamp},
};

use super::{Period, Tally};

/// Principals and keys that are counted one by one.
const MOST: usize = 10_000;
/// Certificates of a principal, or principals of a key, that are counted one by one.
const MOST_NAMES: usize = 100;

/// Calls by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// They succeeded.
    pub ok: u64,
    /// The policy denied them.
    pub denied: u64,
    /// They were permitted and failed.
    pub failed: u64,
}

impl Calls {
    /// All calls.
    pub const fn total(self) -> u64 {
        self.ok.saturating_add(self.denied).saturating_add(self.failed)
    }

    pub(super) const fn add(&mut self, outcome: Outcome, calls: u64) {
        match outcome {
            Outcome::Ok => self.ok = self.ok.saturating_add(calls),
            Outcome::Denied => self.denied = self.denied.saturating_add(calls),
            Outcome::Failed => self.failed = self.failed.saturating_add(calls),
            // The second entry has the outcome.
            Outcome::Intent => {}
        }
    }
}

/// Calls, and when the first and the last of them were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// The calls.
    pub calls: Calls,
    /// The first and the last.
    pub between: Option<(Timestamp, Timestamp)>,
}

impl Use {
    pub(super) fn add(&mut self, entry: &Entry, calls: u64) {
        self.calls.add(entry.outcome, calls);
        let (first, last) = self.between.unwrap_or((entry.at, entry.at));
        self.between = Some((first.min(entry.at), last.max(entry.at)));
    }
}

/// A set of names with a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The names, at most 100.
    pub names: BTreeSet<String>,
    /// Whether there are more.
    pub more: bool,
}

impl Names {
    fn add(&mut self, name: &str) {
        if !self.names.contains(name) {
            if self.names.len() < MOST_NAMES {
                self.names.insert(name.to_owned());
            } else {
                self.more = true;
            }
        }
    }
}

/// What a principal did.
#[derive(Debug, Clone, Default)]
pub struct PrincipalUse {
    /// Its calls.
    pub used: Use,
    /// Its certificates.
    pub certificates: Names,
}

/// What was done with a key: signatures, decryptions, encryptions and exports.
#[derive(Debug, Clone, Default)]
pub struct KeyUse {
    /// The node.
    pub node: Option<NodeName>,
    /// The calls.
    pub used: Use,
    /// The principals.
    pub principals: Names,
}

/// The part of the time that one bar of a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// An hour (UTC), of a period shorter than three days.
    Hour,
    /// A day (UTC), of a period of up to 92 days.
    Day,
    /// Seven days.
    Week,
    /// 28 days, of a period longer than two years.
    FourWeeks,
}

impl Bucket {
    /// Its length in microseconds.
    pub const fn micros(self) -> i64 {
        const HOUR: i64 = 3600 * 1_000_000;
        match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::FourWeeks => 28 * 24 * HOUR,
        }
    }

    /// The part that fits the period.
    pub(super) const fn of(period: Period) -> Self {
        match period.micros() / Self::Day.micros() {
            ..3 => Self::Hour,
            3..=92 => Self::Day,
            93..=730 => Self::Week,
            _ => Self::FourWeeks,
        }
    }
}

/// The calls of clients in a period.
#[derive(Debug, Clone)]
pub struct Usage {
    /// What one number of `over_time` counts.
    pub bucket: Bucket,
    /// The calls, by the beginning of their bucket in microseconds.
    pub over_time: BTreeMap<i64, Calls>,
    /// All calls.
    pub all: Use,
    /// By operation.
    pub by_operation: BTreeMap<Operation, Use>,
    /// By principal.
    pub by_principal: Tally<String, PrincipalUse>,
    /// By key. Only uses of the private key.
    pub by_key: Tally<KeyId, KeyUse>,
}

impl Usage {
    pub(super) fn new(period: Period) -> Self {
        Self {
            bucket: Bucket::of(period),
            over_time: BTreeMap::new(),
            all: Use::default(),
            by_operation: BTreeMap::new(),
            by_principal: Tally::new(MOST),
            by_key: Tally::new(MOST),
        }
    }

    /// Adds the call of a client.
    pub(super) fn add(&mut self, entry: &Entry, calls: u64) {
        let length = self.bucket.micros();
        let begin = entry.at.micros().div_euclid(length).saturating_mul(length);
        self.over_time.entry(begin).or_default().add(entry.outcome, calls);
        self.all.add(entry, calls);
        self.by_operation.entry(entry.operation).or_default().add(entry, calls);
        if let Some(principal) = self.by_principal.of(entry.principal.as_str(), calls) {
            principal.used.add(entry, calls);
            if let Some(certificate) = &entry.certificate {
                principal.certificates.add(certificate);
            }
        }
        let Some(key) = entry.key_id.filter(|_| entry.operation.uses_key()) else { return };
        if let Some(used) = self.by_key.of(&key, calls) {
            used.used.add(entry, calls);
            used.principals.add(&entry.principal);
            if used.node.is_none() {
                used.node.clone_from(&entry.node);
            }
        }
    }
}
