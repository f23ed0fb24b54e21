//! The report of a verification: what was verified, which keys open, and the KMS calls, so that the log of the KMS can be compared with it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::{Failure, Format, progress::Counts},
    domain::{Hex, KeyId, NodeName, Timestamp},
    kms::KmsCalls,
    storage::BackupHead,
    vault::{Code, Rollback},
};

/// A key that does not open.
#[derive(Serialize)]
pub(super) struct FailedKey {
    /// `None` if the row has no readable id.
    pub(super) key_id: Option<KeyId>,
    /// `None` if it cannot be read.
    pub(super) node: Option<NodeName>,
    pub(super) code: Code,
    pub(super) why: String,
}

/// The verified bytes.
pub(super) struct Fingerprint {
    pub(super) sha256: [u8; 32],
    pub(super) bytes: u64,
}

/// How the audit log of the backup compares with known checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogComparison {
    /// It contains, unchanged, every entry of every known checkpoint.
    Complete,
    /// It is the beginning of the log, as every backup after the next checkpoint. A start with it needs `--accept-rollback`.
    Older(String),
    /// It is not the log of the checkpoints, or it was changed.
    Differs(String),
}

impl LogComparison {
    pub(super) fn of(rollback: Option<&Rollback>) -> Self {
        match rollback {
            None => Self::Complete,
            Some(older @ (Rollback::Older { .. } | Rollback::OlderIncarnation { .. })) => Self::Older(older.to_string()),
            Some(other) => Self::Differs(other.to_string()),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Older(_) => "older",
            Self::Differs(_) => "differs",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Complete => None,
            Self::Older(reason) | Self::Differs(reason) => Some(reason),
        }
    }
}

/// What is known so far.
pub(super) struct Report {
    path: PathBuf,
    started_at: Timestamp,
    ended: Option<(Timestamp, bool)>,
    pub(super) file: Option<Fingerprint>,
    pub(super) head: Option<BackupHead>,
    /// How its audit log compares with the newest checkpoint in it and with the high-water mark.
    pub(super) log: Option<LogComparison>,
    pub(super) opened: u64,
    pub(super) destroyed: u64,
    /// Keys that the log knows and that have no row. They are among the failed ones.
    pub(super) missing: u64,
    pub(super) failed: Vec<FailedKey>,
    /// The calls of the KMS so far.
    pub(super) kms_calls: Option<Arc<KmsCalls>>,
    kms_request_ids: Vec<String>,
}

impl Report {
    pub(super) fn new(path: &Path, started_at: Timestamp) -> Self {
        Self {
            path: path.to_owned(),
            started_at,
            ended: None,
            file: None,
            head: None,
            log: None,
            opened: 0,
            destroyed: 0,
            missing: 0,
            failed: Vec::new(),
            kms_calls: None,
            kms_request_ids: Vec::new(),
        }
    }

    pub(super) fn end(&mut self, at: Timestamp, complete: bool) {
        self.ended = Some((at, complete));
        self.kms_request_ids.extend(self.kms_calls.iter().flat_map(|calls| calls.take_kept()));
    }

    /// The keys of the table and those that are missing in it.
    fn total(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.keys) + self.missing
    }

    fn failures(&self) -> u64 {
        self.failed.len() as u64
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { done: self.opened + self.destroyed, failed: self.failures(), total: self.total() }
    }

    /// Whether the log is not another one, every row of the table was read, and every key opens or was destroyed.
    pub(super) fn is_good(&self) -> bool {
        !matches!(self.log, None | Some(LogComparison::Differs(_)))
            && self.failed.is_empty()
            && self.opened + self.destroyed == self.total()
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        // Nothing was read, so that the error says everything.
        let (Some(file), Some(head)) = (&self.file, &self.head) else { return Ok(()) };
        match format {
            Format::Text => self.print_text(file, head),
            Format::Json => writeln!(std::io::stdout(), "{}", self.document(file, head)).map_err(Failure::from),
        }
    }

    fn print_text(&self, file: &Fingerprint, head: &BackupHead) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        for FailedKey { key_id, node, code, why } in &self.failed {
            let key = key_id.map_or_else(|| "a key".to_owned(), |id| id.to_string());
            let node = node.as_ref().map_or_else(String::new, |node| format!(" of {node}"));
            writeln!(out, "{key}{node} does not open: {code}: {why}")?;
        }
        for id in &self.kms_request_ids {
            writeln!(out, "KMS request {id}")?;
        }
        writeln!(out, "{} ({} bytes), SHA-256 {}", self.path.display(), file.bytes, Hex(&file.sha256))?;
        let leaf = head.leaf.map_or_else(|| "-".to_owned(), |leaf| Hex(&leaf).to_string());
        writeln!(
            out,
            "vault {}, newest audit entry {} with leaf hash {leaf}, store revision {}",
            head.vault, head.sequence, head.store_revision
        )?;
        if let Some(log) = &self.log {
            let reason = log.reason().map_or_else(String::new, |reason| format!(": {reason}"));
            writeln!(out, "audit log compared with checkpoints: {}{reason}", log.name())?;
        }
        let (ended_at, complete) = self.ended.unwrap_or((self.started_at, false));
        writeln!(out, "{} to {ended_at}, {} KMS requests", self.started_at, self.kms_request_ids.len())?;
        let not_tried = self.total().saturating_sub(self.opened + self.destroyed + self.failures());
        let rest = if complete && not_tried == 0 { String::new() } else { format!(", {not_tried} keys were not tried") };
        writeln!(
            out,
            "{} keys: {} keys open, {} keys do not open, {} destroyed keys{rest}",
            self.total(),
            self.opened,
            self.failures(),
            self.destroyed
        )?;
        Ok(())
    }

    fn document(&self, file: &Fingerprint, head: &BackupHead) -> Value {
        json!({
            "file": self.path,
            "bytes": file.bytes,
            "sha256": Hex(&file.sha256).to_string(),
            "vault": head.vault,
            "log": {
                "sequence": head.sequence,
                "leaf": head.leaf.map(|leaf| Hex(&leaf).to_string()),
                "store_revision": head.store_revision,
                "compared": self.log.as_ref().map(LogComparison::name),
                "difference": self.log.as_ref().and_then(LogComparison::reason),
            },
            "started_at": self.started_at,
            "finished_at": self.ended.map(|(at, _)| at),
            "complete": self.ended.is_some_and(|(_, complete)| complete),
            "keys": self.total(),
            "opened": self.opened,
            "destroyed": self.destroyed,
            "failed": self.failed,
            "kms_request_ids": self.kms_request_ids,
        })
    }
}
