//! `serve`: the arguments of the production server. `crate::server` runs it.

use std::path::PathBuf;

use clap::Args;

use crate::server;

/// Serve a vault with the given configuration
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
}

/// Runs the server until SIGTERM or SIGINT.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    server::run::run(&args.config)
}
