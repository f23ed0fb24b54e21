//! The entries of the audit log: from the vault while they arrive, or from an export, which is verified. One entry is in memory at a time.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    audit::{
        Entry,
        reconcile::{Reconciliation, WrapperKeySet},
        verify::{Depth, ExportVerifier},
    },
    cli::{
        Failure,
        audit::{
            export_stream::{ExportStream, Line},
            filters::FilterArgs,
            keys::{not_verified, trusted},
        },
        connection::Remote,
    },
    client::Call,
    domain::{JobId, Timestamp},
    server::run::clock,
};

/// The longest line of an export, in bytes.
const LONGEST_LINE: u64 = 4 << 20;
/// Microseconds before and after the period of the files, whose entries may be about a call in it.
const AROUND: i64 = 3600 * 1_000_000;

/// The wrapper keys that the entries of an export register. The entries are verified when they are read again.
pub(super) fn wrapper_keys(export: &Path, keys: &mut WrapperKeySet) -> Result<(), Failure> {
    read(export, None, |entry| register(entry, keys)).map(drop)
}

/// Reads an export and verifies it.
pub(super) fn from_export(
    export: &Path,
    verifier_keys: &[String],
    known: &WrapperKeySet,
    reconciliation: &mut Reconciliation,
) -> Result<(), Failure> {
    let verifier = ExportVerifier::new(trusted(verifier_keys)?, Vec::new(), Depth::Full);
    let mut keys = known.clone();
    let verifier = read(export, Some(verifier), |entry| {
        register(entry, &mut keys)?;
        reconciliation.entry(entry);
        Ok(())
    })?;
    if let Some(verifier) = verifier {
        verifier.finish().map_err(|finding| not_verified(&finding, &format!("{}: ", export.display())))?;
    }
    if keys == *known { Ok(()) } else { Err(anyhow::anyhow!("{}: the file changed while it was read", export.display()).into()) }
}

fn register(entry: &Entry, keys: &mut WrapperKeySet) -> Result<(), Failure> {
    let mut identities = entry.wrapper_keys.iter().filter_map(|change| change.identity.as_deref());
    identities.try_for_each(|identity| keys.add(identity)).map_err(|error| Failure::Unexpected(error.to_string()))
}

/// Reads the entries of an export.
fn read(
    path: &Path,
    mut verifier: Option<ExportVerifier>,
    mut each: impl FnMut(&Entry) -> Result<(), Failure>,
) -> Result<Option<ExportVerifier>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("--export {}: {why}", path.display()));
    let mut lines = BufReader::with_capacity(1 << 20, File::open(path).map_err(|error| unusable(&error))?);
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        if (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|error| unusable(&error))? == 0 {
            return Ok(verifier);
        }
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == LONGEST_LINE {
            return Err(unusable(&format_args!("line {number} is longer than {LONGEST_LINE} bytes")));
        }
        if let Some(verifier) = &mut verifier {
            verifier.line(&line).map_err(|finding| not_verified(&finding, &format!("{}: ", path.display())))?;
        }
        match Line::of(&line) {
            Some(Line::Entry(_)) => each(&decoded(&line)?)?,
            Some(_) => {}
            None => return Err(unusable(&format_args!("line {number} is none of an export in --format ndjson"))),
        }
    }
}

/// Reads the entries around the period of the files from the vault. With verifier keys, each is proven to be in the log.
pub(super) async fn from_vault(remote: &Remote, verifier_keys: &[String], reconciliation: &mut Reconciliation) -> Result<(), Failure> {
    let around = |at: Timestamp, micros: i64| Timestamp::from_micros(at.micros().saturating_add(micros));
    let (from, to) = reconciliation.period().unzip();
    let filters = FilterArgs { from: from.map(|from| around(from, -AROUND)), to: to.map(|to| around(to, AROUND)), ..FilterArgs::default() };
    let asked = clock()();
    let mut verifier = match verifier_keys {
        [] => None,
        given => Some(ExportVerifier::new(trusted(given)?, Vec::new(), Depth::Full)),
    };
    let mut export = ExportStream::begin_with_first(remote, &filters).await?;
    while let Some((line, bytes)) = export.next().await? {
        if let Some(verifier) = &mut verifier {
            verifier.line(bytes).map_err(|finding| not_verified(&finding, ""))?;
        }
        if matches!(line, Line::Entry(_)) {
            reconciliation.entry(&decoded(bytes)?);
        }
    }
    if let Some(verifier) = verifier {
        verifier.finish().map_err(|finding| not_verified(&finding, ""))?;
    }
    reconciliation.entries_until(filters.to.map_or(asked, |to| to.min(asked)));
    for job in reconciliation.jobs_without_start() {
        start_of(remote, job, reconciliation).await?;
    }
    Ok(())
}

/// The first entry that names a job is the one of its start.
async fn start_of(remote: &Remote, job: JobId, reconciliation: &mut Reconciliation) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let answer = remote.client.success(Call::get("/v1/audit/entries").query_if("job", Some(job)).query_if("limit", Some(1))).await?;
    let Page { items } = answer.parse()?;
    for item in items {
        // In an answer, an entry has its leaf hash as its last field.
        let entry = item.get().rsplit_once(",\"leaf\":").map_or_else(|| item.get().to_owned(), |(entry, _)| format!("{entry}}}"));
        reconciliation.job(&decoded(entry.as_bytes())?);
    }
    Ok(())
}

fn decoded(bytes: &[u8]) -> Result<Entry, Failure> {
    Entry::decode(bytes).map_err(|error| Failure::Unexpected(format!("an entry cannot be read: {error}")))
}
