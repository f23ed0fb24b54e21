//! Reads an export line by line and verifies it: a header with a checkpoint, entries as they are stored, a last line with their number.
//!
//! The format is in docs/audit-verification.md. A resumed export has a further header. A filtered export has a proof for each entry, which shows that the
//! entry is in the log, and not that no other one fits the filter.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, de::IgnoredAny};

use crate::audit::{
    Checkpoint, SignedNote, VerifierKey, leaf_hash,
    merkle::{Frontier, Hash, verify_inclusion},
};

use super::{Depth, Finding, LogCheck, LogName, Reason, TrustedKeys, Verified, head::EntryHead, log::read_checkpoint};

/// What begins the line of an entry.
const ENTRY: &[u8] = b"{\"v\":";

/// An export while it is verified.
#[derive(Debug)]
pub struct ExportVerifier {
    trust: TrustedKeys,
    known: Vec<Checkpoint>,
    depth: Depth,
    line: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Before the first header.
    None,
    Whole(Box<Whole>),
    Filtered(Box<Filtered>),
}

/// All entries of the log from one on.
#[derive(Debug)]
struct Whole {
    log: LogCheck,
    /// That of the newest header.
    checkpoint: (SignedNote, Checkpoint),
    /// The number of entries before the newest header.
    before_part: u64,
    has_end: bool,
}

/// Some entries, each with its proof.
#[derive(Debug)]
struct Filtered {
    name: LogName,
    checkpoint: Checkpoint,
    signer: VerifierKey,
    checkpoints: u64,
    demands_witnesses: bool,
    /// The entry before, and its leaf hash while its proof is missing.
    last: u64,
    unproven: Option<Hash>,
    first: u64,
    entries: u64,
    in_part: u64,
    first_at: Option<String>,
    last_at: Option<String>,
    has_end: bool,
}

/// A line that is no entry.
#[derive(Deserialize)]
struct Control {
    export: Option<u64>,
    origin: Option<String>,
    checkpoint: Option<String>,
    #[serde(default)]
    after: u64,
    filter: Option<IgnoredAny>,
    #[serde(default)]
    frontier: Vec<String>,
    proof: Option<Vec<String>>,
    end: Option<End>,
}

#[derive(Deserialize)]
struct End {
    last: u64,
    entries: u64,
}

impl ExportVerifier {
    /// Begins an export. `known` are checkpoints that were seen before, of which the signatures are verified.
    pub const fn new(trust: TrustedKeys, known: Vec<Checkpoint>, depth: Depth) -> Self {
        Self { trust, known, depth, line: 0, body: Body::None }
    }

    /// The next line, without its newline.
    ///
    /// # Errors
    /// The first finding. The rest of the export need not be read then.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Finding> {
        self.line += 1;
        if line.starts_with(ENTRY) {
            return self.entry(line);
        }
        match serde_json::from_slice(line) {
            Ok(Control { export: Some(version), origin: Some(origin), checkpoint, after, filter, frontier, .. }) => {
                if version != 1 {
                    return Err(self.unreadable(format!("it is of the version {version}, and this program knows 1")));
                }
                let frontier = hashes(&frontier).ok_or(Finding::of_log(Reason::Frontier))?;
                self.header(&origin, checkpoint.as_deref(), after, filter.is_some(), frontier)
            }
            Ok(Control { proof: Some(proof), .. }) => self.proof(&proof),
            Ok(Control { end: Some(end), .. }) => self.end(&end),
            Ok(Control { checkpoint: Some(note), export: None, .. }) => match &mut self.body {
                Body::Whole(whole) if !whole.has_end => {
                    whole.log.stored_checkpoint(&note);
                    Ok(())
                }
                _ => Err(self.unreadable("a checkpoint does not belong here".into())),
            },
            Ok(_) => Err(self.unreadable("it is neither a header nor an entry, a proof, a checkpoint or the last line".into())),
            // What was an entry is told by its place.
            Err(_) if matches!(&self.body, Body::Whole(whole) if !whole.has_end) => self.entry(line),
            Err(error) => Err(self.unreadable(error.to_string())),
        }
    }

    fn unreadable(&self, why: String) -> Finding {
        Finding::of_log(Reason::Unreadable { line: self.line, why })
    }

    fn header(&mut self, origin: &str, note: Option<&str>, after: u64, filtered: bool, frontier: Vec<Hash>) -> Result<(), Finding> {
        let name = self.log_name(origin)?;
        let note = note.ok_or(Finding::of_log(Reason::NoCheckpoint))?;
        let (note, checkpoint) = read_checkpoint(note).map_err(Finding::of_log)?;
        if checkpoint.origin != origin {
            let (found, expected) = (checkpoint.origin, origin.to_owned());
            return Err(Finding::of_log(Reason::OtherLog { found, expected }));
        }
        match (&mut self.body, filtered) {
            (Body::None, false) => {
                let before = Frontier::of(after, frontier).ok_or(Finding::of_log(Reason::Frontier))?;
                let log = LogCheck::begin(name, before, self.trust.clone(), std::mem::take(&mut self.known), self.depth)?;
                self.body = Body::Whole(Box::new(Whole { log, checkpoint: (note, checkpoint), before_part: after, has_end: false }));
            }
            (Body::None, true) => {
                let signer = self.trust.signer(&note, origin, checkpoint.size).map_err(Finding::of_log)?;
                if let Some(newer) = self.known.iter().find(|known| known.size > checkpoint.size) {
                    return Err(Finding::at(checkpoint.size + 1, Reason::RolledBack(newer.size)));
                }
                if let Some(known) = self.known.iter().find(|known| known.size != checkpoint.size) {
                    return Err(Finding::of_log(Reason::NotCompared(known.size)));
                }
                if let Some(known) = self.known.iter().find(|known| known.root != checkpoint.root) {
                    return Err(Finding::of_log(Reason::Forked(known.size)));
                }
                cosigned(&self.trust, &note, &checkpoint)?;
                let mut filtered = Filtered::new(name, checkpoint, signer, after);
                filtered.demands_witnesses = self.trust.demands_witnesses();
                self.body = Body::Filtered(Box::new(filtered));
            }
            (Body::Whole(whole), false) => whole.continue_with((note, checkpoint), after, frontier)?,
            (Body::Filtered(filtered), true) => {
                let signer = self.trust.signer(&note, origin, checkpoint.size).map_err(Finding::of_log)?;
                cosigned(&self.trust, &note, &checkpoint)?;
                filtered.continue_with(checkpoint, signer, after)?;
            }
            (Body::Whole(_) | Body::Filtered(_), _) => return Err(self.unreadable("its filter is not that of the first header".into())),
        }
        Ok(())
    }

    /// The log that the export names, which must be the one of the verifier key.
    fn log_name(&self, origin: &str) -> Result<LogName, Finding> {
        let expected = LogName::of(self.trust.origin()).map(|(name, _)| name);
        let found = LogName::of(origin).map(|(name, _)| name);
        match (found, expected) {
            (Some(found), Some(expected)) if found == expected => Ok(found),
            (_, expected) => {
                let expected = expected.map_or_else(|| self.trust.origin().to_owned(), |name| name.to_string());
                Err(Finding::of_log(Reason::OtherLog { found: origin.to_owned(), expected }))
            }
        }
    }

    fn entry(&mut self, line: &[u8]) -> Result<(), Finding> {
        match &mut self.body {
            Body::Whole(whole) if !whole.has_end => {
                whole.log.entry(line, |_| {})?;
                let size = whole.log.size();
                if size > whole.checkpoint.1.size {
                    return Err(whole.log.fail_at(size, Reason::NotCovered));
                }
                Ok(())
            }
            Body::Filtered(filtered) if !filtered.has_end => filtered.entry(line),
            Body::None => Err(self.unreadable("an entry stands before the header".into())),
            Body::Whole(_) | Body::Filtered(_) => Err(self.unreadable("an entry stands after the last line".into())),
        }
    }

    fn proof(&mut self, proof: &[String]) -> Result<(), Finding> {
        match &mut self.body {
            Body::Filtered(filtered) if !filtered.has_end => filtered.proof(proof),
            _ => Err(self.unreadable("a proof does not belong here".into())),
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Finding> {
        match &mut self.body {
            Body::Whole(whole) if !whole.has_end => {
                whole.has_end = true;
                let (note, checkpoint) = &whole.checkpoint;
                whole.log.conclude(note, checkpoint)?;
                let found = whole.log.size() - whole.before_part;
                count(end, found, end.last == whole.log.size())
            }
            Body::Filtered(filtered) if !filtered.has_end => {
                filtered.is_proven()?;
                filtered.has_end = true;
                count(end, filtered.in_part, end.last >= filtered.last)
            }
            _ => Err(self.unreadable("a last line does not belong here".into())),
        }
    }

    /// The result, after the last line.
    ///
    /// # Errors
    /// The first finding.
    pub fn finish(self) -> Result<Verified, Finding> {
        let line = self.line;
        match self.body {
            Body::None => Err(Finding::of_log(Reason::Unreadable { line, why: "it has no header".into() })),
            Body::Whole(whole) if whole.has_end => whole.log.finish(),
            Body::Whole(mut whole) => {
                let next = whole.log.size() + 1;
                Err(if next <= whole.checkpoint.1.size { whole.log.fail_at(next, Reason::NoEnd) } else { Finding::of_log(Reason::NoEnd) })
            }
            Body::Filtered(filtered) if filtered.has_end => Ok(filtered.verified()),
            Body::Filtered(_) => Err(Finding::of_log(Reason::NoEnd)),
        }
    }
}

/// A filtered export has no other checkpoint that the witnesses may have cosigned.
fn cosigned(trust: &TrustedKeys, note: &SignedNote, checkpoint: &Checkpoint) -> Result<(), Finding> {
    let missing = trust.missing_witness(note).map(str::to_owned);
    missing.map_or(Ok(()), |witness| Err(Finding::of_log(Reason::NotCosigned { size: checkpoint.size, witness })))
}

fn count(end: &End, found: u64, last_agrees: bool) -> Result<(), Finding> {
    let End { last, entries } = *end;
    if entries == found && last_agrees { Ok(()) } else { Err(Finding::of_log(Reason::OtherCount { counted: entries, last, found })) }
}

impl Whole {
    /// A further header: the export was resumed.
    fn continue_with(&mut self, newest: (SignedNote, Checkpoint), after: u64, frontier: Vec<Hash>) -> Result<(), Finding> {
        let size = self.log.size();
        if after != size {
            let reason = if after > size { Reason::Missing(after + 1) } else { Reason::Duplicate };
            return Err(self.log.fail_at(after.min(size) + 1, reason));
        }
        if Frontier::of(after, frontier).as_ref() != Some(self.log.frontier()) {
            return Err(Finding::of_log(Reason::Frontier));
        }
        let (note, checkpoint) = std::mem::replace(&mut self.checkpoint, newest);
        if !self.has_end {
            self.log.trust().signer(&note, &checkpoint.origin, checkpoint.size).map_err(Finding::of_log)?;
            self.log.expect(checkpoint)?;
        }
        (self.before_part, self.has_end) = (size, false);
        Ok(())
    }
}

impl Filtered {
    const fn new(name: LogName, checkpoint: Checkpoint, signer: VerifierKey, after: u64) -> Self {
        let (first_at, last_at) = (None, None);
        let (entries, in_part, first) = (0, 0, 0);
        Self {
            name,
            checkpoint,
            signer,
            checkpoints: 1,
            demands_witnesses: false,
            last: after,
            unproven: None,
            first,
            entries,
            in_part,
            first_at,
            last_at,
            has_end: false,
        }
    }

    fn continue_with(&mut self, checkpoint: Checkpoint, signer: VerifierKey, after: u64) -> Result<(), Finding> {
        self.is_proven()?;
        if after < self.last {
            return Err(Finding::at(after + 1, Reason::Duplicate));
        }
        (self.checkpoint, self.signer, self.last) = (checkpoint, signer, after);
        self.checkpoints += 1;
        (self.in_part, self.has_end) = (0, false);
        Ok(())
    }

    fn is_proven(&self) -> Result<(), Finding> {
        if self.unproven.is_some() { Err(Finding::at(self.last, Reason::Proof)) } else { Ok(()) }
    }

    fn entry(&mut self, line: &[u8]) -> Result<(), Finding> {
        self.is_proven()?;
        let head = EntryHead::read(line).map_err(|why| Finding::at(self.last + 1, Reason::NotAnEntry(why)))?;
        if head.sequence <= self.last {
            return Err(Finding::at(head.sequence, if head.sequence == self.last { Reason::Duplicate } else { Reason::Moved(self.last) }));
        }
        if head.vault != self.name.vault {
            let (found, expected) = (head.vault.to_owned(), self.name.vault.clone());
            return Err(Finding::at(head.sequence, Reason::OtherLog { found, expected }));
        }
        if self.first == 0 {
            (self.first, self.first_at) = (head.sequence, Some(head.at.to_owned()));
        }
        (self.last, self.last_at) = (head.sequence, Some(head.at.to_owned()));
        self.unproven = Some(leaf_hash(line));
        self.entries += 1;
        self.in_part += 1;
        Ok(())
    }

    fn proof(&mut self, proof: &[String]) -> Result<(), Finding> {
        let Checkpoint { size, root, .. } = &self.checkpoint;
        let leaf = self.unproven.take();
        let valid = leaf.zip(hashes(proof)).is_some_and(|(leaf, proof)| verify_inclusion(&proof, self.last - 1, leaf, *size, root));
        if valid { Ok(()) } else { Err(Finding::at(self.last, Reason::Proof)) }
    }

    fn verified(self) -> Verified {
        Verified {
            log: self.name,
            entries: self.entries,
            first: self.first,
            last: self.last,
            first_at: self.first_at,
            last_at: self.last_at,
            covered: self.checkpoint.size,
            root: self.checkpoint.root,
            signer: self.signer,
            checkpoints: self.checkpoints,
            cosigned: self.demands_witnesses.then_some(self.checkpoint.size),
            complete: false,
            state_revision: Some(self.checkpoint.state_revision),
            incarnations: Vec::new(),
            instances: Vec::new(),
            accepted: Vec::new(),
            removed_through: 0,
        }
    }
}

/// Hashes in base64.
fn hashes(encoded: &[String]) -> Option<Vec<Hash>> {
    encoded.iter().map(|hash| BASE64_STANDARD.decode(hash).ok()?.try_into().ok()).collect()
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test has few entries")]
mod tests;
