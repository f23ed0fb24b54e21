//! The stream of an export of the log: its lines by kind. An export that ends without its last line is an error.

use serde::Deserialize;
use serde_json::Value;

use super::filters::FilterArgs;
use crate::{
    cli::{Failure, connection::Remote, output::warn_of_removed},
    client::{Call, ClientError, Lines},
    vault::Code,
};

/// The first line of an export, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Header {
    /// The version of the form.
    pub(super) export: u32,
    /// The name of the log.
    pub(super) origin: String,
    /// The entry after which it begins.
    pub(super) after: u64,
    /// What is left out.
    #[serde(default)]
    pub(super) filter: Option<Value>,
    /// The entries up to this one were archived and removed, except state changes.
    #[serde(default)]
    pub(super) removed_through: Option<u64>,
}

impl Header {
    /// Says on standard error what the entries that follow cannot have.
    fn warn_of_removed(&self) {
        if let Some(removed) = self.removed_through {
            warn_of_removed(removed);
        }
    }
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct End {
    /// The last entry of the log that the export covers.
    pub(super) last: u64,
    /// The number of entries since the header.
    pub(super) entries: u64,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The header.
    Header(Header),
    /// An entry with this sequence number.
    Entry(u64),
    /// The inclusion proof of the entry before.
    Proof,
    /// An earlier checkpoint, over the entries up to here.
    Checkpoint,
    /// The end.
    End(End),
}

impl Line {
    /// What this line is. `None` if it is no line of an export.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Numbered {
            sequence: u64,
        }
        #[derive(Deserialize)]
        struct Last {
            end: End,
        }
        if bytes.starts_with(b"{\"v\":") {
            serde_json::from_slice(bytes).ok().map(|Numbered { sequence }| Self::Entry(sequence))
        } else if bytes.starts_with(b"{\"proof\":") {
            Some(Self::Proof)
        } else if bytes.starts_with(b"{\"checkpoint\":") {
            Some(Self::Checkpoint)
        } else if bytes.starts_with(b"{\"export\":") {
            serde_json::from_slice(bytes).ok().filter(|header: &Header| header.export == 1).map(Self::Header)
        } else if bytes.starts_with(b"{\"end\":") {
            serde_json::from_slice(bytes).ok().map(|Last { end }| Self::End(end))
        } else {
            None
        }
    }
}

/// An export while it arrives.
pub(super) struct ExportStream {
    lines: Lines,
    entries: u64,
    end: Option<End>,
}

impl ExportStream {
    /// Begins the export of the entries after `after`.
    pub(super) async fn begin(remote: &Remote, filters: &FilterArgs, after: Option<u64>) -> Result<Self, Failure> {
        let lines = remote.client.lines(filters.query(Call::get("/v1/audit/export"), after)).await?;
        Ok(Self { lines, entries: 0, end: None })
    }

    /// Begins the export of all entries that the vault has, and says where they begin if earlier ones were archived and removed.
    pub(super) async fn begin_with_first(remote: &Remote, filters: &FilterArgs) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Removed {
            removed_through: u64,
        }
        match Self::begin(remote, filters, None).await {
            Err(Failure::Client(ClientError::Problem(problem))) if problem.code == Code::EntriesRemoved.as_str() => {
                let answer = remote.client.success(Call::get("/v1/audit/checkpoint")).await?;
                let Removed { removed_through } = answer.parse()?;
                eprintln!("note: the entries up to {removed_through} were archived and removed; those after it follow");
                Self::begin(remote, filters, Some(removed_through)).await
            }
            begun => begun,
        }
    }

    /// The next line and its bytes. `None` after the end.
    pub(super) async fn next(&mut self) -> Result<Option<(Line, &[u8])>, Failure> {
        let Some(bytes) = self.lines.next().await? else {
            return match self.end {
                Some(end) if end.entries == self.entries => Ok(None),
                Some(_) => Err(Failure::Unexpected("the export has another number of entries than its last line says".into())),
                None => Err(Failure::Unexpected("the export ended before its last line. Repeat it, or continue it with --resume".into())),
            };
        };
        let line = Line::of(bytes).ok_or_else(|| Failure::Unexpected("the vault sent a line that is none of an export".into()))?;
        match &line {
            Line::Entry(_) => self.entries += 1,
            Line::End(end) => self.end = Some(*end),
            Line::Header(header) => header.warn_of_removed(),
            Line::Proof | Line::Checkpoint => {}
        }
        Ok(Some((line, bytes)))
    }
}
