//! `wrapper …`: the wrapper keys in the KMS, and the rotations between them.

mod add;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Failure,
    connection::Remote,
    job::{AbortArgs, ROTATIONS, StatusArgs, WaitArgs},
    output::ListArgs,
};
use crate::client::Call;
use crate::domain::WrapperKeyId;

const COLUMNS: &[&str] = &["id", "provider", "state", "keys", "regions", "reference", "created_at"];

/// What to do with wrapper keys.
#[derive(Debug, Subcommand)]
pub enum WrapperCommand {
    /// Make a new wrapper key in the KMS and register it, as a standby
    Create(add::CreateArgs),
    /// Register a wrapper key that exists, as a standby
    Register(add::RegisterArgs),
    /// List wrapper keys, oldest first
    List(ListArgs),
    /// Show a wrapper key
    Show(IdArgs),
    /// Make another wrapper key the active one, and give every key a wrap under it while traffic runs
    ///
    /// The wrapper key proves itself first. New keys use it at once; the former one drains: it opens, and wraps no more. Nothing is
    /// taken away, so that the way back is a rotation to the former one. `wrapper retire` ends that way.
    Rotate(RotateArgs),
    /// Show how far a rotation is
    Status(StatusArgs),
    /// Stop a rotation; every key can still be opened, and the way on or back is another rotation
    Abort(AbortArgs),
    /// Drop what a wrapper key wrapped, once every key has a proven wrap under another one
    ///
    /// Refused as long as any key needs it. Deletes nothing in the KMS: backups from before open only while the KMS key lives.
    Retire(IdArgs),
    /// Make a replica of a multi-region wrapper key in another region, and wait until it can be used
    Replicate(ReplicateArgs),
}

/// Which wrapper key.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Id of the wrapper key, wk-…
    id: WrapperKeyId,
}

/// Where to.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Id of the wrapper key that is to be the active one, wk-…
    #[arg(long, value_name = "ID")]
    to: WrapperKeyId,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Which wrapper key, and where.
#[derive(Debug, Args)]
pub struct ReplicateArgs {
    /// Id of the wrapper key, wk-…
    id: WrapperKeyId,
    /// The region that is to have a replica
    #[arg(long)]
    region: String,
}

/// Does it.
pub(super) async fn run(command: WrapperCommand, remote: Remote) -> Result<(), Failure> {
    let post = async |id: WrapperKeyId, step: &str, body| {
        remote.print(&remote.client.post(&format!("/v1/wrapper-keys/{id}/{step}"), &body).await?)
    };
    match command {
        WrapperCommand::Create(args) => add::create(&args, &remote).await,
        WrapperCommand::Register(args) => add::register(&args, &remote).await,
        WrapperCommand::List(page) => remote.print_list(COLUMNS, &page, || Call::get("/v1/wrapper-keys")).await,
        WrapperCommand::Show(IdArgs { id }) => remote.print(&remote.client.get(&format!("/v1/wrapper-keys/{id}")).await?),
        WrapperCommand::Rotate(RotateArgs { to, wait }) => ROTATIONS.start(&json!({ "to": to }), wait, &remote).await,
        WrapperCommand::Status(args) => ROTATIONS.status(&args, &remote).await,
        WrapperCommand::Abort(args) => ROTATIONS.abort(&args, &remote).await,
        WrapperCommand::Retire(IdArgs { id }) => post(id, "retire", json!({})).await,
        WrapperCommand::Replicate(ReplicateArgs { id, region }) => post(id, "replicas", json!({ "region": region })).await,
    }
}
