//! What many keys cost: a start, memory, a cold and a warm signature, a page of a list, a count. `cargo bench --bench sign -- --keys 100000`
//!
//! Fills a store of `dev` by the vault's own code, starts the release binary on it, and puts it under load with `canton-keyvault bench`. A million keys
//! take about 2 GB of disk and some minutes.

use std::{path::Path, process::Command, time::Instant};

use anyhow::Context as _;
use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{Timestamp, WrapperState},
    storage::{KeyFilter, KeyRequirement, KeyStore as _, Mode, PageRequest, SqliteConfig, SqliteStore},
};
use serde_json::Value;

use super::{
    Folder, fill,
    server::{PROGRAM, Server},
};

/// Measures a vault with this many keys, at least 1.
pub(crate) fn measure(keys: u32) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let mut vault = Server::dev(&folder.0)?;
    vault.stop()?;
    fill::fill(&folder.0.join("keyvault.toml"), Mode::Dev, keys)?;
    let mut starts = Vec::new();
    let mut idle = 0.0;
    for _ in 0..3 {
        vault = Server::dev(&folder.0)?;
        starts.push(vault.started_in.as_secs_f64() * 1e3);
        idle = vault.resident()?;
        vault.stop()?;
    }
    starts.sort_by(f64::total_cmp);
    println!("start to first signature: {:.0} ms; resident then: {idle:.1} MiB", starts.get(1).context("no start")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ids = runtime.block_on(reads(&folder.0, keys))?;
    std::fs::write(folder.0.join("ids"), ids.join("\n"))?;
    vault = Server::dev(&folder.0)?;
    let ids_file = folder.0.join("ids");
    for (name, arguments) in [
        ("cold signatures", vec!["--operation".into(), "cold".into(), "--key-ids-file".into(), ids_file.display().to_string()]),
        ("signatures by these keys", vec!["--key-ids-file".into(), ids_file.display().to_string(), "--duration".into(), "4s".into()]),
        ("signatures by one key", vec!["--key-id".into(), vault.key.clone(), "--duration".into(), "4s".into()]),
    ] {
        load(&vault, &folder.0, name, &arguments)?;
    }
    println!("resident at the end: {:.1} MiB", vault.resident()?);
    vault.stop()
}

/// Reads of the store while no vault uses it. Returns some ids from all parts of it.
async fn reads(folder: &Path, keys: u32) -> anyhow::Result<Vec<String>> {
    const COLD: u32 = 2000;
    let source = Source { vault: "dev".into(), instance: "bench".into(), version: env!("CARGO_PKG_VERSION").into() };
    let config = SqliteConfig::new(folder.join("keyvault.db"), Mode::Dev);
    let began = Instant::now();
    let store = SqliteStore::open(config, source, &"dev".parse()?, &SystemRandom::default(), Timestamp::from_micros(0))?;
    println!("opening the store: {:.0} ms", millis(began));
    let all = KeyFilter::all();
    for (name, after) in [("the first page of 100 keys", 0), ("a page in the middle", u64::from(keys / 2))] {
        let began = Instant::now();
        store.keys(&all, PageRequest { after, limit: 100 }).await?;
        println!("{name}: {:.2} ms", millis(began));
    }
    let began = Instant::now();
    let number = store.count_keys(&all).await?;
    println!("counting {number} keys: {:.1} ms", millis(began));
    let active = store.wrapper_keys().await?.into_iter().find(|key| key.state == WrapperState::Active).context("no active wrapper key")?;
    for what in ["at first", "again"] {
        let began = Instant::now();
        let covered = store.coverage(KeyRequirement::WrapUnder(active.id)).await?;
        println!("counting the {} keys with a wrap under the active wrapper key, {what}: {:.1} ms", covered.done, millis(began));
    }
    let mut ids = Vec::new();
    let step = u64::from((keys / COLD).max(1));
    for number in 0..u64::from(COLD.min(keys)) {
        let page = store.keys(&all, PageRequest { after: number * step + 1, limit: 1 }).await?;
        ids.extend(page.into_iter().map(|key| key.item.attributes.id.to_string()));
    }
    store.close().await;
    Ok(ids)
}

fn load(vault: &Server, folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<()> {
    let pki = |file: &str| folder.join("pki").join(file);
    let mut bench = Command::new(PROGRAM);
    bench.args(["bench", "--output", "json", "--connections", "16", "--url", &vault.url, "--server-pid", &vault.pid().to_string()]);
    bench.args(arguments).arg("--ca").arg(pki("ca.pem"));
    let output = bench.arg("--cert").arg(pki("participant1.pem")).arg("--key").arg(pki("participant1.key")).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no {pointer}"));
    let [p50, p99] = ["/latency_microseconds/p50", "/latency_microseconds/p99"].map(at);
    println!(
        "{name}, 16 connections: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, CPU {:.1} us",
        at("/throughput_per_second")?,
        p50? / 1e3,
        p99? / 1e3,
        at("/server/cpu_microseconds_per_request")?
    );
    Ok(())
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
