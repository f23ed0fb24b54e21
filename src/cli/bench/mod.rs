//! `bench`: puts load on a vault and reports requests, latencies, and the CPU time of the server for each request.
//!
//! Closed loop: each connection sends its next request when it has the answer. Open loop (`--rate`): requests are due at a fixed pace,
//! whatever the vault does. The latency counts from when the request was due, so that a pause of the server shows in every request that it
//! delayed.

mod ciphertext;
mod load;
mod process;
mod recorder;
mod report;
mod target;
mod vault_target;
mod worker;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use self::load::{Load, Pace};
use self::target::BenchTarget;
use self::vault_target::VaultTarget;
use super::{ConnectionArgs, Failure, reference::KeyReference, value_parsers::words};
use crate::domain::{Algorithm, KeySpec, NodeName};

/// The options of a load.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The kind of service
    #[arg(long = "target", value_enum, default_value_t = TargetKind::Keyvault)]
    target: TargetKind,
    /// What each request does
    #[arg(long, value_enum, default_value_t = BenchOperation::Sign)]
    operation: BenchOperation,
    /// The algorithm; the first one of the operation if absent
    #[arg(long, value_parser = words::<Algorithm>())]
    algorithm: Option<Algorithm>,
    /// Use this key: its id, the beginning of its id, or its name
    #[arg(long, value_name = "KEY", conflicts_with_all = ["node", "key_ids_file"])]
    key_id: Option<KeyReference>,
    /// Use the keys in this file in turn, one id per line; `cold` uses each once
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    key_ids_file: Option<PathBuf>,
    /// Create keys on this node first
    #[arg(long)]
    node: Option<NodeName>,
    /// The number of keys to create; they are used in turn
    #[arg(long, default_value_t = 1, value_name = "N", requires = "node", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    keys: u32,
    /// The scheme of created keys, if the algorithm allows several
    #[arg(long, value_parser = words::<KeySpec>(), requires = "node")]
    spec: Option<KeySpec>,
    /// Messages in each request, with `sign` only: several use `sign-batch`
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    batch: u32,
    /// Bytes of message or plaintext in each request
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4096))]
    message_bytes: u32,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Open loop: the number of requests a second, whatever the vault does
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The warm-up before the measurement; 2s if absent, none for `cold`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    warmup: Option<Duration>,
    /// Process id of the server on this machine, to report its CPU and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

/// The kind of service that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TargetKind {
    /// Canton Key Vault
    Keyvault,
}

/// What each request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchOperation {
    /// Sign the same message again and again
    Sign,
    /// Decrypt the same ciphertext again and again
    Decrypt,
    /// Encrypt the same plaintext again and again
    Encrypt,
    /// Open a connection with a full handshake and sign once
    Connect,
    /// Sign once with each key of --key-ids-file; cold if the vault was restarted before, or holds more keys than its cache
    Cold,
}

impl BenchOperation {
    /// The name of it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Decrypt => "decrypt",
            Self::Encrypt => "encrypt",
            Self::Connect => "connect",
            Self::Cold => "cold",
        }
    }
}

impl BenchArgs {
    fn warmup(&self) -> Duration {
        self.warmup.unwrap_or(if self.operation == BenchOperation::Cold { Duration::ZERO } else { Duration::from_secs(2) })
    }
}

/// Prepares, runs, measures and reports.
pub(super) fn run(connection: &ConnectionArgs, args: &BenchArgs) -> Result<(), Failure> {
    if args.batch > 1 && args.operation != BenchOperation::Sign {
        return Err(Failure::Usage("--batch: only `sign` has several messages in a request".into()));
    }
    if args.duration.is_zero() {
        return Err(Failure::Usage("--duration: there is nothing to measure in no time".into()));
    }
    let endpoints = connection.endpoints()?;
    let endpoints = if args.operation == BenchOperation::Connect { endpoints.without_resumption() } else { endpoints };
    let target = match args.target {
        TargetKind::Keyvault => VaultTarget::new(endpoints.clone(), connection.timeout),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = runtime.block_on(target.prepare(args))?;
    drop(runtime);
    let load = Load {
        endpoints,
        requests: work.requests.into(),
        code_of: target.code_of(),
        connections: args.connections,
        threads: args.threads.min(args.connections),
        pace: args.rate.map_or(Pace::Closed, Pace::Open),
        connect_each_time: args.operation == BenchOperation::Connect,
        each_once: args.operation == BenchOperation::Cold,
        warmup: args.warmup(),
        duration: args.duration,
        timeout: connection.timeout,
    };
    let measured = load::run(&load, args.server_pid)?;
    report::print(connection.output, &report::document(connection, args, &work.attributes, &measured))
}

fn positive(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or("write a number above 0")
}
