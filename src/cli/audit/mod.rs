//! `audit`: commands for those who review the log.

mod checkpoint;
mod csv;
mod export;
mod export_stream;
mod filters;
mod keys;
mod ocsf;
mod prove;
mod query;
mod resume;
mod verify;
mod watch;

use clap::Subcommand;

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
    /// Print the newest checkpoint of the log, a signed note
    Checkpoint(checkpoint::CheckpointArgs),
    /// List the keys that verify checkpoints, newest last
    VerifierKeys(super::NoArgs),
    /// Print the proof that an entry is in the log, or that the log continues an earlier one
    Prove(prove::ProveArgs),
    /// Follow the log of a vault, and raise an alarm if it was rewritten, truncated or forked, or if checkpoints stop
    Watch(watch::WatchArgs),
}

/// Runs the command.
pub(super) async fn run(command: AuditCommand, connection: ConnectionArgs) -> Result<(), Failure> {
    match command {
        AuditCommand::Query(args) => query::run(&args, &connection.remote()?).await,
        AuditCommand::Export(args) => export::run(&args, &connection.remote()?).await,
        AuditCommand::Verify(args) => verify::run(&args, connection.output),
        AuditCommand::Checkpoint(args) => checkpoint::run(&args, &connection.remote()?).await,
        AuditCommand::VerifierKeys(_) => keys::list(&connection.remote()?).await,
        AuditCommand::Prove(args) => prove::run(&args, &connection.remote()?).await,
        AuditCommand::Watch(args) => watch::run(&args, &connection.remote()?).await,
    }
}
