//! What many keys and a long log cost in SQLite and in PostgreSQL: a start, a cold signature, pages of keys and of a rotation, queries of the log.
//!
//! The SQLite store is filled by the vault's own code, and copied to PostgreSQL by `store copy`: both have the same rows. 100,000 keys and 10 million
//! entries take about 25 GB of disk and half an hour.

use std::{path::Path, process::Command, sync::Arc, time::Instant};

use anyhow::Context as _;
use canton_keyvault::{
    audit::Source,
    config::Config,
    crypto::SystemRandom,
    domain::{Timestamp, WrapperKeyId},
    storage::{KeyFilter, KeyRequirement, KeyStore, Mode, PageRequest, PostgresConfig, PostgresStore, SqliteConfig, SqliteStore},
};
use serde_json::Value;

use crate::{
    POSTGRESQL,
    fill::fill,
    queries::{millis, queries, write},
    replica::Replica,
    server::PROGRAM,
};

const SQLITE: &str = "path = \"scale.db\"";
/// Both stores have one log, which is continued under this name.
const NAME: &str = "scale";

/// Fills, copies and measures.
pub(crate) fn measure(folder: &Path, keys: u32, entries: u64) -> anyhow::Result<()> {
    let config = folder.join(format!("{NAME}.toml"));
    Replica::start(folder, NAME, SQLITE)?.stop()?;
    fill(&config, Mode::Production, keys)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let written = runtime.block_on(async {
        let store = sqlite(&config)?;
        let began = Instant::now();
        let size = store.log_head().size;
        write(store.as_ref(), size + 1, entries).await?;
        println!("entries up to {entries} written in {:.0} s", began.elapsed().as_secs_f64());
        while store.digest_log().await? {}
        let size = store.log_head().size;
        store.close().await;
        anyhow::Ok(size)
    })?;
    copy(folder)?;
    for (name, storage) in [("SQLite", SQLITE), ("PostgreSQL", POSTGRESQL)] {
        println!("{name}:");
        let ids = runtime.block_on(async {
            let began = Instant::now();
            let store = if storage == SQLITE { sqlite(&config)? } else { postgresql(folder, &config).await? };
            println!("opening the store: {:.0} ms", millis(began));
            queries(store.as_ref(), written, name).await?;
            let ids = pages(store.as_ref(), keys).await?;
            store.close().await;
            anyhow::Ok(ids)
        })?;
        std::fs::write(folder.join("ids"), ids.join("\n"))?;
        serve(folder, storage)?;
    }
    Ok(())
}

fn copy(folder: &Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("connection.toml"), "url_file = \"postgresql.url\"\n")?;
    let began = Instant::now();
    let mut copy = Command::new(PROGRAM);
    copy.args(["store", "copy", "--from"]).arg(format!("sqlite:{}", folder.join("scale.db").display()));
    let copied = copy.arg("--to").arg(format!("postgres:{}", folder.join("connection.toml").display())).output()?;
    anyhow::ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    println!("copied to PostgreSQL and compared in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn source(config: &Config) -> Source {
    Source { vault: config.vault.id.to_string(), instance: NAME.into(), version: env!("CARGO_PKG_VERSION").into() }
}

fn sqlite(config: &Path) -> anyhow::Result<Arc<dyn KeyStore>> {
    let config = Config::load(config)?;
    let path = config.storage.path.as_deref().context("no file")?;
    let options = SqliteConfig::new(path, Mode::Production);
    let store = SqliteStore::open(options, source(&config), &config.vault.id, &SystemRandom::default(), Timestamp::from_micros(0))?;
    Ok(Arc::new(store))
}

async fn postgresql(folder: &Path, config: &Path) -> anyhow::Result<Arc<dyn KeyStore>> {
    let config = Config::load(config)?;
    let options = PostgresConfig::new(folder.join("postgresql.url"), Mode::Production);
    let random = SystemRandom::default();
    let store = PostgresStore::open(options, source(&config), &config.vault.id, &random, Timestamp::from_micros(0)).await?;
    Ok(Arc::new(store))
}

/// Pages of keys, of all and of those that a rotation to a new wrapper key still has to do. Returns some ids from all parts of the store.
async fn pages(store: &dyn KeyStore, keys: u32) -> anyhow::Result<Vec<String>> {
    const COLD: u32 = 2000;
    let (all, missing) = (KeyFilter::all(), KeyRequirement::WrapUnder("wk-00000000ffff".parse::<WrapperKeyId>()?));
    for (part, after) in [("first", 0), ("middle", u64::from(keys / 2))] {
        let began = Instant::now();
        store.keys(&all, PageRequest { after, limit: 100 }).await?;
        println!("{part} page of 100 keys: {:.2} ms", millis(began));
        let began = Instant::now();
        let found = store.keys_missing(missing, PageRequest { after, limit: 100 }).await?;
        println!("{part} page of a rotation, {} keys: {:.2} ms", found.len(), millis(began));
    }
    let began = Instant::now();
    let coverage = store.coverage(missing).await?;
    println!("{coverage:?}: {:.0} ms", millis(began));
    let mut ids = Vec::new();
    let step = u64::from((keys / COLD).max(1));
    for number in 0..u64::from(COLD.min(keys)) {
        let page = store.keys(&all, PageRequest { after: number * step + 1, limit: 1 }).await?;
        ids.extend(page.into_iter().map(|key| key.item.attributes.id.to_string()));
    }
    Ok(ids)
}

/// Starts of a vault over the store, and its signatures.
fn serve(folder: &Path, storage: &str) -> anyhow::Result<()> {
    let mut starts = Vec::new();
    for _ in 0..3 {
        let vault = Replica::start(folder, NAME, storage)?;
        starts.push(vault.started_in.as_secs_f64() * 1e3);
        vault.stop()?;
    }
    starts.sort_by(f64::total_cmp);
    let vault = Replica::start(folder, NAME, storage)?;
    println!("start until it listens: {:.0} ms", starts.get(1).context("no start")?);
    let pki = |file: &str| folder.join("pki").join(file);
    for (name, operation) in [("cold signatures", "cold"), ("signatures by these keys", "sign")] {
        let mut bench = Command::new(PROGRAM);
        bench.args(["bench", "--output", "json", "--connections", "16", "--duration", "4s", "--operation", operation, "--url", &vault.url]);
        bench.args(["--server-pid", &vault.pid().to_string()]).arg("--key-ids-file").arg(folder.join("ids")).arg("--ca").arg(pki("ca.pem"));
        let output = bench.arg("--cert").arg(pki("participant1.pem")).arg("--key").arg(pki("participant1.key")).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no {pointer}"));
        println!(
            "{name}, 16 connections: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, CPU of the vault {:.1} us",
            at("/throughput_per_second")?,
            at("/latency_microseconds/p50")? / 1e3,
            at("/latency_microseconds/p99")? / 1e3,
            at("/server/cpu_microseconds_per_request")?
        );
    }
    vault.stop()
}
