//! What a durable, audited Ed25519 signature costs, beside the floor that no server can go below. `cargo bench --bench sign`
//!
//! Starts the release binary in `dev` on a folder of its own and, beside it, two floors (see `floor.rs`): one that signs, one that
//! verifies too, as the vault must. All three stand under the same load in turn, so that a busy machine is busy for all of them:
//! compare the CPU of a request and the ratios, not the wall. Prints, and asserts nothing. `TMPDIR` chooses the disk.

mod fill;
mod floor;
mod keys;
mod server;

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use serde_json::Value;

use server::{PROGRAM, Server};

#[derive(Parser)]
struct Args {
    /// How long each cell is loaded, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How often; medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<u32>,
    /// Measure a vault with so many keys instead
    #[arg(long, default_value_t = 0)]
    keys: u32,
    /// Be a floor, in this folder: for the benchmark itself
    #[arg(long, hide = true)]
    floor: Option<std::path::PathBuf>,
    /// Verify each signature, as a floor
    #[arg(long, hide = true)]
    verify: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.floor {
        return floor::serve(folder, args.verify);
    }
    if args.keys > 0 {
        return keys::measure(args.keys);
    }
    let folder = Folder::new()?;
    let vault = starts(Server::dev(&folder.0)?, &folder)?;
    let servers = [vault, Server::floor(&folder.0, true)?, Server::floor(&folder.0, false)?];
    let mut cells: BTreeMap<(u32, usize), Vec<Cell>> = BTreeMap::new();
    for _ in 0..args.rounds {
        for connections in &args.connections {
            for (number, server) in servers.iter().enumerate() {
                let cell = Cell::measure(server, &folder, *connections, args.seconds)?;
                cells.entry((*connections, number)).or_default().push(cell);
            }
        }
    }
    println!("{:>6}  {:22} {:>10} {:>8} {:>8} {:>10} {:>7}", "conns", "server", "requests/s", "p50 ms", "p99 ms", "CPU us", "MiB");
    for ((connections, number), cells) in &cells {
        let median = |of: fn(&Cell) -> f64| median(cells.iter().map(of).collect());
        let name = servers.get(*number).map_or("", |server| server.name);
        println!(
            "{connections:>6}  {name:22} {:>10.0} {:>8.2} {:>8.2} {:>10.1} {:>7.1}",
            median(|cell| cell.throughput),
            median(|cell| cell.p50),
            median(|cell| cell.p99),
            median(|cell| cell.cpu),
            median(|cell| cell.resident)
        );
    }
    servers.into_iter().try_for_each(|mut server| server.stop())
}

/// Starts the vault five times more, and says how long it took until it had signed once over mTLS.
fn starts(mut vault: Server, folder: &Folder) -> anyhow::Result<Server> {
    let (mut times, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        vault.stop()?;
        vault = Server::dev(&folder.0)?;
        times.push(vault.started_in.as_secs_f64() * 1e3);
        idle.push(vault.resident()?);
    }
    println!("start to first signature: {:.0} ms; resident then: {:.1} MiB (medians of 5)", median(times), median(idle));
    Ok(vault)
}

/// One server under one load.
struct Cell {
    throughput: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    resident: f64,
}

impl Cell {
    fn measure(server: &Server, folder: &Folder, connections: u32, seconds: u32) -> anyhow::Result<Self> {
        let pki = |file: &str| folder.0.join("pki").join(file);
        let mut bench = Command::new(PROGRAM);
        bench.args(["bench", "--output", "json", "--warmup", "500ms", "--url", &server.url, "--key-id", &server.key]);
        bench.args(["--duration", &format!("{seconds}s"), "--connections", &connections.to_string()]);
        bench.args(["--server-pid", &server.pid().to_string()]).arg("--ca").arg(pki("ca.pem"));
        bench.arg("--cert").arg(pki("participant1.pem")).arg("--key").arg(pki("participant1.key"));
        let output = bench.output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no {pointer} in {report}"));
        anyhow::ensure!(at("/errors_total")? == 0.0, "refused: {report}");
        Ok(Self {
            throughput: at("/throughput_per_second")?,
            p50: at("/latency_microseconds/p50")? / 1e3,
            p99: at("/latency_microseconds/p99")? / 1e3,
            cpu: at("/server/cpu_microseconds_per_request")?,
            resident: at("/server/resident_bytes_after")? / f64::from(1 << 20),
        })
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// A folder that goes away with the benchmark.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("sign-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A server that is still writing may need a moment.
        std::thread::sleep(Duration::from_millis(100));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
