//! Sinks of the audit log: places outside the database that get a copy of each entry. A sink gets entries in order, and confirms a batch as a
//! whole or not at all.
//!
//! | file | holds |
//! |---|---|
//! | `config`, `config_checks` | `[[audit.sinks]]`: the options of each kind, and the first wrong one |
//! | `file` | lines in a file that only grows, with rotation |
//! | `stdout` | lines on standard output |
//! | `http`, `otlp` | batches over HTTPS, as lines or as OTLP logs |
//! | `bearer_token` | the token of an HTTP sink, from a file |
//! | `syslog` | RFC 5424 messages over TLS (RFC 5425) |
//! | `endpoint` | the address of a server, and TLS to it |

mod bearer_token;
mod config;
mod config_checks;
mod endpoint;
mod file;
mod http;
mod otlp;
mod stdout;
mod syslog;

use std::{io, path::PathBuf, time::Duration};

use async_trait::async_trait;

use crate::domain::Timestamp;

pub use self::{
    config::{
        FileSinkConfig, HttpFormat, HttpSinkConfig, MAX_SINKS, SinkConfig, SinkMode, SinkOptions, SinkStart, SinkTarget, SyslogSinkConfig,
    },
    config_checks::problem,
};

/// An entry for a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkEntry {
    /// The sequence number.
    pub sequence: u64,
    /// The time of the entry.
    pub at: Timestamp,
    /// Whether the call succeeded.
    pub ok: bool,
    /// The W3C trace id of the caller.
    pub trace_id: Option<String>,
    /// The stored bytes: one line of JSON.
    pub bytes: Vec<u8>,
}

/// Where a log comes from, for the forms that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSource {
    /// The id of the vault.
    pub vault: String,
    /// The instance.
    pub instance: String,
}

/// A place that gets entries.
#[async_trait]
pub trait EntrySink: Send {
    /// Sends entries, and returns when the sink has all of them. The call may be dropped at any point. After an error or a drop, the same entries
    /// are sent again, so that a sink may have an entry twice.
    ///
    /// # Errors
    /// [`SinkFault`]: the sink has possibly not all of the entries.
    async fn send(&mut self, batch: &[SinkEntry]) -> Result<(), SinkFault>;

    /// Tries whether the sink can take entries, without sending one. The text says what was found.
    ///
    /// # Errors
    /// [`SinkFault`].
    async fn probe(&mut self) -> Result<String, SinkFault>;
}

/// Why a sink does not have the entries.
#[derive(Debug, thiserror::Error)]
pub enum SinkFault {
    /// The file cannot be written.
    #[error("{}: {error}", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The disk is full.
    #[error("{}: the disk is full; free some space", .0.display())]
    DiskFull(PathBuf),
    /// The earlier write has not ended. Its disk or reader does not answer.
    #[error("the write before has not ended; its disk or its reader does not answer")]
    Busy,
    /// A file of the configuration cannot be used: a certificate, a key, a token.
    #[error("{}: {problem}", file.display())]
    Settings {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The network or the server.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The reason.
        reason: String,
    },
    /// A certificate is not accepted.
    #[error("TLS with {address} failed: {reason}; check ca, and the name in the certificate of the server")]
    Tls {
        /// Host and port.
        address: String,
        /// The reason.
        reason: String,
    },
    /// The server answered, but does not confirm the entries.
    #[error("{address} does not confirm the entries: {answer}")]
    NotConfirmed {
        /// Host and port.
        address: String,
        /// The status, or what the answer says.
        answer: String,
    },
    /// The time of one attempt is over.
    #[error("no confirmation within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
}

impl SinkFault {
    /// The fault in words without paths and addresses, because `/readyz` shows it to everybody.
    pub const fn in_short(&self) -> &'static str {
        match self {
            Self::Write { .. } => "cannot be written",
            Self::DiskFull(_) => "its disk is full",
            Self::Busy => "the write before has not ended",
            Self::Settings { .. } => "a file of its configuration cannot be used",
            Self::Unreachable { .. } => "cannot be reached",
            Self::Tls { .. } => "TLS failed",
            Self::NotConfirmed { .. } => "its server does not confirm entries",
            Self::TimedOut(_) => "no confirmation in time",
        }
    }

    fn write(file: &std::path::Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(file.to_owned()),
            _ => Self::Write { file: file.to_owned(), error },
        }
    }
}

/// The sink of a configuration. Nothing is opened before the first batch.
pub fn open(target: &SinkTarget, source: &LogSource) -> Box<dyn EntrySink> {
    match target {
        SinkTarget::File(config) => Box::new(file::FileSink::new(config)),
        SinkTarget::Stdout => Box::new(stdout::StdoutSink::new()),
        SinkTarget::Http(config) => Box::new(http::HttpSink::new(config, source)),
        SinkTarget::Syslog(config) => Box::new(syslog::SyslogSink::new(config, source)),
    }
}

/// The entries as lines.
fn lines(batch: &[SinkEntry]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.iter().map(|entry| entry.bytes.len() + 1).sum());
    for entry in batch {
        lines.extend_from_slice(&entry.bytes);
        lines.push(b'\n');
    }
    lines
}
