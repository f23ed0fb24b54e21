//! `[[audit.sinks]]`: name, mode and kind of each sink, with the options of its kind. A wrong option is named together with its remedy.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

/// The most sinks of a vault. It bounds the values of the label `sink` of metrics.
pub const MAX_SINKS: usize = 8;

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct SinkConfig {
    /// What every kind of sink has.
    pub options: SinkOptions,
    /// The kind, with its own options.
    pub target: SinkTarget,
}

/// The options that every kind of sink has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// Its name, in metrics, log lines and entries, and of its cursor in the database: a sink with another name is a new sink. 1 to 32 lower case
    /// letters, digits and hyphens. No default.
    pub name: String,
    /// `required`: no answer leaves before the sink has its entry. `best-effort`: the sink never delays a call. No default.
    pub mode: SinkMode,
    /// Where a sink without a cursor begins: `now` (default) with the next entry, `beginning` with the first one.
    #[serde(default)]
    pub from: SinkStart,
    /// The time of one attempt to send a batch. 100 ms to 1 min; default `10s`.
    #[serde(default = "attempt_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Of a best-effort sink: if it is behind by more entries, those up to the newest one are not sent to it. The gap is an entry and a metric. From
    /// 100. Default: none, so that the sink gets every entry, however late.
    pub max_lag: Option<u64>,
}

/// What a sink means for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkMode {
    /// No answer leaves before the sink has its entry.
    Required,
    /// The sink never delays a call.
    BestEffort,
}

/// Where a new sink begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkStart {
    /// With the next entry.
    #[default]
    Now,
    /// With the first entry of the log.
    Beginning,
}

/// The kind of a sink, with its own options.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SinkTarget {
    /// A file that only grows.
    File(FileSinkConfig),
    /// Lines on standard output.
    Stdout,
    /// Syslog over TLS.
    Syslog(SyslogSinkConfig),
    /// Batches over HTTP.
    Http(HttpSinkConfig),
}

/// `kind = "file"`: one JSON line for each entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSinkConfig {
    /// The file. It is created if it is missing. No default.
    pub path: PathBuf,
    /// The size in bytes at which the file is renamed to `<path>.<sequence of its last entry>` and a new one is begun. From 65536; default 104857600
    /// (100 MiB).
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: u64,
    /// How many renamed files are kept. The oldest one is deleted first. 1 to 10000; default 10.
    #[serde(default = "kept_files")]
    pub kept_files: u32,
}

/// `kind = "http"`: a POST request for each batch. Each answer of 2xx confirms its batch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSinkConfig {
    /// `https://host[:port]/path`. No default.
    pub url: String,
    /// `ndjson` (default): one JSON line for each entry. `otlp`: OpenTelemetry logs (OTLP/HTTP with JSON).
    #[serde(default)]
    pub format: HttpFormat,
    /// PEM file of the CAs that may sign the certificate of the server. The CAs of the system are not used. Required for `https`. Read for every
    /// connection.
    pub ca: Option<PathBuf>,
    /// PEM file of a client certificate, leaf first. Default: none.
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key of `certificate`.
    pub key: Option<PathBuf>,
    /// A file that holds a bearer token and nothing else. It is read again when it changes. Default: none.
    pub token_file: Option<PathBuf>,
    /// Allows `http` to another machine: the network can read and change the entries and the token. Default `false`.
    #[serde(default)]
    pub plain_http: bool,
}

/// The body of an HTTP sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpFormat {
    /// One JSON line for each entry.
    #[default]
    Ndjson,
    /// OpenTelemetry logs.
    Otlp,
}

/// `kind = "syslog"`: RFC 5424 messages over TLS (RFC 5425).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogSinkConfig {
    /// `host:port`. The certificate of the server must have this host name. No default.
    pub address: String,
    /// PEM file of the CAs that may sign the certificate of the server. The CAs of the system are not used. Read for every connection. No default.
    pub ca: PathBuf,
    /// PEM file of a client certificate, leaf first. Default: none.
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key of `certificate`.
    pub key: Option<PathBuf>,
    /// The facility, 0 to 23. Default 13 (log audit).
    #[serde(default = "facility")]
    pub facility: u8,
    /// The HOSTNAME of the messages. Default: the id of the vault.
    pub hostname: Option<String>,
    /// The id of the structured data: a name, `@` and the private enterprise number of the operator. Default `keyvault@32473`, with the number that
    /// is reserved for examples.
    #[serde(default = "structured_data")]
    pub structured_data: String,
}

/// The options of [`SinkOptions`].
const COMMON: &[&str] = &["name", "mode", "from", "timeout", "max_lag"];

/// The kinds.
const KINDS: &[&str] = &["file", "stdout", "syslog", "http"];

impl TryFrom<toml::Table> for SinkConfig {
    type Error = String;

    fn try_from(mut own: toml::Table) -> Result<Self, String> {
        let name = own.get("name").and_then(toml::Value::as_str).unwrap_or("?").to_owned();
        let wrong = |what: &str| format!("[[audit.sinks]] {name}: {what}");
        let mut common = toml::Table::new();
        for option in COMMON {
            if let Some((option, value)) = own.remove_entry(*option) {
                common.insert(option, value);
            }
        }
        let kind = own.get("kind").and_then(toml::Value::as_str).unwrap_or_default();
        if !KINDS.contains(&kind) {
            return Err(wrong(&format!("kind is none of {}; write one of them", KINDS.join(", "))));
        }
        if kind == "stdout"
            && let Some(option) = own.keys().find(|option| *option != "kind")
        {
            return Err(wrong(&format!("unknown field `{option}`: kind = \"stdout\" has no options of its own; remove it")));
        }
        let options: SinkOptions = common.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
        let target: SinkTarget = own.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
        Ok(Self { options, target })
    }
}

impl SinkConfig {
    /// Makes file names relative to the folder of the configuration.
    pub fn resolve(&mut self, folder: &Path) {
        let files: Vec<&mut PathBuf> = match &mut self.target {
            SinkTarget::File(file) => vec![&mut file.path],
            SinkTarget::Stdout => Vec::new(),
            SinkTarget::Http(HttpSinkConfig { ca, certificate, key, token_file, .. }) => {
                [ca, certificate, key, token_file].into_iter().flatten().collect()
            }
            SinkTarget::Syslog(SyslogSinkConfig { ca, certificate, key, .. }) => {
                let mut files = vec![ca];
                files.extend([certificate, key].into_iter().flatten());
                files
            }
        };
        for file in files {
            *file = folder.join(&file);
        }
    }
}

const fn attempt_timeout() -> Duration {
    Duration::from_secs(10)
}

const fn rotate_bytes() -> u64 {
    100 << 20
}

const fn kept_files() -> u32 {
    10
}

const fn facility() -> u8 {
    13
}

fn structured_data() -> String {
    "keyvault@32473".to_owned()
}
