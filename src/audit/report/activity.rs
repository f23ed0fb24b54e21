//! The hours in which somebody was active in the last 28 days, with their numbers of calls. At most 672 numbers for each.

use std::collections::VecDeque;

use crate::domain::Timestamp;

/// The hours of 28 days.
const WINDOW: i64 = 28 * 24;

/// The calls of a principal or certificate, by hour (UTC).
#[derive(Debug, Clone, Default)]
pub(super) struct Activity {
    /// Complete hours with calls, oldest first.
    past: VecDeque<(i64, u64)>,
    /// The calls of `past`, all and by the hour of the day.
    calls: u64,
    by_hour_of_day: [u64; 24],
    /// The hour that is counted now.
    now: Option<(i64, u64)>,
}

/// The number of the hour since 1970.
pub(super) const fn hour_of(at: Timestamp) -> i64 {
    at.seconds().div_euclid(3600)
}

/// The beginning of an hour.
pub(super) const fn beginning_of(hour: i64) -> Timestamp {
    Timestamp::from_micros(hour.saturating_mul(3600 * 1_000_000))
}

impl Activity {
    /// Begins an hour, if it is a later one than the one before, and forgets what is older than 28 days before it. Returns whether it did. An entry
    /// with an earlier time, after the clock was set back, counts in the newest hour.
    pub(super) fn begin(&mut self, hour: i64) -> bool {
        if self.now.is_some_and(|(now, _)| now >= hour) {
            return false;
        }
        if let Some((ended, calls)) = self.now.replace((hour, 0)) {
            self.past.push_back((ended, calls));
            self.count(ended, |count| count.saturating_add(calls));
        }
        while let Some((old, calls)) = self.past.front().copied().filter(|(old, _)| hour.saturating_sub(*old) > WINDOW) {
            self.past.pop_front();
            self.count(old, |count| count.saturating_sub(calls));
        }
        true
    }

    /// Adds calls of the hour that is counted now.
    pub(super) fn add(&mut self, calls: u64) {
        if let Some((_, counted)) = &mut self.now {
            *counted = counted.saturating_add(calls);
        }
    }

    /// The calls of the hour that is counted now.
    pub(super) fn calls_now(&self) -> u64 {
        self.now.map_or(0, |(_, calls)| calls)
    }

    /// The calls of the 28 days before, without the hour that is counted now.
    pub(super) const fn calls_before(&self) -> u64 {
        self.calls
    }

    /// Whether there were calls at the hour of the day of `hour` in the 28 days before.
    pub(super) fn is_usual(&self, hour: i64) -> bool {
        usize::try_from(hour.rem_euclid(24)).ok().and_then(|hour| self.by_hour_of_day.get(hour)).is_some_and(|calls| *calls > 0)
    }

    /// The hours of the day with calls in the 28 days before.
    pub(super) fn usual_hours(&self) -> Vec<u8> {
        (0_u8..24).zip(&self.by_hour_of_day).filter(|(_, calls)| **calls > 0).map(|(hour, _)| hour).collect()
    }

    /// Twice the median number of calls of the hours with calls in the 28 days before. `None` if there is none.
    pub(super) fn twice_the_median(&self) -> Option<u64> {
        let mut counts: Vec<u64> = self.past.iter().map(|(_, calls)| *calls).collect();
        counts.sort_unstable();
        let upper = counts.get(counts.len() / 2)?;
        let lower = counts.get(counts.len().checked_sub(1)? / 2)?;
        Some(upper.saturating_add(*lower))
    }

    fn count(&mut self, hour: i64, change: impl Fn(u64) -> u64) {
        self.calls = change(self.calls);
        if let Some(count) = usize::try_from(hour.rem_euclid(24)).ok().and_then(|hour| self.by_hour_of_day.get_mut(hour)) {
            *count = change(*count);
        }
    }
}
