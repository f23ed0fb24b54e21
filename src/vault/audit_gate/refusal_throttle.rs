//! Bounded refusal floods: beyond a rate, a principal's refusals become one counted entry per second and kind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::{AuditEvent, NodeName, Operation};

/// Refusals of the running second, by principal.
pub(in crate::vault) struct RefusalThrottle {
    /// So many a second are written one by one.
    one_by_one: u32,
    seen: Mutex<HashMap<Arc<str>, RefusalWindow>>,
}

#[derive(Default)]
struct RefusalWindow {
    at: i64,
    written: u32,
    /// The first event of each kind beyond the rate, and how many it stands for.
    counted: HashMap<RefusalKind, AuditEvent>,
}

/// What refusals have in common that one entry stands for: the node, too, so that its auditors see them.
type RefusalKind = (Operation, Option<String>, Option<NodeName>);

fn kind(event: &AuditEvent) -> RefusalKind {
    (event.operation, event.reason.clone(), event.node.clone())
}

impl RefusalThrottle {
    pub(in crate::vault) fn new(one_by_one: u32) -> Self {
        Self { one_by_one, seen: Mutex::default() }
    }

    /// Whether this refusal was only counted, since its principal had its share of this second.
    pub(in crate::vault) fn counted(&self, event: &AuditEvent) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = seen.entry(Arc::clone(&event.principal.name)).or_default();
        if mine.at != event.at.seconds() {
            (mine.at, mine.written) = (event.at.seconds(), 0);
        }
        if mine.written < self.one_by_one {
            mine.written += 1;
            return false;
        }
        // What differs between the refusals that one entry stands for is left out of it.
        let fresh = || AuditEvent {
            key: None,
            algorithm: None,
            digest: None,
            subject: None,
            request_id: None,
            trace_id: None,
            count: Some(0),
            ..event.clone()
        };
        let counted = mine.counted.entry(kind(event)).or_insert_with(fresh);
        counted.count = counted.count.map(|count| count.saturating_add(1));
        true
    }

    /// The counted entries so far; the map forgets who has been quiet.
    pub(in crate::vault) fn drain(&self) -> Vec<AuditEvent> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let events = seen.values_mut().flat_map(|second| std::mem::take(&mut second.counted).into_values()).collect();
        let newest = seen.values().map(|second| second.at).max().unwrap_or(0);
        seen.retain(|_, second| second.at == newest);
        events
    }

    /// Takes back what could not be written yet.
    pub(in crate::vault) fn restore(&self, event: AuditEvent) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = seen.entry(Arc::clone(&event.principal.name)).or_default();
        let (kind, count) = (kind(&event), event.count.unwrap_or(1));
        let kept = mine.counted.entry(kind).or_insert(AuditEvent { count: Some(0), ..event });
        kept.count = kept.count.map(|kept| kept.saturating_add(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Principal, Timestamp};

    fn refusal(who: &str, second: i64) -> AuditEvent {
        let principal = Principal { name: who.into(), certificate: None };
        AuditEvent {
            reason: Some("forbidden".into()),
            ..AuditEvent::new(Timestamp::from_micros(second * 1_000_000), principal, Operation::Sign, "p".into())
        }
    }

    #[test]
    fn a_flood_becomes_one_entry_a_kind_and_others_are_not_touched() {
        let refusal_throttle = RefusalThrottle::new(2);
        let counted: Vec<bool> = (0..5).map(|_| refusal_throttle.counted(&refusal("dns:loud", 1))).collect();
        assert_eq!(counted, [false, false, true, true, true]);
        assert!(!refusal_throttle.counted(&refusal("dns:quiet", 1)));
        let entries = refusal_throttle.drain();
        assert_eq!(entries.iter().map(|e| (e.principal.name.as_ref(), e.count)).collect::<Vec<_>>(), [("dns:loud", Some(3))]);
        assert!(refusal_throttle.drain().is_empty());
        assert!(!refusal_throttle.counted(&refusal("dns:loud", 2)), "a new second, a new share");
    }

    #[test]
    fn what_could_not_be_written_is_counted_on() {
        let refusal_throttle = RefusalThrottle::new(0);
        assert!(refusal_throttle.counted(&refusal("dns:loud", 1)));
        for event in refusal_throttle.drain() {
            refusal_throttle.restore(event);
        }
        assert!(refusal_throttle.counted(&refusal("dns:loud", 2)));
        assert_eq!(refusal_throttle.drain().iter().map(|e| e.count).collect::<Vec<_>>(), [Some(2)]);
    }
}
