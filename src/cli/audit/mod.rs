//! `audit`: commands for those who review the log.

mod certificate;
mod checkpoint;
mod csv;
mod export;
mod export_stream;
mod filters;
mod keys;
mod ocsf;
mod prove;
mod query;
mod reconcile;
mod remove;
mod report;
mod resume;
mod summary;
mod verified_log;
mod verify;
mod watch;
mod who;

use clap::Subcommand;

pub(super) use self::keys::not_verified;
pub(super) use self::report::verification;
pub(super) use self::verified_log::{ReadLog, TrustArgs};

use super::{Failure, connection::ConnectionArgs};

/// Commands about the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List entries, oldest first
    Query(query::QueryArgs),
    /// Write the log to a file, for the archive, for verification, or for other programs
    Export(export::ExportArgs),
    /// Verify an export or the database of a vault: whether it is the log that was signed. Needs no vault
    Verify(verify::VerifyArgs),
    /// Remove old entries from the database of a vault that a verified archive has. State changes and all hashes stay
    Remove(remove::RemoveArgs),
    /// Print the newest checkpoint of the log, a signed note
    Checkpoint(checkpoint::CheckpointArgs),
    /// List the keys that verify checkpoints, newest last
    VerifierKeys(super::NoArgs),
    /// Print the proof that an entry is in the log, or that the log continues an earlier one
    Prove(prove::ProveArgs),
    /// Follow the log of a vault, and raise an alarm if it was rewritten, truncated or forked, or if checkpoints stop
    Watch(watch::WatchArgs),
    /// Compare the log of a KMS with the audit log: calls of a wrapper key that the vault did not make, and calls that are missing
    Reconcile(reconcile::ReconcileArgs),
    /// Count the calls in the log, by principal, key, day and so on
    Summary(summary::SummaryArgs),
    /// Show who was allowed to use a key at a time, and who used it
    Who(who::WhoArgs),
    /// Show everything that was done with a client certificate, counted
    Certificate(certificate::CertificateArgs),
    /// Write a report of a period for reviewers: one HTML file with tables and charts, which prints well
    Report(report::ReportArgs),
}

/// Runs the command.
pub(super) async fn run(command: AuditCommand, connection: ConnectionArgs) -> Result<(), Failure> {
    match command {
        AuditCommand::Query(args) => query::run(&args, &connection.remote()?).await,
        AuditCommand::Export(args) => export::run(&args, &connection.remote()?).await,
        AuditCommand::Reconcile(args) => reconcile::run(&args, &connection).await,
        AuditCommand::Summary(args) => summary::run(args, &connection.remote()?).await,
        AuditCommand::Who(args) => who::run(&args, &connection.remote()?).await,
        AuditCommand::Certificate(args) => certificate::run(&args, &connection.remote()?).await,
        AuditCommand::Report(args) => report::run(&args, &connection).await,
        AuditCommand::Verify(args) => verify::run(&args, connection.output),
        AuditCommand::Remove(args) => remove::run(&args, &connection.remote()?).await,
        AuditCommand::Checkpoint(args) => checkpoint::run(&args, &connection.remote()?).await,
        AuditCommand::VerifierKeys(_) => keys::list(&connection.remote()?).await,
        AuditCommand::Prove(args) => prove::run(&args, &connection.remote()?).await,
        AuditCommand::Watch(args) => watch::run(&args, &connection.remote()?).await,
    }
}
