//! The entries of clients whose certificate was refused: bounded in number, whoever causes them.
//!
//! Anybody who reaches the port can be refused as often as they like. Each certificate and reason gets one entry at once, and one more after some
//! minutes with the number of further refusals. Beyond some certificates at the same time, all others share one entry.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{AuditEvent, CertificateId, Operation, Outcome, Principal, Timestamp};

/// A client that was not admitted. Nothing about it is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRefusal {
    /// Its certificate, if it sent one.
    pub certificate: Option<CertificateId>,
    /// What the certificate says, bounded.
    pub description: String,
    /// Why it was refused, from a closed set.
    pub reason: &'static str,
    /// The request that was answered with status 401. `None` for a refused handshake.
    pub request_id: Option<String>,
}

/// What the refusals of one entry have in common.
type Kind = (Option<CertificateId>, &'static str);

/// The refusals of the current window.
#[derive(Debug, Default)]
pub(super) struct RefusedClients(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    begin: i64,
    kinds: HashMap<Kind, Counted>,
}

/// The refusals of one kind.
#[derive(Debug)]
struct Counted {
    /// The first one that has no entry yet.
    first: AuditEvent,
    /// Refusals without an entry.
    unwritten: u64,
    /// Whether the kind has an entry in this window.
    written: bool,
}

impl RefusedClients {
    /// Counts a refusal. Its entry follows with [`Self::take`].
    pub(super) fn add(&self, at: Timestamp, policy_revision: Arc<str>, refused: ClientRefusal) {
        let ClientRefusal { certificate, description, reason, request_id } = refused;
        let mut window = self.lock();
        let kind = (certificate, reason);
        let many = window.kinds.len() >= MAX_KINDS && !window.kinds.contains_key(&kind);
        let kind = if many { OTHERS } else { kind };
        let event = || AuditEvent {
            outcome: Outcome::Denied,
            reason: Some(kind.1.to_owned()),
            subject: (!many).then_some(description),
            request_id: request_id.filter(|_| !many).map(Into::into),
            ..AuditEvent::new(at, Principal::unauthenticated(kind.0), Operation::RefuseClient, policy_revision)
        };
        let counted = window.kinds.entry(kind).or_insert_with(|| Counted { first: event(), unwritten: 0, written: false });
        counted.unwritten = counted.unwritten.saturating_add(1);
    }

    /// Takes the entries that are due: the first one of each kind, and, at the end of a window or of the vault, those that count the others.
    pub(super) fn take(&self, now: Timestamp, is_end: bool) -> Vec<AuditEvent> {
        let mut window = self.lock();
        let begin = now.seconds() - now.seconds().rem_euclid(WINDOW_SECONDS);
        let ends = is_end || window.begin != begin;
        let due = window.kinds.values_mut().filter(|counted| counted.unwritten > 0 && (ends || !counted.written));
        let events = due.map(|counted| {
            let number = std::mem::take(&mut counted.unwritten);
            // The entry that counts is not about one request.
            let request_id = counted.first.request_id.take().filter(|_| number == 1 && !counted.written);
            counted.written = true;
            AuditEvent { count: (number > 1).then_some(number), request_id, ..counted.first.clone() }
        });
        let events = events.collect();
        if ends {
            *window = Window { begin, kinds: HashMap::new() };
        }
        events
    }

    /// Returns an entry that could not be written. It is added to the refusals of its kind.
    pub(super) fn restore(&self, event: AuditEvent) {
        let mut window = self.lock();
        let reason = window.kinds.keys().map(|(_, reason)| *reason).find(|reason| event.reason.as_deref() == Some(*reason));
        let kind = (event.principal.certificate, reason.unwrap_or(OTHERS.1));
        // While nothing can be written, the kinds of several windows come together.
        let kind = if window.kinds.len() > 2 * MAX_KINDS { OTHERS } else { kind };
        let number = event.count.unwrap_or(1);
        let counted = window.kinds.entry(kind).or_insert(Counted { first: event, unwritten: 0, written: false });
        (counted.unwritten, counted.written) = (counted.unwritten.saturating_add(number), false);
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds in a window. In each, a kind has at most two entries.
const WINDOW_SECONDS: i64 = 600;
/// Kinds in a window, besides [`OTHERS`].
const MAX_KINDS: usize = 10;
/// The kind of all refusals beyond.
const OTHERS: Kind = (None, "several");

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(certificate: u8, reason: &'static str) -> ClientRefusal {
        ClientRefusal { certificate: Some([certificate; 32]), description: "subject CN=x".into(), reason, request_id: Some("r".into()) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn add(clients: &RefusedClients, second: i64, certificate: u8) {
        clients.add(at(second), "p".into(), refused(certificate, "untrusted"));
    }

    #[test]
    fn the_first_refusal_has_an_entry_at_once_and_the_others_share_one_at_the_end_of_the_window() {
        let clients = RefusedClients::default();
        assert_eq!(clients.take(at(0), false), []);
        add(&clients, 1, 1);
        let first = clients.take(at(2), false);
        let [event] = first.as_slice() else { panic!("{first:?}") };
        assert_eq!((event.outcome, event.reason.as_deref(), event.count), (Outcome::Denied, Some("untrusted"), None));
        assert_eq!((&*event.principal.name, event.principal.certificate), ("unauthenticated", Some([1; 32])));
        assert_eq!((event.request_id.as_deref(), event.subject.as_deref()), (Some("r"), Some("subject CN=x")));
        (0..5).for_each(|second| add(&clients, 3 + second, 1));
        assert_eq!(clients.take(at(599), false), []);
        let counted = clients.take(at(600), false);
        assert_eq!(counted.iter().map(|event| (event.count, event.request_id.as_deref())).collect::<Vec<_>>(), [(Some(5), None)]);
        assert_eq!(clients.take(at(601), false), []);
        add(&clients, 602, 1);
        assert_eq!(clients.take(at(603), false).len(), 1, "a new window");
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_no_refusal_is_uncounted() {
        let clients = RefusedClients::default();
        let (mut entries, mut calls) = (0, 0);
        let mut take = |now, is_end| {
            for event in clients.take(at(now), is_end) {
                entries += 1;
                calls += event.count.unwrap_or(1);
            }
        };
        take(0, false);
        for second in 0..500 {
            (0..40).for_each(|certificate| add(&clients, second, certificate));
            take(second, false);
        }
        take(501, true);
        assert_eq!((entries, calls), (2 * (MAX_KINDS + 1), 500 * 40));
    }
}
