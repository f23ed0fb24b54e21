//! Rate limit of refusal entries: above a rate, the refusals of a principal become one counted entry for each kind and second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{AuditEvent, NodeName, Operation};

/// The refusals of the current second, by principal.
pub(super) struct RefusalThrottle {
    /// Refusals of one principal that are written individually each second.
    per_second: u32,
    windows: Mutex<HashMap<Arc<str>, Window>>,
}

/// The refusals of one principal in one second.
#[derive(Default)]
struct Window {
    second: i64,
    /// Refusals written individually.
    written: u32,
    /// For each kind of refusal above the rate: the entry that represents it, with its count.
    counted: HashMap<RefusalKind, AuditEvent>,
}

/// What all refusals represented by one counted entry have in common. It contains the node, so that the auditors of the node see the entry.
type RefusalKind = (Operation, Option<String>, Option<NodeName>);

fn kind(event: &AuditEvent) -> RefusalKind {
    (event.operation, event.reason.clone(), event.node.clone())
}

/// The reason in the entry that represents refusals of several kinds.
const SEVERAL: &str = "several";

impl RefusalThrottle {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, windows: Mutex::default() }
    }

    /// Whether this refusal is above the rate and was only counted.
    pub(super) fn counted(&self, event: &AuditEvent) -> bool {
        let mut windows = self.lock();
        let window = windows.entry(Arc::clone(&event.principal.name)).or_default();
        let second = event.at.seconds();
        // Calls that began in an earlier second can end after later ones. Far in the past, the clock was set.
        if second > window.second || second < window.second - CLOCK_WAS_SET {
            (window.second, window.written) = (second, 0);
        }
        if window.written < self.per_second {
            window.written += 1;
            return false;
        }
        // The counted entry omits the fields in which the refusals differ.
        let counted_entry = || AuditEvent {
            key: None,
            algorithm: None,
            digest: None,
            subject: None,
            request_id: None,
            trace_id: None,
            client: None,
            count: Some(0),
            ..event.clone()
        };
        // A caller chooses some of what distinguishes the kinds, such as the node. Beyond as many kinds as entries, all become one.
        let many = window.counted.len() > self.per_second as usize && !window.counted.contains_key(&kind(event));
        let counted_entry = || {
            let entry = counted_entry();
            if many { AuditEvent { node: None, operation: Operation::NoSuchCall, reason: Some(SEVERAL.into()), ..entry } } else { entry }
        };
        let kind = if many { (Operation::NoSuchCall, Some(SEVERAL.into()), None) } else { kind(event) };
        let counted = window.counted.entry(kind).or_insert_with(counted_entry);
        counted.count = counted.count.map(|count| count.saturating_add(1));
        true
    }

    /// Takes the counted entries, and removes the principals without a refusal in the newest second.
    pub(super) fn drain(&self) -> Vec<AuditEvent> {
        let mut windows = self.lock();
        let events = windows.values_mut().flat_map(|window| std::mem::take(&mut window.counted).into_values()).collect();
        let newest = windows.values().map(|window| window.second).max().unwrap_or(0);
        windows.retain(|_, window| window.second == newest);
        events
    }

    /// Returns an entry that could not be written. Its count is added to that of later refusals of the same kind.
    pub(super) fn restore(&self, event: AuditEvent) {
        let mut windows = self.lock();
        let window = windows.entry(Arc::clone(&event.principal.name)).or_default();
        let (kind, count) = (kind(&event), event.count.unwrap_or(1));
        let kept = window.counted.entry(kind).or_insert(AuditEvent { count: Some(0), ..event });
        kept.count = kept.count.map(|kept| kept.saturating_add(count));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds. No call takes that long.
const CLOCK_WAS_SET: i64 = 600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Principal, Timestamp};

    fn refusal(principal: &str, second: i64) -> AuditEvent {
        let principal = Principal { name: principal.into(), certificate: None };
        AuditEvent {
            reason: Some("forbidden".into()),
            ..AuditEvent::new(Timestamp::from_micros(second * 1_000_000), principal, Operation::Sign, "p".into())
        }
    }

    #[test]
    fn refusals_above_the_rate_become_one_entry_and_other_principals_are_unaffected() {
        let throttle = RefusalThrottle::new(2);
        let counted: Vec<bool> = (0..5).map(|_| throttle.counted(&refusal("dns:loud", 1))).collect();
        assert_eq!(counted, [false, false, true, true, true]);
        assert!(!throttle.counted(&refusal("dns:quiet", 1)));
        let entries = throttle.drain();
        assert_eq!(entries.iter().map(|e| (e.principal.name.as_ref(), e.count)).collect::<Vec<_>>(), [("dns:loud", Some(3))]);
        assert!(throttle.drain().is_empty());
        assert!(!throttle.counted(&refusal("dns:loud", 2)), "the rate applies to each second");
    }

    #[test]
    fn calls_that_began_in_earlier_seconds_do_not_bypass_the_rate() {
        let throttle = RefusalThrottle::new(2);
        let written = (0..100).filter(|number| !throttle.counted(&refusal("dns:loud", 1_000 + number % 2))).count();
        assert_eq!(written, 3, "one in the first second, two in the next");
        assert!(!throttle.counted(&refusal("dns:loud", 1)), "a clock that was set back does not count for hours");
    }

    #[test]
    fn refusals_that_differ_in_their_node_do_not_bypass_the_rate() {
        let throttle = RefusalThrottle::new(2);
        let refused = |number: u32| AuditEvent { node: format!("node{number}").parse().ok(), ..refusal("dns:loud", 1) };
        let written = (0..1_000).filter(|number| !throttle.counted(&refused(*number))).count();
        let entries = throttle.drain();
        assert_eq!(written, 2);
        assert!(entries.len() <= 4, "{} entries", entries.len());
        assert_eq!(entries.iter().filter_map(|entry| entry.count).sum::<u64>(), 998, "none is lost");
    }

    #[test]
    fn a_restored_entry_keeps_its_count() {
        let throttle = RefusalThrottle::new(0);
        assert!(throttle.counted(&refusal("dns:loud", 1)));
        for event in throttle.drain() {
            throttle.restore(event);
        }
        assert!(throttle.counted(&refusal("dns:loud", 2)));
        assert_eq!(throttle.drain().iter().map(|e| e.count).collect::<Vec<_>>(), [Some(2)]);
    }
}
