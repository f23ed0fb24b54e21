//! `audit`: commands for those who review the log.

mod query;

use clap::Subcommand;

use super::{Failure, connection::Remote};

/// Commands about the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List entries, oldest first
    Query(query::QueryArgs),
}

/// Runs the command.
pub(super) async fn run(command: AuditCommand, remote: Remote) -> Result<(), Failure> {
    match command {
        AuditCommand::Query(args) => query::run(&args, &remote).await,
    }
}
