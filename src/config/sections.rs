//! The smaller sections of the configuration: unit, default and bounds of each option.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

#[cfg(feature = "postgresql")]
use crate::storage::PostgresConfig;
use crate::{
    audit::{KeyType, VerifierKey},
    domain::VaultId,
    mtls::ConnectionLimits,
    sinks::SinkConfig,
    vault::{CacheConfig, JobsConfig, LimitsConfig, MINIMUM_RETENTION},
};

/// An option and its fault.
type InvalidOption = Option<(&'static str, &'static str)>;

/// `[vault]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSection {
    /// The id of the vault. It is bound into every sealed key and wrap: a vault with another id opens none of them. Never change it. No
    /// default.
    pub id: VaultId,
    /// Which process of this vault, for the log. Default `main`.
    pub instance: Option<VaultId>,
}

impl VaultSection {
    /// The instance, or its default.
    pub fn instance(&self) -> &str {
        self.instance.as_ref().map_or("main", VaultId::as_str)
    }
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The database file (SQLite). This or `[storage.postgresql]` is required.
    pub path: Option<PathBuf>,
    /// How long a call waits for its entry to be durable before it is refused with `audit_unavailable`. 10 ms to 1 min; default `5s`.
    #[serde(default = "commit_timeout", with = "humantime_serde")]
    pub commit_timeout: Duration,
    /// How long a query of the audit log looks for entries. Then it answers with those found and a cursor that goes on. 1 ms to 2 s; default
    /// `500ms`.
    #[serde(default = "query_time", with = "humantime_serde")]
    pub query_time: Duration,
    /// `[storage.postgresql]`: a database that several replicas share. Default: none.
    #[cfg(feature = "postgresql")]
    pub postgresql: Option<PostgresConfig>,
}

/// `[log]`: log lines on standard error. This is not the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `json` (default) or `text`.
    pub format: LogFormat,
    /// Levels by module, as in `info,canton_keyvault=debug`. Default `info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: "info".to_owned() }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// How often a checkpoint of the log is signed, if the log grew. 1 s to 1 day; default `1m`.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// A file that gets the newest checkpoint. `serve` refuses to start with a store that is older than it. Put it on another disk than the
    /// database, where a restored or replaced database does not replace it too. Default: none.
    pub high_water_mark: Option<PathBuf>,
    /// Who cosigns checkpoints, at most 16. Default: nobody.
    pub witnesses: Vec<WitnessConfig>,
    /// How long an answer waits for the required sinks to confirm its entry. 10 ms to 1 min; default `2s`.
    #[serde(with = "humantime_serde")]
    pub sink_wait: Duration,
    /// How long entries stay in the database in any case. Older ones can be removed after they were archived. 1 s to 100 years; default `90days`.
    #[serde(with = "humantime_serde")]
    pub minimum_retention: Duration,
    /// `[[audit.sinks]]`: where entries are sent. At most 8. Default: none.
    pub sinks: Vec<SinkConfig>,
}

/// `[[audit.witnesses]]`: a witness of the log (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// The URL before `/add-checkpoint`, http or https.
    pub url: String,
    /// The verifier key of the witness, as C2SP tlog-cosignature has it.
    pub verifier_key: VerifierKey,
    /// PEM: the CAs that may sign the server certificate. Required for https.
    pub ca: Option<PathBuf>,
    /// Whether a missing cosignature is an error in the log instead of a warning. Default `false`.
    #[serde(default)]
    pub required: bool,
}

/// The most witnesses.
const MAX_WITNESSES: usize = 16;

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval: Duration::from_mins(1),
            high_water_mark: None,
            witnesses: Vec::new(),
            sink_wait: Duration::from_secs(2),
            minimum_retention: MINIMUM_RETENTION,
            sinks: Vec::new(),
        }
    }
}

impl AuditConfig {
    pub(super) fn problem(&self) -> InvalidOption {
        let intervals = Duration::from_secs(1)..=Duration::from_hours(24);
        let retentions = Duration::from_secs(1)..=Duration::from_hours(100 * 366 * 24);
        let waits = Duration::from_millis(10)..=Duration::from_mins(1);
        let is_witness = |witness: &WitnessConfig| witness.verifier_key.key_type() == KeyType::Witness;
        first([
            (!intervals.contains(&self.checkpoint_interval), "[audit] checkpoint_interval", "is not between 1s and 1day"),
            (!waits.contains(&self.sink_wait), "[audit] sink_wait", "is not between 10ms and 1m"),
            (!retentions.contains(&self.minimum_retention), "[audit] minimum_retention", "is not between 1s and 100 years"),
            (self.witnesses.len() > MAX_WITNESSES, "[[audit.witnesses]]", "are more than 16"),
            (!self.witnesses.iter().all(is_witness), "[[audit.witnesses]] verifier_key", "is the key of a log, not of a witness"),
        ])
    }
}

/// `[memory]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Keeps the process out of swap. `auto` (default): if limits allow it. `on`: refuses to start if they do not. `off`: never.
    pub lock: MemoryLock,
    /// Allows core dumps and debuggers. Default `false`.
    pub dumpable: bool,
}

/// Whether memory is locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryLock {
    /// If limits allow it.
    #[default]
    Auto,
    /// Always. The process does not start if it cannot.
    On,
    /// Never.
    Off,
}

impl StorageConfig {
    pub(super) fn problem(&self) -> InvalidOption {
        let timeouts = Duration::from_millis(10)..=Duration::from_mins(1);
        let times = Duration::from_millis(1)..=Duration::from_secs(2);
        #[cfg(feature = "postgresql")]
        let (is_postgresql, problem) = (self.postgresql.is_some(), self.postgresql.as_ref().and_then(PostgresConfig::problem));
        #[cfg(not(feature = "postgresql"))]
        let (is_postgresql, problem) = (false, None);
        let one = self.path.is_some() != is_postgresql;
        problem.or_else(|| {
            first([
                (!one, "[storage] path", "and [storage.postgresql]: name one of the two"),
                (!timeouts.contains(&self.commit_timeout), "[storage] commit_timeout", "is not between 10ms and 1m"),
                (!times.contains(&self.query_time), "[storage] query_time", "is not between 1ms and 2s"),
            ])
        })
    }
}

pub(super) fn cache_problem(cache: &CacheConfig) -> InvalidOption {
    let week = Duration::from_hours(7 * 24);
    first([
        (!(1..=1_000_000).contains(&cache.capacity), "[cache] capacity", "is not between 1 and 1000000"),
        (!(Duration::from_secs(1)..=week).contains(&cache.max_age), "[cache] max_age", "is not between 1s and 7days"),
        (cache.idle_timeout.is_zero(), "[cache] idle_timeout", "is zero; give a time such as 1h"),
        (cache.idle_timeout > cache.max_age, "[cache] idle_timeout", "is longer than max_age, so it would have no effect; shorten it"),
    ])
}

pub(super) fn connections_problem(limits: &ConnectionLimits) -> InvalidOption {
    const NONE: &str = "is 0, so that nobody could connect; give at least 1";
    const RANGE: &str = "is not between 10ms and 1h";
    let hour = Duration::from_millis(10)..=Duration::from_hours(1);
    let ConnectionLimits { total, reserved, per_principal, handshakes, ops, streams, .. } = limits;
    first([
        (!(1..=1_000_000).contains(total), "[connections] total", "is not between 1 and 1000000"),
        (
            reserved >= total,
            "[connections] reserved",
            "is not below total, so that only principals that can freeze could connect; lower it",
        ),
        (*per_principal == 0, "[connections] per_principal", NONE),
        (*handshakes == 0, "[connections] handshakes", NONE),
        (*ops == 0, "[connections] ops", NONE),
        (*streams == 0, "[connections] streams", "is 0, so that no request could be sent; give at least 1"),
        (!hour.contains(&limits.handshake_timeout), "[connections] handshake_timeout", RANGE),
        (!hour.contains(&limits.header_timeout), "[connections] header_timeout", RANGE),
        (!hour.contains(&limits.body_timeout), "[connections] body_timeout", RANGE),
        (!hour.contains(&limits.answer_timeout), "[connections] answer_timeout", RANGE),
        (!hour.contains(&limits.idle_timeout), "[connections] idle_timeout", RANGE),
        (!hour.contains(&limits.drain_timeout), "[connections] drain_timeout", RANGE),
        (limits.max_age < Duration::from_secs(1), "[connections] max_age", "is below 1s; give a time such as 1h"),
    ])
}

pub(super) fn limits_problem(limits: &LimitsConfig) -> InvalidOption {
    const ZERO: &str = "is 0, so that every call would be refused; give at least 1";
    let LimitsConfig {
        concurrent,
        concurrent_total,
        concurrent_heavy,
        concurrent_queries,
        cache_misses_per_second,
        creations_per_minute,
        changes_per_minute,
        information_per_second,
        refusals_per_second,
    } = limits;
    first([
        (*concurrent == 0, "[limits] concurrent", ZERO),
        (!(4..=100_000).contains(concurrent_total), "[limits] concurrent_total", "is not between 4 and 100000"),
        (*concurrent_heavy == 0, "[limits] concurrent_heavy", ZERO),
        (*concurrent_queries == 0, "[limits] concurrent_queries", ZERO),
        (*cache_misses_per_second == 0, "[limits] cache_misses_per_second", ZERO),
        (*creations_per_minute == 0, "[limits] creations_per_minute", ZERO),
        (*changes_per_minute == 0, "[limits] changes_per_minute", ZERO),
        (*information_per_second == 0, "[limits] information_per_second", ZERO),
        (*refusals_per_second == 0, "[limits] refusals_per_second", "is 0, so that no refusal had its entry; give at least 1"),
    ])
}

pub(super) fn jobs_problem(jobs: &JobsConfig) -> InvalidOption {
    let JobsConfig { keys_per_second, concurrency, retry_backoff } = jobs;
    first([
        (!(1..=10_000).contains(keys_per_second), "[jobs] keys_per_second", "is not between 1 and 10000"),
        (!(1..=256).contains(concurrency), "[jobs] concurrency", "is not between 1 and 256"),
        (
            !(Duration::from_millis(10)..=Duration::from_mins(10)).contains(retry_backoff),
            "[jobs] retry_backoff",
            "is not between 10ms and 10m",
        ),
    ])
}

impl LogConfig {
    pub(super) fn problem(&self) -> InvalidOption {
        let parsed = self.filter.parse::<tracing_subscriber::filter::Targets>();
        parsed.err().map(|_| ("[log] filter", "cannot be read; write levels such as info or info,canton_keyvault=debug"))
    }
}

fn first<const N: usize>(checks: [(bool, &'static str, &'static str); N]) -> InvalidOption {
    checks.into_iter().find_map(|(wrong, option, problem)| wrong.then_some((option, problem)))
}

const fn commit_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn query_time() -> Duration {
    Duration::from_millis(500)
}
