//! The log lines about faults of wrapper keys: one when a fault begins or becomes another one, more at growing intervals while it lasts, and
//! one when it ends.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{domain::WrapperKeyId, kms::Reason};

/// The faults that were logged: of each wrapper key, and of the registration of the first one (`None`).
#[derive(Default)]
pub(super) struct FaultLog(Mutex<HashMap<Option<WrapperKeyId>, Logged>>);

struct Logged {
    reason: Option<Reason>,
    at: Instant,
    /// The time until the next line.
    pause: Duration,
}

impl FaultLog {
    /// Whether a fault is to be logged now. The reason decides whether it is another one, because the text changes with every attempt.
    pub(super) fn is_due(&self, of: Option<WrapperKeyId>, reason: Option<Reason>, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match all.get(&of).filter(|logged| logged.reason == reason) {
            Some(logged) if now.duration_since(logged.at) < logged.pause => return false,
            Some(logged) => logged.pause.saturating_mul(2).min(LAST_PAUSE),
            None => FIRST_PAUSE,
        };
        all.insert(of, Logged { reason, at: now, pause });
        true
    }

    /// Whether a logged fault ended.
    pub(super) fn ended(&self, of: Option<WrapperKeyId>) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&of).is_some()
    }
}

const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LAST_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_lasts_is_logged_less_and_less_often() {
        let (log, began) = (FaultLog::default(), Instant::now());
        let due = |reason, seconds| log.is_due(None, Some(reason), began + Duration::from_secs(seconds));
        let lines = (0..86_400).step_by(2).filter(|seconds| due(Reason::KeyDisabled, *seconds)).count();
        assert!((25..35).contains(&lines), "{lines} lines in a day");
        assert!(due(Reason::TimedOut, 86_401), "another fault");
        assert!(!due(Reason::TimedOut, 86_402));
        assert!(log.is_due(Some(WrapperKeyId::from_random([1; 6])), Some(Reason::TimedOut), began), "of another wrapper key");
        assert!(log.ended(None) && !log.ended(None));
        assert!(due(Reason::TimedOut, 86_403), "it began again");
    }
}
