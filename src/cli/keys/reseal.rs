//! `keys reseal` and `keys reseal-job`: a new data key for one private key, or for all.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{
    Failure,
    connection::Remote,
    job::{AbortJobArgs, RESEALS, ShowJobArgs, WaitArgs},
    output::ListArgs,
    reference::KeyArg,
};

/// Options of a job that re-seals all keys.
#[derive(Debug, Args)]
pub struct StartResealArgs {
    #[command(flatten)]
    wait: WaitArgs,
}

/// Commands about jobs that re-seal all keys.
#[derive(Debug, Subcommand)]
pub enum ResealJobCommand {
    /// Start a job that re-seals every key
    Start(StartResealArgs),
    /// Show a job and its progress
    Show(ShowJobArgs),
    /// List jobs, oldest first
    List(ListArgs),
    /// Abort a job. Keys that were not re-sealed still open
    Abort(AbortJobArgs),
}

/// Re-seals a key, and prints it.
pub(super) async fn reseal(args: &KeyArg, remote: &Remote) -> Result<(), Failure> {
    let id = args.id(&remote.client).await?;
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/reseal"), &json!({})).await?)
}

/// Runs a command about jobs.
pub(super) async fn job(command: ResealJobCommand, remote: &Remote) -> Result<(), Failure> {
    match command {
        ResealJobCommand::Start(args) => RESEALS.start(&json!({}), args.wait, remote).await,
        ResealJobCommand::Show(args) => RESEALS.show(&args, remote).await,
        ResealJobCommand::List(page) => RESEALS.list(&page, remote).await,
        ResealJobCommand::Abort(args) => RESEALS.abort(&args, remote).await,
    }
}
