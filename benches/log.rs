//! What a long audit log costs: each query, with the log digested and without; a commit, before and after; and an opening of the store.
//! `cargo bench --bench log -- --entries 10000000`; the default is 1,000,000. Ten million entries take about 10 GB of disk and some minutes.
//!
//! Prints, and asserts nothing: the figures are those of this machine. `TMPDIR` chooses the disk.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{Algorithm, AuditEvent, Dimension, Fingerprint, KeyId, NodeName, NodeScope, Operation, Outcome, Principal, Timestamp},
    storage::{Commit, EntryFilter, KeyStore, Mode, Order, PageRequest, SqliteConfig, SqliteStore, TotalsQuery},
};

/// Commits that are in progress at the same time.
const AT_ONCE: u64 = 1024;
/// Entries of each day of the log.
const PER_DAY: u64 = 100_000;
const DAY: i64 = 24 * 3600 * 1_000_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().skip_while(|word| *word != "--entries").nth(1);
    let entries: u64 = given.map_or(Ok(1_000_000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(entries))
}

async fn run(entries: u64) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("log-bench-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = folder.join("keyvault.db");
    let store: Arc<dyn KeyStore> = Arc::new(open(&path)?);
    let mut first = 1;
    first += one_by_one(&store, first, "an empty log").await?;
    let began = Instant::now();
    while first <= entries {
        let batch = (first..first + AT_ONCE).map(|number| store.commit(Commit::entry(event(number))));
        for written in futures_util::future::join_all(batch).await {
            written?;
        }
        first += AT_ONCE;
    }
    let written = first - 1;
    let seconds = began.elapsed().as_secs_f64();
    println!("{written} entries written in {seconds:.0} s");
    one_by_one(&store, first, "this log").await?;
    println!("{:<52} {:>10} {:>10} {:>7}", "query", "first ms", "all ms", "found");
    queries(&store, written, "without digests").await?;
    let began = Instant::now();
    while store.digest_log().await? {}
    println!("digests of all entries in {:.1} s", began.elapsed().as_secs_f64());
    queries(&store, written, "with digests").await?;
    for by in [&[Dimension::Principal][..], &[Dimension::Key, Dimension::Day], Dimension::ALL] {
        let began = Instant::now();
        let totals = store.totals(totals(by)).await?;
        let words: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).collect();
        println!("{:<52} {:>10} {:>10.1} {:>7}", format!("summary by {}", words.join(",")), "", millis(began), totals.groups.len());
    }
    store.close().await;
    drop(store);
    let began = Instant::now();
    let store = open(&path)?;
    println!("opening the store with its log: {:.0} ms", millis(began));
    store.close().await;
    println!("bytes of the file for each entry: {}", std::fs::metadata(&path)?.len() / written);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Commits entries one after the other, and says what one takes. Returns their number.
async fn one_by_one(store: &Arc<dyn KeyStore>, first: u64, what: &str) -> anyhow::Result<u64> {
    const COMMITS: u32 = 2_000;
    let began = Instant::now();
    for number in first..first + u64::from(COMMITS) {
        store.commit(Commit::entry(event(number))).await?;
    }
    println!("a commit alone, to {what}: {:.1} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(COMMITS));
    Ok(COMMITS.into())
}

/// Runs each query to its end, page by page.
async fn queries(store: &Arc<dyn KeyStore>, written: u64, when: &str) -> anyhow::Result<()> {
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

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

fn totals(by: &[Dimension]) -> TotalsQuery {
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
fn event(number: u64) -> AuditEvent {
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

fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    let source = Source { vault: "production".into(), instance: "keyvault-0".into(), version: env!("CARGO_PKG_VERSION").into() };
    let config = SqliteConfig { query_time: Duration::from_secs(1), ..SqliteConfig::new(path, Mode::Production) };
    Ok(SqliteStore::open(config, source, &"production".parse()?, &SystemRandom::default(), Timestamp::from_micros(0))?)
}
