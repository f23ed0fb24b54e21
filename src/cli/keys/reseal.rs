//! `keys reseal`: the same private key under a fresh data key, of one key or of all.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Failure,
        connection::Remote,
        job::{RESEALS, WaitArgs},
    },
    domain::KeyId,
};

/// Which keys.
#[derive(Debug, Args)]
#[command(mut_arg("wait", |wait| wait.conflicts_with("id")))]
pub struct ResealArgs {
    /// Id of the key
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<KeyId>,
    /// Every key, as a job of the vault
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Re-seals and shows the key, or the job.
pub(super) async fn run(args: &ResealArgs, remote: &Remote) -> Result<(), Failure> {
    match args.id {
        Some(id) => remote.print(&remote.client.post(&format!("/v1/keys/{id}/reseal"), &json!({})).await?),
        None => RESEALS.start(&json!({}), args.wait, remote).await,
    }
}
