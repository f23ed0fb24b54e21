//! What a durable entry costs: commits a second, latency, CPU and bytes, at 1, 16 and 64 callers; and how long a start takes to verify 100,000
//! state changes. `cargo bench --bench commit`
//!
//! Prints, and asserts nothing: the figures are those of this machine's disk. `TMPDIR` chooses the disk.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{Algorithm, AuditEvent, Fingerprint, KeyId, Operation, Principal, Timestamp},
    storage::{Change, Commit, KeyStore, Mode, SqliteConfig, SqliteStore},
};

const TIME: Duration = Duration::from_secs(3);
const CHANGES: usize = 100_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{:>8} {:>10} {:>9} {:>9} {:>14} {:>13}", "callers", "commits/s", "p50 us", "p99 us", "CPU us/commit", "bytes/commit");
    for callers in [1, 16, 64] {
        println!("{}", runtime.block_on(round(callers))?);
    }
    println!("{}", runtime.block_on(start_with_changes())?);
    Ok(())
}

/// Opens a store with many state changes, three times.
async fn start_with_changes() -> anyhow::Result<String> {
    const CALLERS: usize = 256;
    let folder = std::env::temp_dir().join(format!("commit-bench-{}-start", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = folder.join("keyvault.db");
    let store = Arc::new(open(&path)?);
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0..CHANGES / CALLERS {
                    let at = Timestamp::from_micros(i64::try_from(number)?);
                    let event = AuditEvent::new(at, Principal::system(), Operation::Freeze, "-".into());
                    store.commit(Commit::change(Change::SetFrozen(number % 2 == 0), event)).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    store.close().await;
    drop(store);
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let store = open(&path)?;
        times.push(began.elapsed());
        store.close().await;
    }
    std::fs::remove_dir_all(&folder)?;
    times.sort_unstable();
    let median = times.get(1).map_or(0, Duration::as_millis);
    Ok(format!("a start verifies {} state changes in {median} ms", CHANGES / CALLERS * CALLERS))
}

fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    let source = Source { vault: "production".into(), instance: "keyvault-0".into(), version: env!("CARGO_PKG_VERSION").into() };
    let config = SqliteConfig::new(path, Mode::Production);
    Ok(SqliteStore::open(config, source, &"production".parse()?, &SystemRandom::default(), Timestamp::from_micros(0))?)
}

async fn round(callers: usize) -> anyhow::Result<String> {
    let folder = std::env::temp_dir().join(format!("commit-bench-{}-{callers}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = folder.join("keyvault.db");
    let store = Arc::new(open(&path)?);
    let (cpu, started) = (cpu_time(), Instant::now());
    let tasks: Vec<_> = (0..callers).map(|caller| tokio::spawn(call(Arc::clone(&store), caller, started + TIME))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let (cpu, elapsed) = (cpu_time().saturating_sub(cpu), started.elapsed());
    store.close().await;
    let bytes = std::fs::metadata(&path)?.len();
    std::fs::remove_dir_all(&folder)?;
    latencies.sort_unstable();
    let number = latencies.len().max(1);
    let percentile = |percent: usize| latencies.get(number * percent / 100).map_or(0, Duration::as_micros);
    Ok(format!(
        "{callers:>8} {:>10} {:>9} {:>9} {:>14.1} {:>13}",
        number as u128 * 1_000 / elapsed.as_millis().max(1),
        percentile(50),
        percentile(99),
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(number)?),
        bytes / number as u64
    ))
}

/// Commits signatures one after the other; answers how long each took.
async fn call(store: Arc<SqliteStore>, caller: usize, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let asked = Instant::now();
        store.commit(signature(caller, latencies.len())).await?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

/// The entry of a signature as the service makes it, one of 16 keys.
fn signature(caller: usize, number: usize) -> Commit {
    let principal = Principal { name: "dns:participant1.example.com".into(), certificate: Some([0xab; 32]) };
    let at = Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(number).unwrap_or(0) * 100);
    let key = u8::try_from(caller % 16).unwrap_or(0);
    let event = AuditEvent {
        key: Some(KeyId::Pair(Fingerprint::from_digest([key; 32]))),
        node: "participant1".parse().ok(),
        algorithm: Some(Algorithm::Ed25519),
        digest: Some([0xcd; 32]),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        request_id: Some("01890a5d-ac96-774b-bcce-b302099a8057".into()),
        ..AuditEvent::new(at, principal, Operation::Sign, "sha256:0123456789abcdef".into())
    };
    Commit::entry(event)
}

/// CPU time of this process so far, all threads.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
