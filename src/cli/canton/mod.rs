//! `canton …`: commands about Canton nodes and their topology transactions.

mod show;
mod sign_topology;

use clap::Subcommand;

use super::{Failure, connection::ConnectionArgs};

/// Commands about Canton nodes.
#[derive(Debug, Subcommand)]
pub enum CantonCommand {
    /// Show what prepared topology transactions do, in plain words, before they are signed
    Show(show::ShowArgs),
    /// Show and sign prepared topology transactions, and write the signed ones
    SignTopology(sign_topology::SignTopologyArgs),
}

/// Runs the command.
pub(super) async fn run(command: CantonCommand, connection: ConnectionArgs) -> Result<(), Failure> {
    match command {
        CantonCommand::Show(args) => show::run(&args, &connection).await,
        CantonCommand::SignTopology(args) => sign_topology::run(&args, &connection.remote()?).await,
    }
}
