//! What a durable, audited Ed25519 signature costs over SQLite and over PostgreSQL with 1, 2 and 4 replicas, in one run: `cargo bench --bench replicas`
//!
//! All vaults, the database and the load share the machine, so that more replicas cannot add CPU here: what the run shows is what a signature costs, and
//! whether replicas hinder each other. With `-- --keys 100000 --entries 10000000`: what many keys and a long log cost in each of the two stores
//! (`scale.rs`). Needs the PostgreSQL server of `tests/postgresql/run.sh`, with `fsync = on`. Prints, and asserts nothing. `TMPDIR` chooses the disk.

#[path = "../compare/common.rs"]
mod common;
mod database;
#[path = "../sign/fill.rs"]
mod fill;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../compare/load.rs"]
mod load;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../log/queries.rs"]
mod queries;
mod replica;
mod scale;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../sign/server.rs"]
mod server;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use clap::Parser;

use common::{Folder, machine, median, signature, tls};
use database::Database;
use load::{Cell, Kind, Target, load};
use replica::Replica;
use server::Server;

#[derive(Parser)]
struct Args {
    /// How long each cell is loaded, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// How often; medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure stores with so many keys instead
    #[arg(long, default_value_t = 0)]
    keys: u32,
    /// And with so many entries in the log
    #[arg(long, default_value_t = 0)]
    entries: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Numbers of replicas over the database.
const REPLICAS: [usize; 3] = [1, 2, 4];
/// Numbers of connections, over all replicas.
const CONNECTIONS: [u32; 4] = [1, 4, 16, 64];
/// The storage of each replica.
const POSTGRESQL: &str = "[storage.postgresql]\nurl_file = \"postgresql.url\"";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // PostgreSQL runs as another user, who cannot read the folder of the vault.
    let (folder, home) = (Folder::new("vault")?, Folder::new("postgresql")?);
    let sqlite = Server::dev(&folder.0)?;
    let database = Database::start(&home.0, &folder.0.join("pki"))?;
    database.write_url(&folder.0.join("postgresql.url"))?;
    if args.keys > 0 {
        drop(sqlite);
        return scale::measure(&folder.0, args.keys, args.entries);
    }
    let most = REPLICAS.iter().max().copied().unwrap_or_default();
    let replicas =
        (0..most).map(|number| Replica::start(&folder.0, &format!("replica{number}"), POSTGRESQL)).collect::<Result<Vec<_>, _>>()?;
    let key = replicas.first().context("no replica")?.create_key(&folder.0)?;
    let tls = tls(&folder.0.join("pki"))?;
    let file = [signature(&sqlite.url, sqlite.pid(), &sqlite.key, &tls)?];
    let shared = replicas.iter().map(|replica| signature(&replica.url, replica.pid(), &key, &tls)).collect::<Result<Vec<Target>, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let time = Duration::from_secs(args.seconds.into());
    let mut cells: BTreeMap<(u32, usize), Vec<(Cell, f64)>> = BTreeMap::new();
    for _ in 0..args.rounds {
        for connections in CONNECTIONS {
            let cell = runtime.block_on(load(&file, Kind::Http1, connections, time, || Ok(Duration::ZERO)))?;
            cells.entry((connections, 0)).or_default().push(cell);
            for replicas in REPLICAS {
                let each = connections / u32::try_from(replicas)?;
                let Some(targets) = shared.get(..replicas).filter(|_| each > 0) else { continue };
                let cell = runtime.block_on(load(targets, Kind::Http1, each, time, || database.cpu_time()))?;
                cells.entry((connections, replicas)).or_default().push(cell);
            }
        }
    }
    print(&cells);
    for connections in [1, 4, 16] {
        let rate = runtime.block_on(database.commit_rate(connections, 600, time))?;
        println!("PostgreSQL alone, a commit for each row of 600 bytes, {connections} connections: {rate:.0} commits/s");
    }
    replicas.into_iter().try_for_each(Replica::stop)
}

fn print(cells: &BTreeMap<(u32, usize), Vec<(Cell, f64)>>) {
    println!("{}", machine());
    println!(
        "| connections | store | signatures/s | p50 ms | p99 ms | CPU µs of the vaults | CPU µs of PostgreSQL | throughput, SQLite = 1 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for ((connections, replicas), measured) in cells {
        let of =
            |replicas| cells.get(&(*connections, replicas)).map(|found| median(&found.iter().map(|(cell, _)| *cell).collect::<Vec<_>>()));
        let (Some(Cell { throughput, p50, p99, cpu }), Some(sqlite)) = (of(*replicas), of(0)) else { continue };
        let mut database: Vec<f64> = measured.iter().map(|(_, database)| *database).collect();
        database.sort_by(f64::total_cmp);
        let database = database.get(database.len() / 2).copied().unwrap_or_default();
        let name = match replicas {
            0 => "SQLite".to_owned(),
            number => format!("PostgreSQL, {number} replica{}", if *number == 1 { "" } else { "s" }),
        };
        let ratio = throughput / sqlite.throughput;
        println!("| {connections} | {name} | {throughput:.0} | {p50:.2} | {p99:.2} | {cpu:.1} | {database:.1} | {ratio:.2} |");
    }
}
