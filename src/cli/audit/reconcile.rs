//! `audit reconcile`: compares the log of a KMS with the audit log, in both directions. It names the calls of a wrapper key that the vault did not make, and the
//! calls of the vault that the log of the KMS does not have.

mod entries;
mod kms_files;
mod result;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    audit::reconcile::{CallSet, Period, Reconciliation, Report, WrapperKeySet},
    cli::{
        Failure,
        connection::{ConnectionArgs, Remote},
        value_parsers::time_or_date,
    },
    client::Call,
    domain::Timestamp,
    files,
};

/// The logs to compare.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Files of AWS CloudTrail (JSON, also compressed with gzip), or folders with them
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1.., required_unless_present = "openbao")]
    cloudtrail: Vec<PathBuf>,
    /// Files of an OpenBao audit device, or folders with them
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1..)]
    openbao: Vec<PathBuf>,
    /// An export of the audit log, instead of the entries of the vault. It is verified, and needs no vault
    #[arg(long, value_name = "FILE", requires = "verifier_keys")]
    export: Option<PathBuf>,
    /// The verifier key of the log, or a file with one on each line: the entries are verified by it
    #[arg(long = "verifier-key", value_name = "KEY|FILE")]
    verifier_keys: Vec<String>,
    /// The report of a verify-backup (--output json) or of a check (--report), whose calls no entry has
    #[arg(long = "report", alias = "verify-backup-report", value_name = "FILE")]
    reports: Vec<PathBuf>,
    /// A wrapper key that the entries do not name, by its identity or ARN
    #[arg(long = "wrapper-key", value_name = "IDENTITY|ARN")]
    wrapper_keys: Vec<String>,
    /// The files have all calls since this time: RFC 3339, or a date (00:00 UTC). Without it, since their first call
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    from: Option<Timestamp>,
    /// The files have all calls before this time. Without it, up to 15 minutes before their last call
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    to: Option<Timestamp>,
    /// The most calls that are kept in memory: about 500 bytes for each call of a wrapper key, 50 for others
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    max_calls: usize,
}

/// The longest report, in bytes: a hundred thousand keys.
const LONGEST_REPORT: u64 = 64 << 20;

/// Runs the command.
pub(super) async fn run(args: &ReconcileArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    let reports = args.reports.iter().map(|path| read_report(path)).collect::<Result<Vec<_>, _>>()?;
    let mut keys = WrapperKeySet::default();
    for key in &args.wrapper_keys {
        keys.add(key).map_err(|error| Failure::Usage(format!("--wrapper-key: {error}")))?;
    }
    let remote = if args.export.is_none() { Some(connection.remote()?) } else { None };
    match (&args.export, &remote) {
        (Some(export), _) => entries::wrapper_keys(export, &mut keys)?,
        (None, Some(remote)) => registered(remote, &mut keys).await?,
        (None, None) => {}
    }
    if keys.is_empty() {
        let fix = "Name the wrapper key with --wrapper-key, if the export begins after its registration";
        return Err(Failure::Usage(format!("the entries name no wrapper key in a KMS with a log. {fix}")));
    }
    let mut calls = CallSet::new(args.max_calls);
    kms_files::cloudtrail(&args.cloudtrail, &keys, &mut calls)?;
    kms_files::openbao(&args.openbao, &keys, &mut calls)?;

    let period = Period { from: args.from, to: args.to };
    let given = (!args.cloudtrail.is_empty(), !args.openbao.is_empty());
    let mut reconciliation = Reconciliation::new(calls, period, &keys, given);
    if reconciliation.period().is_none() {
        let fix = "Say which period the files cover with --from and --to";
        return Err(Failure::Usage(format!("the files have no call of a KMS. {fix}")));
    }
    for report in reports {
        reconciliation.report(report);
    }
    match (&args.export, &remote) {
        (Some(export), _) => entries::from_export(export, &args.verifier_keys, &keys, &mut reconciliation)?,
        (None, Some(remote)) => entries::from_vault(remote, &args.verifier_keys, &mut reconciliation).await?,
        (None, None) => {}
    }
    result::report(&reconciliation.finish(), keys.len(), connection.output)
}

/// The wrapper keys that are registered in the vault, retired ones included.
async fn registered(remote: &Remote, keys: &mut WrapperKeySet) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Item>,
        next_cursor: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item {
        identity: String,
    }
    let mut cursor: Option<String> = None;
    loop {
        let answer = remote.client.success(Call::get("/v1/wrapper-keys").query_if("cursor", cursor.as_ref())).await?;
        let Page { items, next_cursor } = answer.parse()?;
        for Item { identity } in items {
            keys.add(&identity).map_err(|error| Failure::Unexpected(error.to_string()))?;
        }
        if next_cursor.is_none() || next_cursor == cursor {
            return Ok(());
        }
        cursor = next_cursor;
    }
}

/// Reads the report of a command.
fn read_report(path: &Path) -> Result<Report, Failure> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        kind: Option<String>,
        started_at: Timestamp,
        finished_at: Timestamp,
        kms_request_ids: Vec<String>,
        #[serde(default)]
        file: Value,
    }
    let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("--report {}: {why}", path.display()));
    let bytes = files::read(path, LONGEST_REPORT).map_err(|error| unusable(&error))?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| unusable(&format_args!("not a report of verify-backup or check: {error}")))?;
    let Document { kind, started_at, finished_at, kms_request_ids, file } = document;
    let what = kind.unwrap_or_else(|| format!("verify-backup of {}", file.as_str().unwrap_or("a backup")));
    let name = format!("{} ({what}, {started_at})", path.display());
    Ok(Report { name, started_at, finished_at, kms_request_ids })
}
