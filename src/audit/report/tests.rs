//! Reports count what a log says: the definitions, with the limits of each.

use super::*;
use crate::{
    audit::{Entry, Source, StatePosition, WrapperKeyChange},
    domain::{AuditEvent, Hex, KeyId, KmsUse, Lifecycle, Operation, Outcome, Principal, StateChange, Timestamp, WrapperState},
};

const HOUR: i64 = 3600 * 1_000_000;
const DAY: i64 = 24 * HOUR;
/// 2026-01-31T00:00:00Z
const BEGIN: i64 = 1_769_817_600_000_000;

/// A log that is written entry by entry.
struct Log {
    count: PeriodCount,
    sequence: u64,
}

impl Log {
    fn new(from: i64, to: i64) -> Self {
        let period = Period { from: Timestamp::from_micros(BEGIN + from), to: Timestamp::from_micros(BEGIN + to) };
        Self { count: PeriodCount::new(period), sequence: 0 }
    }

    fn add(&mut self, at: i64, edit: impl FnOnce(&mut AuditEvent)) {
        self.sequence += 1;
        self.count.add(&entry(self.sequence, at, edit, StatePosition::unchanged(1)));
    }

    fn calls(&mut self, at: i64, principal: &str, certificate: u8, calls: usize) {
        for call in 0..calls {
            self.add(at + i64::try_from(call).unwrap(), |event| event.principal = by(principal, certificate));
        }
    }
}

fn by(principal: &str, certificate: u8) -> Principal {
    Principal { name: principal.into(), certificate: Some([certificate; 32]) }
}

fn entry(sequence: u64, at: i64, edit: impl FnOnce(&mut AuditEvent), position: StatePosition) -> Entry {
    let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
    let at = Timestamp::from_micros(BEGIN + at);
    let mut event = AuditEvent::new(at, by("dns:a", 1), Operation::Sign, "p".into());
    edit(&mut event);
    Entry::new(sequence, &source, &event, position)
}

fn key(number: u8) -> KeyId {
    KeyId::Symmetric([number; 16])
}

#[test]
fn only_the_period_is_counted_and_a_collapsed_refusal_counts_with_its_number() {
    let mut log = Log::new(DAY, 2 * DAY);
    log.add(DAY - 1, |event| event.key = Some(key(1)));
    log.add(DAY, |event| event.key = Some(key(1)));
    log.add(DAY + 2 * HOUR, |event| {
        (event.key, event.principal) = (Some(key(2)), by("dns:b", 2));
    });
    log.add(DAY + 3 * HOUR, |event| {
        (event.outcome, event.reason, event.count) = (Outcome::Denied, Some("forbidden".into()), Some(40));
    });
    log.add(DAY + 3 * HOUR, |event| {
        (event.outcome, event.reason, event.operation) = (Outcome::Failed, Some("state".into()), Operation::EnableKey);
    });
    log.add(DAY + 3 * HOUR, |event| (event.outcome, event.operation) = (Outcome::Intent, Operation::AddWrapperKey));
    log.add(DAY + 3 * HOUR, |event| event.principal = Principal::system());
    log.add(2 * DAY, |event| event.key = Some(key(1)));
    let PeriodCount { entries, sequences, own_work, usage, refusals, .. } = &log.count;
    assert_eq!((entries, sequences, own_work.ok), (&[1, 6, 1], &Some((2, 7)), 1));
    assert_eq!(usage.all.calls, Calls { ok: 2, denied: 40, failed: 1 });
    assert_eq!(usage.bucket, Bucket::Hour);
    let hours: Vec<_> = usage.over_time.iter().map(|(at, calls)| ((at - BEGIN) / HOUR, calls.total())).collect();
    assert_eq!(hours, [(24, 1), (26, 1), (27, 41)]);
    let keys: Vec<_> = usage.by_key.largest(|used| used.used.calls.total()).iter().map(|(id, used)| (**id, used.used.calls.ok)).collect();
    assert_eq!(keys, [(key(1), 1), (key(2), 1)], "a denied call without a key is of no key");
    let principals = usage.by_principal.largest(|of| of.used.calls.total());
    assert_eq!(
        principals.iter().map(|(name, of)| (name.as_str(), of.used.calls.total())).collect::<Vec<_>>(),
        [("dns:a", 42), ("dns:b", 1)]
    );
    let denied = refusals.denied.largest(|used| used.calls.total());
    assert_eq!((denied.len(), denied[0].0.reason.as_str(), denied[0].1.calls.denied), (1, "forbidden", 40));
    assert_eq!(refusals.failed.len(), 1);
}

#[test]
fn refused_clients_are_apart_from_calls() {
    let mut log = Log::new(0, DAY);
    log.add(0, |event| {
        (event.operation, event.outcome, event.count) = (Operation::RefuseClient, Outcome::Denied, Some(7));
        (event.principal, event.reason, event.subject) = (by("unauthenticated", 9), Some("expired".into()), Some("subject CN=<b>".into()));
    });
    let clients = log.count.refusals.clients.largest(|used| used.calls.total());
    assert_eq!(
        (clients[0].0.says.as_str(), clients[0].0.who.as_str(), clients[0].1.calls.denied),
        ("subject CN=<b>", &*Hex(&[9; 32]).to_string(), 7)
    );
    assert_eq!(log.count.usage.all.calls, Calls::default());
    assert!(log.count.refusals.denied.is_empty() && log.count.anomalies.first_uses.items.is_empty());
}

#[test]
fn the_first_use_of_a_certificate_is_the_first_in_the_log() {
    let mut log = Log::new(DAY, 2 * DAY);
    log.calls(0, "dns:a", 1, 1);
    log.calls(DAY, "dns:a", 1, 2);
    log.calls(DAY + 5, "dns:a", 2, 2);
    let found = &log.count.anomalies.first_uses;
    assert_eq!(
        found.items.iter().map(|first| (first.sequence, first.certificate.as_str())).collect::<Vec<_>>(),
        [(4, &*Hex(&[2; 32]).to_string())]
    );
}

#[test]
fn an_hour_is_unusual_if_the_28_days_before_have_50_calls_and_none_at_that_hour() {
    let days = |count: i64| count * DAY;
    for (calls, hour, at, expected) in [
        (50, 9, days(10) + 3 * HOUR, Some(2)),
        (49, 9, days(10) + 3 * HOUR, None),
        (50, 3, days(10) + 3 * HOUR, None),
        // All older than 28 days: nothing is usual.
        (50, 9, days(28) + 10 * HOUR, None),
        (50, 9, days(28) + 8 * HOUR, Some(2)),
    ] {
        let mut log = Log::new(DAY, 60 * DAY);
        log.calls(hour * HOUR, "dns:a", 1, calls);
        log.calls(at, "dns:a", 1, 2);
        let found: Vec<_> = log.count.anomalies.unusual_hours.items.iter().map(|row| (row.calls, row.usual.clone())).collect();
        let expected: Vec<_> = expected.iter().map(|calls| (*calls, vec![u8::try_from(hour).unwrap()])).collect();
        assert_eq!(found, expected, "{calls} calls at {hour}, then at {at}");
    }
}

#[test]
fn a_burst_has_100_calls_and_more_than_10_times_the_median() {
    for (before, calls, expected) in [
        (&[10, 12, 8][..], 101, Some((101, 20))),
        (&[10, 12, 8], 100, None),
        (&[1, 1], 99, None),
        (&[1, 1], 100, Some((100, 2))),
        (&[11, 10], 105, None),
        (&[11, 10], 106, Some((106, 21))),
        // Nothing is known of the hours before.
        (&[], 5_000, None),
    ] {
        let mut log = Log::new(DAY, 60 * DAY);
        for (hour, calls) in (0..).zip(before) {
            log.calls(hour * HOUR, "dns:a", 1, *calls);
        }
        log.calls(2 * DAY, "dns:a", 1, calls);
        let found: Vec<_> = log.count.anomalies.bursts.items.iter().map(|row| (row.calls, row.twice_the_median)).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{before:?}, then {calls}");
    }
}

#[test]
fn changes_are_listed_by_topic_with_a_limit_and_only_if_they_succeeded() {
    let mut log = Log::new(0, DAY);
    for number in 0..600 {
        log.add(number, |event| event.operation = Operation::DisableKey);
    }
    log.add(700, |event| (event.operation, event.outcome) = (Operation::DisableKey, Outcome::Denied));
    log.add(701, |event| (event.operation, event.subject) = (Operation::CreateKey, Some("repeated".into())));
    log.add(702, |event| (event.operation, event.subject) = (Operation::RetireWrapperKey, Some("wk-000000000001, dry run".into())));
    log.add(703, |event| event.operation = Operation::Freeze);
    let changes = &log.count.changes;
    assert_eq!((changes.of(Topic::Keys).items.len(), changes.of(Topic::Keys).left_out, changes.of(Topic::Keys).total()), (500, 100, 600));
    assert_eq!((changes.of(Topic::WrapperKeys).total(), changes.of(Topic::Freeze).total()), (0, 1));
}

#[test]
fn another_policy_is_a_change_of_the_grants() {
    let mut log = Log::new(DAY, 2 * DAY);
    for (at, digest) in [(0, 1), (DAY, 1), (DAY + 1, 2), (DAY + 2, 2), (DAY + 3, 1)] {
        log.add(at, |event| (event.operation, event.digest) = (Operation::Reload, Some([digest; 32])));
    }
    let changed: Vec<_> = log.count.changes.of(Topic::Grants).items.iter().map(|change| change.policy.clone().unwrap().1).collect();
    assert_eq!((changed, log.count.changes.policy_changes), (vec![false, true, false, true], 2));
}

#[test]
fn the_length_of_the_period_decides_what_a_bar_is() {
    for (days, expected) in [(2, Bucket::Hour), (3, Bucket::Day), (92, Bucket::Day), (365, Bucket::Week), (1000, Bucket::FourWeeks)] {
        assert_eq!(Log::new(0, days * DAY).count.usage.bucket, expected);
    }
}

#[test]
fn a_chart_begins_with_the_log_if_the_period_begins_before_it() {
    let mut log = Log::new(-10_000 * DAY, 2 * DAY);
    assert_eq!(log.count.usage.bucket, Bucket::FourWeeks);
    log.add(DAY, |_| {});
    assert_eq!((log.count.usage.bucket, log.count.shown.from.micros() - BEGIN), (Bucket::Hour, DAY));
    let mut log = Log::new(DAY, 2 * DAY);
    log.add(0, |_| {});
    log.add(DAY + HOUR, |_| {});
    assert_eq!(log.count.usage.all.calls.ok, 1);
    assert_eq!(log.count.shown, log.count.period, "the log is older than the period");
}

#[test]
fn too_many_names_are_counted_together() {
    let mut tally = Tally::<String, u64>::new(2);
    for name in ["a", "b", "c", "a", "d"] {
        if let Some(count) = tally.of(name, 3) {
            *count += 3;
        }
    }
    assert_eq!((tally.largest(|count| *count), tally.others), (vec![(&"a".to_owned(), &6), (&"b".to_owned(), &3)], 6));
}

#[test]
fn the_start_of_a_job_is_found_in_the_entries_of_earlier_versions() {
    let (job, from, to) = ("job-00000000000a", "wk-000000000001", "wk-000000000002");
    let mut count = RotationCount::new(job.parse().unwrap(), from.parse().unwrap(), to.parse().unwrap());
    let start = |subject: &str| (Operation::StartRotation, subject.to_owned());
    let entries = [
        start(&format!("{from} to {to}")),
        (Operation::EndRotation, "job-00000000000b succeeded".to_owned()),
        start(&format!("{to} to {from}")),
        start(&format!("{from} to {to}")),
        start(&format!("{from} to {to}, job-00000000000c")),
        (Operation::EndRotation, format!("{job} succeeded")),
        start(&format!("{from} to {to}")),
    ];
    for (sequence, (operation, subject)) in (1..).zip(entries) {
        count.add(&entry(sequence, 0, |event| (event.operation, event.subject) = (operation, Some(subject)), StatePosition::unchanged(1)));
    }
    assert_eq!((count.start.map(|start| start.sequence), count.end.map(|end| end.sequence)), (Some(4), Some(6)));
}

/// Each key of a rotation with the entry that shows its wrap.
#[test]
fn a_rotation_has_evidence_for_each_key_or_says_that_it_has_none() {
    let (job, from, to) = ("job-00000000000a", "wk-000000000001", "wk-000000000002");
    let mut count = RotationCount::new(job.parse().unwrap(), from.parse().unwrap(), to.parse().unwrap());
    let mut sequence = 0;
    let mut add = |edit: &dyn Fn(&mut AuditEvent), active: Option<&str>| {
        sequence += 1;
        let changed =
            active.map(|id| WrapperKeyChange { id: id.parse().unwrap(), state: WrapperState::Active, identity: None, name: None });
        let position = StatePosition { wrapper_keys: changed.into_iter().collect(), ..StatePosition::change(sequence, [0; 32]) };
        count.add(&entry(sequence, i64::try_from(sequence).unwrap(), edit, position));
    };
    let create = |number: u8| {
        move |event: &mut AuditEvent| {
            (event.operation, event.key) = (Operation::CreateKey, Some(key(number)));
            event.change = Some(StateChange { revision: 1, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None });
        }
    };
    let rewrap = |number: u8, subject: String| {
        move |event: &mut AuditEvent| {
            (event.operation, event.key, event.subject) = (Operation::RewrapKey, Some(key(number)), Some(subject.clone()));
            event.kms = KmsUse { request_ids: vec![format!("kms-{number}")], wrapper_keys: Vec::new() };
        }
    };
    let about = |operation: Operation, subject: String| {
        move |event: &mut AuditEvent| (event.operation, event.subject) = (operation, Some(subject.clone()))
    };
    add(&about(Operation::BootstrapWrapperKey, from.into()), Some(from));
    (1..=5).for_each(|number| add(&create(number), None));
    add(&rewrap(1, format!("{from} to {to}, unwrapped and wrapped")), None);
    add(&about(Operation::StartRotation, format!("{from} to {to}, {job}")), Some(to));
    add(&rewrap(2, format!("{from} to {to}, re-encrypted by the KMS, {job}")), None);
    add(&rewrap(3, format!("{from} to {to}, unwrapped and wrapped, {job}")), None);
    add(&create(6), None);
    add(&|event: &mut AuditEvent| (event.operation, event.key) = (Operation::DestroyKey, Some(key(4))), None);
    add(&about(Operation::EndRotation, format!("{job} failed")), None);
    add(&about(Operation::RetireWrapperKey, format!("{from} gets no new wraps")), None);
    add(&about(Operation::RetireWrapperKey, "wk-000000000003 gets no new wraps".into()), None);
    let evidence = [
        (key(1), Evidence::Elsewhere(7)),
        (key(2), Evidence::Job(9)),
        (key(3), Evidence::Job(10)),
        (key(5), Evidence::Missing),
        (key(6), Evidence::Sealed(11)),
    ];
    assert_eq!(count.keys.clone().into_iter().collect::<Vec<_>>(), evidence);
    assert_eq!((count.re_encrypted, count.unwrapped, count.followed()), (1, 1, (5, 1)));
    assert_eq!(count.rewraps.items.iter().map(|rewrap| rewrap.kms_request_ids.join("")).collect::<Vec<_>>(), ["kms-2", "kms-3"]);
    assert_eq!((count.start.is_some(), count.end.is_some(), count.retirement.total()), (true, true, 1));
}
