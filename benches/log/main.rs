//! What a long audit log costs: each query, with the log digested and without; a commit, before and after; and an opening of the store.
//! `cargo bench --bench log -- --entries 10000000`; the default is 1,000,000. Ten million entries take about 10 GB of disk and some minutes.
//!
//! Prints, and asserts nothing: the figures are those of this machine. `TMPDIR` chooses the disk.

mod queries;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{Dimension, Timestamp},
    storage::{Commit, KeyStore, Mode, SqliteConfig, SqliteStore},
};

use queries::{event, millis, queries, totals, write};

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
    let first = 1 + one_by_one(&store, 1, "an empty log").await?;
    let began = Instant::now();
    let written = write(store.as_ref(), first, entries).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{written} entries written in {seconds:.0} s");
    one_by_one(&store, written + 1, "this log").await?;
    println!("{:<52} {:>10} {:>10} {:>7}", "query", "first ms", "all ms", "found");
    queries(store.as_ref(), written, "without digests").await?;
    let began = Instant::now();
    while store.digest_log().await? {}
    println!("digests of all entries in {:.1} s", began.elapsed().as_secs_f64());
    queries(store.as_ref(), written, "with digests").await?;
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

fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    let source = Source { vault: "production".into(), instance: "keyvault-0".into(), version: env!("CARGO_PKG_VERSION").into() };
    let config = SqliteConfig { query_time: Duration::from_secs(1), ..SqliteConfig::new(path, Mode::Production) };
    Ok(SqliteStore::open(config, source, &"production".parse()?, &SystemRandom::default(), Timestamp::from_micros(0))?)
}
