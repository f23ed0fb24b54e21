//! `serve`: the arguments of the production server. `crate::server` runs it.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, instance::InstanceArgs};
use crate::server::{self, run::Accept};

/// Serve a vault with the given configuration
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Start although state changes in the audit log are missing or were changed. The present state is then restated in the log. Find out first
    /// what happened: the log no longer shows every change
    #[arg(long)]
    accept_state: bool,
    /// Start although the store is older than the newest checkpoint of the audit log, or has another history. A new incarnation of the log then
    /// begins, and the log says so. Find out first what happened: changes after the copy are lost, a disabled key may be active again
    #[arg(long)]
    accept_rollback: bool,
}

/// Runs the server until SIGTERM or SIGINT.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let accept = Accept { state: args.accept_state, rollback: args.accept_rollback };
    server::run::run(&args.config, args.instance.instance.as_ref(), accept)
        .map_err(|(error, is_logged)| if is_logged { Failure::Logged } else { error.into() })
}
