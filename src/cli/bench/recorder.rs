//! The results: latencies of successes in a histogram of three significant digits, failures counted by code.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::cli::Failure;

/// The longest latency of the histogram. The timeout of a request is shorter.
const LONGEST: Duration = Duration::from_mins(10);

/// Latencies and failures.
pub(super) struct Recorder {
    /// Nanoseconds, from 1 µs to 10 min.
    latencies: Histogram<u64>,
    /// The number of failures by code.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Recorder {
    /// No results.
    pub(super) fn new() -> Result<Self, Failure> {
        let latencies =
            Histogram::new_with_bounds(1_000, nanoseconds(LONGEST), 3).map_err(|error| Failure::Unexpected(error.to_string()))?;
        Ok(Self { latencies, errors: BTreeMap::new() })
    }

    /// Counts a success.
    pub(super) fn success(&mut self, latency: Duration) {
        self.latencies.saturating_record(nanoseconds(latency));
    }

    /// Counts a failure.
    pub(super) fn failure(&mut self, code: String) {
        *self.errors.entry(code).or_default() += 1;
    }

    /// Adds the results of another thread.
    pub(super) fn merge(&mut self, other: &Self) -> Result<(), Failure> {
        self.latencies.add(&other.latencies).map_err(|error| Failure::Unexpected(error.to_string()))?;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        Ok(())
    }

    /// The number of successes.
    pub(super) fn successes(&self) -> u64 {
        self.latencies.len()
    }

    /// The number of failures.
    pub(super) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The latency that `percent` of the successes did not exceed, in microseconds.
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        microseconds(self.latencies.value_at_percentile(percent))
    }

    /// The longest latency, in microseconds.
    pub(super) fn longest(&self) -> f64 {
        microseconds(self.latencies.max())
    }

    /// The mean latency, in microseconds.
    pub(super) fn mean(&self) -> f64 {
        self.latencies.mean() / 1e3
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits_and_survive_merging() {
        let (mut odd, mut even) = (Recorder::new().unwrap(), Recorder::new().unwrap());
        for i in 1..=10_000u64 {
            let recorder = if i % 2 == 1 { &mut odd } else { &mut even };
            recorder.success(Duration::from_micros(i));
        }
        odd.failure("frozen".into());
        even.failure("frozen".into());
        even.failure("rate_limited".into());
        odd.merge(&even).unwrap();
        assert_eq!((odd.successes(), odd.failures()), (10_000, 3));
        assert_eq!(odd.errors["frozen"], 2);
        for (percent, expected) in [(50.0, 5_000.0), (99.0, 9_900.0), (99.9, 9_990.0), (100.0, 10_000.0)] {
            let seen = odd.percentile(percent);
            assert!((seen / expected - 1.0).abs() < 0.001, "p{percent}: {seen}");
        }
        assert!((odd.mean() / 5_000.5 - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_latency_out_of_bounds_counts_at_the_bound() {
        let mut recorder = Recorder::new().unwrap();
        recorder.success(Duration::ZERO);
        recorder.success(Duration::from_secs(100_000));
        assert_eq!(recorder.successes(), 2);
        assert!(recorder.longest() >= 600e6);
    }
}
