//! `audit report`: one HTML file about a period, for reviewers and boards. The log is read from its beginning and verified on the way.

mod anomalies;
mod changes;
mod refusals;
mod summary;
mod usage;
pub(in crate::cli) mod verification;

use std::path::PathBuf;

use clap::Args;

use super::{
    keys::not_verified,
    verified_log::{ReadLog, TrustArgs},
};
use crate::{
    audit::report::{Period, PeriodCount},
    cli::{
        Failure,
        connection::ConnectionArgs,
        html::{self, Section},
        input::{NewFile, Place},
        value_parsers::time_or_date,
    },
    domain::Timestamp,
    server::run::clock,
};

/// Rows of a table. More are counted.
const MOST_ROWS: usize = 100;

/// The period, and where the log comes from.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Not before this time: RFC 3339, or a date (00:00 UTC)
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    from: Timestamp,
    /// Before this time: RFC 3339, or a date (00:00 UTC); if absent, the time of the report
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    to: Option<Timestamp>,
    /// The HTML file to write, which must not exist; - for standard output
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    out: Place,
    /// Read the log from this export (NDJSON) instead of the vault. It should begin with the first entry
    #[arg(long, value_name = "FILE", requires = "verifier_keys")]
    export: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs the command. A report about a log that is not the one that was signed is written all the same, says so, and is a failure.
pub(super) async fn run(args: &ReportArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    let now = clock()();
    let period = Period { from: args.from, to: args.to.unwrap_or(now) };
    if period.from >= period.to {
        return Err(Failure::Usage("--from: must be before --to".into()));
    }
    let out = NewFile::create(&args.out)?;
    let mut count = PeriodCount::new(period);
    let log = match &args.export {
        Some(path) => args.trust.read_file(path, |entry| count.add(entry))?,
        None => args.trust.read_vault(&connection.remote()?, |entry| count.add(entry)).await?,
    };
    if let Some(path) = out.finish(document(&log, &count, now).as_bytes())? {
        eprintln!("the report is in {}", path.display());
    }
    log.result.map(drop).map_err(|finding| not_verified(&finding, ""))
}

/// The report as a document. The time of the report is a parameter.
fn document(log: &ReadLog, count: &PeriodCount, now: Timestamp) -> String {
    let Period { from, to } = count.period;
    let vault = log.origin.as_deref().unwrap_or("an unknown log");
    let lead = format!(
        "Log {vault}, from {} to {}. Made at {} by canton-keyvault {}.",
        html::seconds(from),
        html::seconds(to),
        html::seconds(now),
        env!("CARGO_PKG_VERSION")
    );
    let section = |id, title, body| Section { id, title, body };
    let sections = [
        section("scope", "Scope", summary::scope(log, count, now)),
        section("summary", "Summary", summary::numbers(count)),
        section("verification", "Verification of the log", verification::explained(log)),
        section("time", "Use over time", usage::over_time(count)),
        section("operations", "Use by operation", usage::by_operation(count)),
        section("principals", "Use by principal", usage::by_principal(count)),
        section("keys", "Use by key", usage::by_key(count)),
        section("denials", "Denied calls", refusals::denied(&count.refusals)),
        section("failures", "Failed calls", refusals::failed(&count.refusals)),
        section("refused", "Refused certificates", refusals::clients(&count.refusals)),
        section("key-changes", "Changes of keys", changes::keys(&count.changes)),
        section("exports", "Exports of keys", changes::exports(&count.changes)),
        section("grants", "Changes of grants", changes::grants(&count.changes)),
        section("wrapper-keys", "Changes of wrapper keys, and jobs", changes::wrapper_keys(&count.changes)),
        section("freezes", "Freezes", changes::freezes(&count.changes)),
        section("service", "Starts and stops", changes::service(&count.changes)),
        section("log", "Changes of the log itself", changes::log(&count.changes)),
        section("anomalies", "Anomalies", anomalies::found(&count.anomalies)),
        section("definitions", "Definitions", summary::definitions(count)),
    ];
    html::page("Audit report of the key vault", &lead, &verification::verdict(log), &sections, "Times are UTC, by the clock of the vault.")
}
