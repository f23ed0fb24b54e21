//! `audit verify`: verifies an export, or the database of a vault, offline. It names the first bad entry and the reason.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    time::Instant,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    audit::{
        Checkpoint,
        verify::{Depth, ExportVerifier, Finding, Place, Reason, TrustedKeys, Verified},
    },
    cli::{Failure, Format, audit::keys::not_verified, input, output::print_to},
    storage::{VerifyLogError, verify_log},
};

use super::keys::{VerifierKeyArgs, WitnessArgs, known_checkpoint};

/// The longest line that is read: a header with a note. An entry has some kilobytes at most.
const MAX_LINE: u64 = 4 << 20;

/// What to verify, and by which key.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The export; - for standard input. Several files are read as one log, each going on where the one before ends
    #[arg(value_name = "FILE|-", required_unless_present = "database")]
    exports: Vec<input::Place>,
    /// The database of a vault, or a backup, instead of an export: also its index columns, hashes and summaries are verified. It is not changed
    #[arg(long, value_name = "FILE", conflicts_with = "exports")]
    database: Option<PathBuf>,
    #[command(flatten)]
    keys: VerifierKeyArgs,
    #[command(flatten)]
    witnesses: WitnessArgs,
    /// A file with a checkpoint that was seen before, such as the high-water mark: the log must continue it
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs, format: Format) -> Result<(), Failure> {
    let trust = args.keys.keys()?.with_witnesses(args.witnesses.keys()?);
    let known = args.checkpoints.iter().map(|path| known_checkpoint(path, &trust)).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    let result = match &args.database {
        Some(database) => match verify_log(database, trust, known) {
            Err(VerifyLogError::Open(error)) => return Err(anyhow::Error::from(error).into()),
            Err(VerifyLogError::Found(finding)) => Err(finding),
            Ok(verified) => Ok(verified),
        },
        None => verify_files(&args.exports, &trust, &known)?,
    };
    match result {
        Ok(verified) => report(&verified, began.elapsed().as_secs_f64(), format),
        Err(finding) => {
            if format == Format::Json {
                print_to(&mut io::stdout().lock(), format, &failed(&finding))?;
            }
            Err(not_verified(&finding, ""))
        }
    }
}

fn unreadable(path: &dyn std::fmt::Display, error: &io::Error) -> Failure {
    anyhow::anyhow!("{path}: {error}").into()
}

/// Verifies exports as one log. The outer error is one of reading.
pub(super) fn verify_files(
    exports: &[input::Place],
    trust: &TrustedKeys,
    known: &[Checkpoint],
) -> Result<Result<Verified, Finding>, Failure> {
    let verify = |depth| {
        let mut export = ExportVerifier::new(trust.clone(), known.to_vec(), depth);
        for place in exports {
            let read = match place {
                input::Place::File(path) => open_and_verify(path, &mut export).map_err(|error| unreadable(&path.display(), &error)),
                input::Place::Standard => verify_lines(io::stdin().lock(), &mut export).map_err(|error| unreadable(&"-", &error)),
            };
            if let Err(finding) = read? {
                return Ok::<_, Failure>(Err(finding));
            }
        }
        Ok(export.finish())
    };
    if exports.contains(&input::Place::Standard) {
        // Standard input is read once.
        return verify(Depth::Full);
    }
    match verify(Depth::Fast)? {
        // The tree only shows that there is a changed entry. Its form may show which one.
        Err(finding) if finding.place != Place::Log && !matches!(finding.place, Place::Entry(_)) => {
            Ok(Err(verify(Depth::Full)?.err().filter(|full| matches!(full.place, Place::Entry(_))).unwrap_or(finding)))
        }
        result => Ok(result),
    }
}

fn open_and_verify(path: &Path, export: &mut ExportVerifier) -> io::Result<Result<(), Finding>> {
    verify_lines(BufReader::with_capacity(1 << 20, File::open(path)?), export)
}

/// Verifies line by line. The outer error is one of reading.
fn verify_lines(mut lines: impl BufRead, export: &mut ExportVerifier) -> io::Result<Result<(), Finding>> {
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        if (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(()));
        }
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == MAX_LINE {
            let why = format!("it is longer than {MAX_LINE} bytes");
            return Ok(Err(Finding::of_log(Reason::Unreadable { line: number, why })));
        }
        if let Err(finding) = export.line(&line) {
            return Ok(Err(finding));
        }
    }
}

/// The result for programs.
fn failed(finding: &Finding) -> Value {
    let (first, last) = match finding.place {
        Place::Log => (None, None),
        Place::Entry(sequence) => (Some(sequence), Some(sequence)),
        Place::Between { first, last } => (Some(first), Some(last)),
    };
    json!({
        "verified": false,
        "first_bad_entry": { "from": first, "to": last },
        "code": finding.reason.code(),
        "reason": finding.to_string(),
    })
}

fn report(verified: &Verified, seconds: f64, format: Format) -> Result<(), Failure> {
    let Verified { log, entries, first, last, first_at, last_at, covered, root, signer, .. } = verified;
    let Verified { removed_through, checkpoints, cosigned, complete, state_revision, incarnations, instances, accepted, .. } = verified;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = (*entries as f64 / seconds.max(1e-6)) as u64;
    let root = BASE64_STANDARD.encode(root);
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let incarnations: Vec<_> =
            incarnations.iter().map(|(sequence, number)| json!({ "sequence": sequence, "incarnation": number })).collect();
        let accepted: Vec<_> = accepted.iter().map(failed_before).collect();
        let document = json!({
            "verified": true, "log": log.to_string(), "complete": complete, "entries": entries, "first": first, "last": last,
            "first_at": first_at, "last_at": last_at, "checkpoints": checkpoints, "cosigned": cosigned, "covered": covered, "root": root,
            "verifier_key": signer.to_string(), "state_revision": state_revision, "instances": instances,
            "incarnations": incarnations, "accepted": accepted, "removed_through": removed_through, "seconds": seconds, "entries_per_second": rate,
        });
        return print_to(&mut out, format, &document);
    }
    let what = if *complete { "entries (all)" } else { "entries that fit a filter (others may be left out)" };
    let mut text = format!("verified: {entries} {what} of the log {log}, {first} to {last}");
    if let (Some(first), Some(last)) = (first_at, last_at) {
        let _ = write!(text, ", {first} to {last}");
    }
    let _ = writeln!(text, "\nthe newest of {checkpoints} checkpoints covers {covered} entries, root {root}\nsigned by {signer}");
    if let Some(cosigned) = cosigned {
        let _ = writeln!(text, "all given witnesses cosigned the checkpoint over {cosigned} entries");
    }
    if last > covered {
        let _ = writeln!(text, "NOT COVERED by a checkpoint yet: the entries {} to {last}", covered + 1);
    }
    if *removed_through > 0 {
        let _ = writeln!(
            text,
            "NOTE the entries up to {removed_through} were archived and removed, except state changes: verify the archive too"
        );
    }
    for (sequence, incarnation) in incarnations {
        let _ = writeln!(text, "NOTE entry {sequence}: an operator accepted an older or changed store, incarnation {incarnation} began");
    }
    for finding in accepted {
        let _ = writeln!(text, "NOTE accepted by an operator: {finding}");
    }
    let _ = write!(text, "{rate} entries per second");
    Ok(print_text(&mut out, &text)?)
}

fn failed_before(finding: &Finding) -> Value {
    json!({ "place": finding.place.to_string(), "code": finding.reason.code(), "reason": finding.reason.to_string() })
}

/// Prints lines. An export cannot bring control characters to the terminal.
fn print_text(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "{}", crate::cli::output::printable(line)))?;
    out.flush()
}
