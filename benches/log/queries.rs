//! A long audit log as a vault with 20 keys writes it in months, and the queries that reviewers make.

use std::time::Instant;

use canton_keyvault::{
    domain::{Algorithm, AuditEvent, Dimension, Fingerprint, KeyId, NodeName, NodeScope, Operation, Outcome, Principal, Timestamp},
    storage::{Commit, EntryFilter, KeyStore, Order, PageRequest, TotalsQuery},
};

/// Commits that are in progress at the same time.
const AT_ONCE: u64 = 1024;
/// Entries of each day of the log.
const PER_DAY: u64 = 100_000;
const DAY: i64 = 24 * 3600 * 1_000_000;

/// Commits entries up to this number, after the first `from - 1`. Returns the number of the last one.
pub(crate) async fn write(store: &dyn KeyStore, from: u64, entries: u64) -> anyhow::Result<u64> {
    let mut first = from;
    while first <= entries {
        let batch = (first..first + AT_ONCE).map(|number| store.commit(Commit::entry(event(number))));
        for written in futures_util::future::join_all(batch).await {
            written?;
        }
        first += AT_ONCE;
    }
    Ok(first - 1)
}

/// Runs each query to its end, page by page.
pub(crate) async fn queries(store: &dyn KeyStore, written: u64, when: &str) -> anyhow::Result<()> {
    let middle = written / 2;
    let all = EntryFilter::all;
    let newest = || EntryFilter { order: Order::Newest, ..all() };
    let day = |back: i64| time(written).micros() - back * DAY;
    let at = |micros| Some(Timestamp::from_micros(micros));
    let queries = [
        ("request id", EntryFilter { request_id: Some(format!("{middle:032x}")), ..all() }, 100),
        ("request id that does not exist", EntryFilter { request_id: Some("none".into()), ..all() }, 100),
        ("trace id", EntryFilter { trace_id: Some(format!("{:032x}", middle / 4)), ..all() }, 100),
        ("rare certificate", EntryFilter { certificate: Some([0xcc; 32]), ..all() }, 100),
        ("rare principal", EntryFilter { principal: Some("dns:rare".into()), ..all() }, 100),
        ("job", EntryFilter { job: "job-00000000000a".parse().ok(), ..all() }, 100),
        ("denied, newest first, a page", EntryFilter { outcome: Some(Outcome::Denied), ..newest() }, 100),
        ("one key, newest first, a page", EntryFilter { key: Some(key(7)), ..newest() }, 100),
        ("one key and operation that never meet", EntryFilter { key: Some(key(7)), operation: Some(Operation::Freeze), ..all() }, 100),
        ("the last day, a page", EntryFilter { from: at(day(1)), ..all() }, 100),
        ("one day long ago, a page", EntryFilter { from: at(day(5)), to: at(day(4)), ..all() }, 100),
        ("all, oldest first, a page", all(), 1000),
    ];
    for (name, filter, limit) in queries {
        let began = Instant::now();
        let (mut after, mut found, mut first) = (0, 0, None);
        loop {
            let page = store.entries(&filter, PageRequest { after, limit }).await?;
            found += page.entries.len();
            first = first.or_else(|| (!page.entries.is_empty()).then(|| millis(began)));
            // One page, or the whole log if there is no full one.
            match page.stopped_at.filter(|_| found < limit as usize) {
                Some(position) => after = position,
                None => break,
            }
        }
        let first = first.map_or_else(|| "-".to_owned(), |first| format!("{first:.1}"));
        println!("{:<52} {first:>10} {:>10.1} {found:>7}", format!("{name} ({when})"), millis(began));
    }
    Ok(())
}

pub(crate) fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

pub(crate) fn totals(by: &[Dimension]) -> TotalsQuery {
    TotalsQuery {
        nodes: NodeScope::All,
        by: by.to_vec(),
        principal: None,
        certificate: None,
        node: None,
        key: None,
        operation: None,
        outcome: None,
        from: None,
        to: None,
    }
}

fn time(number: u64) -> Timestamp {
    let steps = i64::try_from(number).unwrap_or(i64::MAX);
    Timestamp::from_micros(steps.saturating_mul(DAY / i64::try_from(PER_DAY).unwrap_or(1)))
}

fn key(number: u8) -> KeyId {
    KeyId::Pair(Fingerprint::from_digest([number; 32]))
}

/// Mostly signatures by four nodes with 20 keys; some are denied, and a few are rare.
pub(crate) fn event(number: u64) -> AuditEvent {
    let turn = u8::try_from(number % 20).unwrap_or(0);
    let (node, rare) = (turn % 4, number.is_multiple_of(250_000));
    let name = if rare { "dns:rare".to_owned() } else { format!("spiffe://example.org/participant{node}") };
    let principal = Principal { name: name.into(), certificate: Some([if rare { 0xcc } else { node }; 32]) };
    let operation = if number.is_multiple_of(10) { Operation::Decrypt } else { Operation::Sign };
    AuditEvent {
        key: Some(key(turn)),
        node: format!("participant{node}").parse::<NodeName>().ok(),
        algorithm: Some(Algorithm::Ed25519),
        digest: Some([turn; 32]),
        client: Some("canton-keyvault-driver/0.1.0".into()),
        outcome: if number.is_multiple_of(5_000) { Outcome::Denied } else { Outcome::Ok },
        request_id: Some(format!("{number:032x}").into()),
        trace_id: Some(format!("{:032x}", number / 4).into()),
        subject: rare.then(|| "wk-000000000001 to wk-000000000002, job-00000000000a".into()),
        ..AuditEvent::new(time(number), principal, operation, "0123456789abcdef".into())
    }
}
