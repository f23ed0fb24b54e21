//! Checks of the content of the store: its wrapper keys against the configuration, and the clock against its newest entry.

use std::time::Duration;

use crate::{domain::Timestamp, kms::Providers, storage::StoreFacts, vault::active_coverage_fault};

/// Settings of the database with which a confirmed commit can be lost.
pub(super) fn durability(_: &Providers, facts: &StoreFacts, _: Timestamp) -> Vec<String> {
    facts.unsafe_settings.clone()
}

/// A clock that cannot be right.
pub(super) fn clock(_: &Providers, facts: &StoreFacts, now: Timestamp) -> Vec<String> {
    if now < EARLIEST {
        return vec![format!("the clock of this machine says {now}, which is before this program was written")];
    }
    // The one of the database decides: the newest entry can be of another replica, with a wrong clock.
    if let Some(database) = facts.database_clock {
        let is_behind = database.since(now) > TOLERANCE;
        let is_ahead = now.since(database) > TOLERANCE;
        let differs = is_behind.then_some("behind").or(is_ahead.then_some("ahead of"));
        return differs
            .map(|differs| {
                format!("the clock of this machine is more than {} minutes {differs} that of the database", TOLERANCE.as_secs() / 60)
            })
            .into_iter()
            .collect();
    }
    let newest = facts.newest_entry_at.filter(|newest| newest.since(now) > TOLERANCE);
    // Without the time of now, which differs at every look.
    newest.map(|newest| format!("the clock of this machine is behind the newest audit entry, which is of {newest}")).into_iter().collect()
}

/// Patterns that match no registered wrapper key. None if no wrapper key is registered yet.
pub(super) fn patterns(providers: &Providers, facts: &StoreFacts, _: Timestamp) -> Vec<String> {
    if facts.wrapper_keys.is_empty() {
        return Vec::new();
    }
    let unmatched = providers.unmatched(&facts.wrapper_keys).into_iter();
    unmatched.map(|(option, pattern)| format!("the pattern {pattern:?} of [wrapper] {option} matches no registered wrapper key")).collect()
}

/// An active wrapper key without a wrap of every key, while no rotation runs.
pub(super) fn rotation(_: &Providers, facts: &StoreFacts, _: Timestamp) -> Vec<String> {
    active_coverage_fault(facts).into_iter().collect()
}

/// 2026-01-01T00:00:00Z.
const EARLIEST: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// Clocks of two machines differ, and so does one clock before and after NTP corrected it.
const TOLERANCE: Duration = Duration::from_mins(5);
