//! `canton …`: commands about Canton nodes and their topology transactions.

mod config;
#[cfg(feature = "postgresql")]
mod database;
mod export;
mod import;
#[cfg(feature = "postgresql")]
mod import_rows;
mod node_key;
mod report;
mod show;
mod sign_topology;

use clap::Subcommand;

use super::{Failure, connection::ConnectionArgs};

/// Commands about Canton nodes.
#[derive(Debug, Subcommand)]
pub enum CantonCommand {
    /// Move the private keys of a node into the vault, from key-pair files or from its database. The node keeps its identity and all keys
    Import(import::ImportNodeArgs),
    /// Move the keys of a node out of the vault, into key-pair files or into its database
    Export(export::ExportNodeArgs),
    /// Print the configuration of a Canton node whose keys are in the vault. Needs no vault
    Config(config::ConfigArgs),
    /// Show what prepared topology transactions do, in plain words, before they are signed
    Show(show::ShowArgs),
    /// Show and sign prepared topology transactions, and write the signed ones
    SignTopology(sign_topology::SignTopologyArgs),
}

/// Runs the command.
pub(super) async fn run(command: CantonCommand, connection: ConnectionArgs) -> Result<(), Failure> {
    match command {
        CantonCommand::Config(args) => config::run(&args, &connection),
        CantonCommand::Import(args) => import::run(&args, &connection.remote()?).await,
        CantonCommand::Export(args) => export::run(&args, &connection.remote()?).await,
        CantonCommand::Show(args) => show::run(&args, &connection).await,
        CantonCommand::SignTopology(args) => sign_topology::run(&args, &connection.remote()?).await,
    }
}
