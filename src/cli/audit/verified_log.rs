//! Reads the log from its beginning, from a vault or from an export, and verifies it while it reads: one pass, in constant memory. Other commands look
//! at each entry on the way.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    export_stream::{ExportStream, Line},
    filters::FilterArgs,
    keys::{self, known_checkpoint},
};
use crate::{
    audit::{
        Entry,
        verify::{Depth, ExportVerifier, Finding, Reason, TrustedKeys, Verified},
    },
    cli::{Failure, connection::Remote},
};

/// The longest line that is read.
const MAX_LINE: u64 = 4 << 20;

/// How the log is verified.
#[derive(Debug, Args)]
pub(in crate::cli) struct TrustArgs {
    /// The verifier key of the log, or a file with one on each line; if absent, the keys that the vault itself publishes. Take it from a place that an
    /// attacker who changes the log cannot change
    #[arg(long = "verifier-key", value_name = "KEY|FILE")]
    verifier_keys: Vec<String>,
    /// A file with a checkpoint that was seen before, such as the high-water mark: the log must continue it
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
}

/// A log after it was read.
pub(in crate::cli) struct ReadLog {
    /// What it was verified with.
    pub(in crate::cli) trust: Trust,
    /// Where it comes from.
    pub(in crate::cli) source: String,
    /// Its name, of the first header.
    pub(in crate::cli) origin: Option<String>,
    /// The number of entries before the first one that was read.
    pub(in crate::cli) before: u64,
    /// Whether entries are left out, because the principal sees some nodes only or the export has filters.
    pub(in crate::cli) filtered: bool,
    /// The number of entries that were read.
    pub(in crate::cli) entries: u64,
    /// The number of lines that are no entry, where one should be.
    pub(in crate::cli) unreadable: u64,
    /// The result of the verification.
    pub(in crate::cli) result: Result<Verified, Finding>,
}

/// What a log was verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Trust {
    /// Whether the verifier keys were given. Otherwise the vault itself published them.
    pub(in crate::cli) pinned: bool,
    /// The number of checkpoints that were seen before.
    pub(in crate::cli) checkpoints: usize,
}

impl TrustArgs {
    /// The given keys. `None` if none is given.
    fn given(&self) -> Result<Option<TrustedKeys>, Failure> {
        if self.verifier_keys.is_empty() { Ok(None) } else { keys::trusted(&self.verifier_keys).map(Some) }
    }

    fn verifier(&self, keys: TrustedKeys) -> Result<ExportVerifier, Failure> {
        let known = self.checkpoints.iter().map(|path| known_checkpoint(path, &keys)).collect::<Result<Vec<_>, _>>()?;
        Ok(ExportVerifier::new(keys, known, Depth::Fast))
    }

    /// Reads the log of a vault.
    pub(in crate::cli) async fn read_vault(&self, remote: &Remote, mut look: impl FnMut(&Entry)) -> Result<ReadLog, Failure> {
        let given = self.given()?;
        let pinned = given.is_some();
        // First, because a vault has no verifier key before its first checkpoint, which the export makes.
        let mut export = ExportStream::begin_with_first(remote, &FilterArgs::default()).await?;
        let keys = match given {
            Some(keys) => keys,
            None => keys::published(remote).await?,
        };
        let mut reader = Reader::new(self.verifier(keys)?);
        while let Some((_, line)) = export.next().await? {
            reader.line(line, &mut look);
        }
        Ok(reader.finish(self.trust(pinned), "the vault, over its API".into()))
    }

    /// Reads an export in a file.
    pub(in crate::cli) fn read_file(&self, path: &Path, mut look: impl FnMut(&Entry)) -> Result<ReadLog, Failure> {
        let keys = self
            .given()?
            .ok_or_else(|| Failure::Usage("--verifier-key: needed with --export, because no vault is asked for its key".into()))?;
        let unreadable = |error: std::io::Error| Failure::Usage(format!("--export {}: {error}", path.display()));
        let mut reader = Reader::new(self.verifier(keys)?);
        let mut lines = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            line.pop_if(|last| *last == b'\n');
            reader.line(&line, &mut look);
        }
        Ok(reader.finish(self.trust(true), format!("the export {}", path.display())))
    }

    const fn trust(&self, pinned: bool) -> Trust {
        Trust { pinned, checkpoints: self.checkpoints.len() }
    }
}

/// The log while it is read. After the first finding it is no longer verified, and still read.
struct Reader {
    verifier: ExportVerifier,
    finding: Option<Finding>,
    origin: Option<String>,
    before: u64,
    filtered: bool,
    entries: u64,
    unreadable: u64,
}

impl Reader {
    const fn new(verifier: ExportVerifier) -> Self {
        Self { verifier, finding: None, origin: None, before: 0, filtered: false, entries: 0, unreadable: 0 }
    }

    fn line(&mut self, line: &[u8], look: &mut impl FnMut(&Entry)) {
        if self.finding.is_none() {
            self.finding = self.verifier.line(line).err();
        }
        match Line::of(line) {
            Some(Line::Header(header)) => {
                self.filtered |= header.filter.is_some();
                if self.origin.is_none() {
                    (self.origin, self.before) = (Some(header.origin), header.after);
                }
            }
            Some(Line::Entry(_)) => match Entry::decode(line) {
                Ok(entry) => {
                    self.entries += 1;
                    look(&entry);
                }
                Err(error) => self.is_unreadable(&error.to_string()),
            },
            Some(Line::Proof | Line::Checkpoint | Line::End(_)) => {}
            None => self.is_unreadable("the line is none of an export"),
        }
    }

    /// An entry that this program cannot read is not counted: the report must not look complete.
    fn is_unreadable(&mut self, why: &str) {
        self.unreadable += 1;
        let next = self.entries.saturating_add(self.unreadable);
        self.finding.get_or_insert_with(|| Finding::at(next, Reason::NotAnEntry(why.to_owned())));
    }

    fn finish(self, trust: Trust, source: String) -> ReadLog {
        let Self { verifier, finding, origin, before, filtered, entries, unreadable } = self;
        let result = finding.map_or_else(|| verifier.finish(), Err);
        ReadLog { trust, source, origin, before, filtered, entries, unreadable, result }
    }
}
