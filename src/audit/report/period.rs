//! Everything that a report says of a period. Entries before it show what is the first use and what is usual.

use std::collections::BTreeSet;

use crate::{
    audit::Entry,
    domain::{Operation, Outcome, Principal, Timestamp},
};

use super::{Anomalies, Calls, Changes, Refusals, Usage};

/// Names of instances and versions that are listed.
const MOST_NAMES: usize = 50;

/// The time of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From this time, inclusive.
    pub from: Timestamp,
    /// Up to this time, exclusive.
    pub to: Timestamp,
}

impl Period {
    /// Its length in microseconds.
    pub const fn micros(self) -> i64 {
        self.to.micros().saturating_sub(self.from.micros())
    }
}

/// The entries of a period, counted.
#[derive(Debug, Clone)]
pub struct PeriodCount {
    /// The period.
    pub period: Period,
    /// What a chart of the time shows: the period, or the part of it since the log began.
    pub shown: Period,
    /// The number of entries before, in and after it.
    pub entries: [u64; 3],
    /// The first and the last entry of the period.
    pub sequences: Option<(u64, u64)>,
    /// The instances that wrote entries of the period, with their versions. At most 50.
    pub programs: BTreeSet<String>,
    /// The work of the vault itself: calls of the principal `system`.
    pub own_work: Calls,
    /// The calls of clients.
    pub usage: Usage,
    /// Those that did not succeed.
    pub refusals: Refusals,
    /// What changed.
    pub changes: Changes,
    /// What was not usual.
    pub anomalies: Anomalies,
}

impl PeriodCount {
    /// No entry yet.
    pub fn new(period: Period) -> Self {
        Self {
            period,
            shown: period,
            entries: [0; 3],
            sequences: None,
            programs: BTreeSet::new(),
            own_work: Calls::default(),
            usage: Usage::new(period),
            refusals: Refusals::new(),
            changes: Changes::new(),
            anomalies: Anomalies::new(),
        }
    }

    /// Adds the next entry of the log.
    pub fn add(&mut self, entry: &Entry) {
        if self.entries == [0; 3] && (self.period.from..self.period.to).contains(&entry.at) {
            self.shown.from = entry.at;
            self.usage = Usage::new(self.shown);
        }
        let [before, inside, after] = &mut self.entries;
        let in_period = if entry.at < self.period.from {
            *before += 1;
            false
        } else if entry.at < self.period.to {
            *inside += 1;
            true
        } else {
            *after += 1;
            return;
        };
        let calls = entry.count.unwrap_or(1);
        self.changes.add(entry, in_period);
        let by_the_vault = entry.principal == *Principal::system().name;
        // A refused client made no call, and the second entry of an intent is the call.
        let is_call = !by_the_vault && entry.operation != Operation::RefuseClient && entry.outcome != Outcome::Intent;
        if is_call {
            self.anomalies.add(entry, calls, in_period);
        }
        if !in_period {
            return;
        }
        self.sequences = Some((self.sequences.map_or(entry.sequence, |(first, _)| first), entry.sequence));
        if self.programs.len() < MOST_NAMES {
            self.programs.insert(format!("{}, version {}", entry.instance, entry.version));
        }
        if by_the_vault {
            self.own_work.add(entry.outcome, calls);
        } else if is_call {
            self.usage.add(entry, calls);
        }
        self.refusals.add(entry, calls);
    }
}
