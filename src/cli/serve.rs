//! `serve`: the arguments of the production server. `crate::server` runs it.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::server;

/// Serve a vault with the given configuration
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    /// Start although state changes in the audit log are missing or were changed. The present state is then restated in the log. Find out first
    /// what happened: the log no longer shows every change
    #[arg(long)]
    accept_state: bool,
}

/// Runs the server until SIGTERM or SIGINT.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    server::run::run(&args.config, args.accept_state).map_err(|(error, is_logged)| if is_logged { Failure::Logged } else { error.into() })
}
