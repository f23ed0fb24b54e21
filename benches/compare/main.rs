//! A durable, audited Ed25519 signature beside its floors and beside OpenBao Transit, all in one run: `cargo bench --bench compare`
//!
//! The vault in `dev`; a floor with the same TLS, HTTP, group commit and cryptography of the vault and nothing else; a floor that does not verify its
//! signatures; and OpenBao with its audit device, with its defaults and tuned. Each row is measured for all servers in turn, in each round, so that a
//! busy machine is busy for all of them: compare ratios of one run. Prints, and asserts nothing. `TMPDIR` chooses the disk. OpenBao comes from a package
//! index (`tests/openbao/requirements.txt`), and its set-up needs curl.

mod common;
#[path = "../sign/floor.rs"]
mod floor;
mod load;
mod openbao;
#[path = "../sign/server.rs"]
mod server;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use rustls::ClientConfig;
use serde_json::json;

use common::{Folder, MESSAGE, machine, median, resuming, signature, tls};
use load::{Cell, Kind, Target};
use openbao::Openbao;
use server::Server;

#[derive(Parser)]
struct Args {
    /// How long each cell is loaded, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// How often; medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Without OpenBao
    #[arg(long)]
    without_openbao: bool,
    /// Be a floor, in this folder: for the benchmark itself
    #[arg(long, hide = true)]
    floor: Option<PathBuf>,
    /// Verify each signature, as a floor
    #[arg(long, hide = true)]
    verify: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One kind of load.
struct Row {
    name: &'static str,
    kind: Kind,
    number: u32,
    /// Messages in each call.
    batch: u32,
    /// Whether OpenBao is measured too.
    openbao: bool,
}

const fn row(name: &'static str, kind: Kind, number: u32) -> Row {
    Row { name, kind, number, batch: 1, openbao: true }
}

const ROWS: &[Row] = &[
    row("1 connection", Kind::Http1, 1),
    row("16 connections", Kind::Http1, 16),
    row("64 connections", Kind::Http1, 64),
    row("1000/s over 16 connections", Kind::Rate(1000), 16),
    row("new connections, 8 at a time", Kind::Connect { resume: false }, 8),
    row("resumed connections, 8 at a time", Kind::Connect { resume: true }, 8),
    Row { openbao: false, ..row("1 HTTP/2 connection, 16 streams", Kind::Http2, 16) },
    Row { openbao: false, batch: 16, ..row("16 connections, 16 messages a call", Kind::Http1, 16) },
];

const VAULT: &str = "vault";
const SERVERS: [&str; 5] = [VAULT, "floor that verifies", "floor", "OpenBao, defaults", "OpenBao, tuned"];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.floor {
        return floor::serve(folder, args.verify);
    }
    let folder = Folder::new("compare")?;
    let pki = folder.0.join("pki");
    let servers = [Server::dev(&folder.0)?, Server::floor(&folder.0, true)?, Server::floor(&folder.0, false)?];
    let openbao = if args.without_openbao { None } else { Some(Openbao::start(&folder.0, &pki)?) };
    let tls = tls(&pki)?;
    let mut targets = BTreeMap::new();
    for (name, server) in SERVERS.iter().zip(&servers) {
        targets.insert(*name, signature(&server.url, server.pid(), &server.key, &tls)?);
    }
    if let Some(openbao) = &openbao {
        for (name, token) in SERVERS.iter().skip(3).zip([&openbao.default_token, &openbao.tuned_token]) {
            targets.insert(*name, of_openbao(openbao, token, &tls));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut cells: BTreeMap<(usize, usize), Vec<Cell>> = BTreeMap::new();
    for _ in 0..args.rounds {
        for (number, row) in ROWS.iter().enumerate() {
            for (server, name) in SERVERS.iter().enumerate() {
                let measured = (server < 3 || row.openbao) && (server == 0 || (row.batch == 1 && !matches!(row.kind, Kind::Http2)));
                let Some(target) = targets.get(name).filter(|_| measured) else { continue };
                let target = if row.batch > 1 { batch(target, row.batch) } else { target.clone() };
                let time = Duration::from_secs(args.seconds.into());
                let cell = runtime.block_on(target.load(row.kind, row.number, time)).with_context(|| format!("{name}, {}", row.name))?;
                cells.entry((number, server)).or_default().push(per_signature(cell, row.batch));
            }
        }
    }
    print(&cells);
    for server in &servers {
        let started = server.started_in.as_millis();
        println!("{}: {started} ms from its start until it was ready, {:.1} MiB resident after the load", server.name, server.resident()?);
    }
    if let Some(openbao) = &openbao {
        println!("OpenBao: {:.1} MiB resident after the load", server::resident(openbao.pid())?);
    }
    servers.into_iter().try_for_each(|mut server| server.stop())
}

/// The cost of one signature of a call with several.
fn per_signature(cell: Cell, batch: u32) -> Cell {
    let batch = f64::from(batch);
    Cell { throughput: cell.throughput * batch, cpu: cell.cpu / batch, ..cell }
}

fn print(cells: &BTreeMap<(usize, usize), Vec<Cell>>) {
    println!("{}", machine());
    println!("| load | server | signatures/s | p50 ms | p99 ms | CPU µs | CPU, vault = 1 | throughput, vault = 1 | p99, vault = 1 |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (number, row) in ROWS.iter().enumerate() {
        let of = |server: usize| cells.get(&(number, server)).map(|cells| median(cells));
        let Some(vault) = of(0) else { continue };
        for (server, name) in SERVERS.iter().enumerate() {
            let Some(Cell { throughput, p50, p99, cpu }) = of(server) else { continue };
            let ratios = [cpu / vault.cpu, throughput / vault.throughput, p99 / vault.p99].map(|ratio| format!("{ratio:.2}"));
            let name_of_row = if server == 0 { row.name } else { "" };
            println!("| {name_of_row} | {name} | {throughput:.0} | {p50:.2} | {p99:.2} | {cpu:.1} | {} |", ratios.join(" | "));
        }
    }
}

/// The same message several times in one call.
fn batch(target: &Target, number: u32) -> Target {
    let messages: Vec<_> = (0..number).map(|_| json!({ "message": MESSAGE })).collect();
    let body = json!({ "algorithm": "ed25519", "messages": messages }).to_string();
    Target { path: format!("{}-batch", target.path), body, expected: "\"signatures\"", ..target.clone() }
}

fn of_openbao(openbao: &Openbao, token: &str, tls: &Arc<ClientConfig>) -> Target {
    Target {
        address: ([127, 0, 0, 1], openbao.port).into(),
        pid: openbao.pid(),
        path: "/v1/transit/sign/bench".into(),
        token: Some(token.to_owned()),
        body: json!({ "input": MESSAGE }).to_string(),
        expected: "vault:v1:",
        tls: Arc::clone(tls),
        resuming: resuming(tls),
    }
}
