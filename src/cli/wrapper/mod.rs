//! `wrapper …`: the wrapper keys in the KMS, and the rotations between them.

mod add;
mod posture;
mod rotation_report;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Failure,
    confirmation::StepArgs,
    connection::Remote,
    job::{AbortJobArgs, ROTATIONS, ShowJobArgs, WaitArgs},
    output::ListArgs,
    reference::WrapperKeyReference,
    steps::{self, Step},
    table::{Column, column, optional},
};
use crate::{client::Call, domain::WrapperKeyName};

const COLUMNS: &[Column] = &[
    column("id"),
    column("name"),
    column("provider"),
    column("state"),
    column("health"),
    column("keys"),
    column("left"),
    optional("regions"),
    optional("created_at"),
    optional("reference"),
];

/// Commands about wrapper keys.
#[derive(Debug, Subcommand)]
pub enum WrapperCommand {
    /// Create a wrapper key in the KMS and register it as standby
    Create(add::CreateWrapperKeyArgs),
    /// Register an existing wrapper key as standby
    Register(add::RegisterArgs),
    /// List wrapper keys, oldest first
    List(ListArgs),
    /// Show a wrapper key
    Show(IdArgs),
    /// Assess a wrapper key and its policy in the KMS: each line is ok, warning or fail, with a remedy
    Posture(posture::PostureArgs),
    /// Start, show, list and abort rotations to another wrapper key
    #[command(subcommand)]
    Rotation(RotationCommand),
    /// Give a wrapper key another name, or remove its name
    Rename(RenameArgs),
    /// Delete the wraps of a wrapper key, after every key has a verified wrap under another one
    ///
    /// Refused while any key depends on it, and while a rotation runs. The KMS key is not deleted: older backups open only while it exists.
    Retire(RetireArgs),
    /// Create a replica of a multi-region wrapper key in another region, and wait until it is usable
    Replicate(ReplicateArgs),
}

/// Commands about rotations.
#[derive(Debug, Subcommand)]
pub enum RotationCommand {
    /// Make another wrapper key active, and add a wrap under it to every key while the vault serves requests
    ///
    /// The vault verifies the wrapper key first. New keys use it at once. The former one is draining: it opens keys, but wraps no new ones.
    /// The rollback is a rotation to the former one, until `wrapper retire`.
    Start(StartRotationArgs),
    /// Show a rotation and its progress
    Show(ShowJobArgs),
    /// List rotations, oldest first
    List(ListArgs),
    /// Write a report of a rotation for reviewers: one HTML file with the evidence that each key has a verified wrap
    Report(rotation_report::RotationReportArgs),
    /// Abort a rotation. Every key still opens. Another rotation continues it or rolls it back
    Abort(AbortJobArgs),
}

/// The wrapper key.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The wrapper key: its id, the beginning of its id, or its name
    #[arg(value_name = "WRAPPER_KEY")]
    id: WrapperKeyReference,
}

/// The wrapper key, and its new name.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The wrapper key: its id, the beginning of its id, or its name
    #[arg(value_name = "WRAPPER_KEY")]
    id: WrapperKeyReference,
    /// The new name
    #[arg(required_unless_present = "remove")]
    name: Option<WrapperKeyName>,
    /// Remove the name
    #[arg(long, conflicts_with = "name")]
    remove: bool,
}

/// The wrapper key that is retired.
#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The wrapper key: its id, the beginning of its id, or its name
    #[arg(value_name = "WRAPPER_KEY")]
    id: WrapperKeyReference,
    #[command(flatten)]
    step: StepArgs,
}

/// The target of a rotation.
#[derive(Debug, Args)]
pub struct StartRotationArgs {
    /// The wrapper key that becomes active: its id, the beginning of its id, or its name
    #[arg(long, value_name = "WRAPPER_KEY")]
    to: WrapperKeyReference,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The wrapper key and the region.
#[derive(Debug, Args)]
pub struct ReplicateArgs {
    /// The wrapper key: its id, the beginning of its id, or its name
    #[arg(value_name = "WRAPPER_KEY")]
    id: WrapperKeyReference,
    /// The region of the replica
    #[arg(long)]
    region: String,
}

/// Runs the command.
pub(super) async fn run(command: WrapperCommand, remote: Remote) -> Result<(), Failure> {
    match command {
        WrapperCommand::Create(args) => add::create(&args, &remote).await,
        WrapperCommand::Register(args) => add::register(&args, &remote).await,
        WrapperCommand::List(page) => remote.print_list(COLUMNS, &page, || Call::get("/v1/wrapper-keys")).await,
        WrapperCommand::Show(IdArgs { id }) => {
            let id = id.resolve(&remote.client).await?;
            remote.print(&remote.client.get(&format!("/v1/wrapper-keys/{id}")).await?)
        }
        WrapperCommand::Posture(args) => posture::run(&args, &remote).await,
        WrapperCommand::Rotation(RotationCommand::Start(StartRotationArgs { to, wait })) => {
            let to = to.resolve(&remote.client).await?;
            ROTATIONS.start(&json!({ "to": to }), wait, &remote).await
        }
        WrapperCommand::Rotation(RotationCommand::Show(args)) => ROTATIONS.show(&args, &remote).await,
        WrapperCommand::Rotation(RotationCommand::Report(args)) => rotation_report::run(&args, &remote).await,
        WrapperCommand::Rotation(RotationCommand::List(page)) => ROTATIONS.list(&page, &remote).await,
        WrapperCommand::Rotation(RotationCommand::Abort(args)) => ROTATIONS.abort(&args, &remote).await,
        WrapperCommand::Rename(RenameArgs { id, name, remove: _ }) => {
            let id = id.resolve(&remote.client).await?;
            remote.print(&remote.client.post(&format!("/v1/wrapper-keys/{id}/name"), &json!({ "name": name })).await?)
        }
        WrapperCommand::Retire(args) => retire(&args, &remote).await,
        WrapperCommand::Replicate(ReplicateArgs { id, region }) => {
            let id = id.resolve(&remote.client).await?;
            remote.print(&remote.client.post(&format!("/v1/wrapper-keys/{id}/replicas"), &json!({ "region": region })).await?)
        }
    }
}

/// Retires a wrapper key, after a confirmation, and prints it.
async fn retire(RetireArgs { id, step }: &RetireArgs, remote: &Remote) -> Result<(), Failure> {
    let id = id.resolve(&remote.client).await?;
    let path = format!("/v1/wrapper-keys/{id}/retire");
    let Step { question, effect, .. } = steps::retire(id);
    let plan = async {
        let wrapper_key = remote.client.json(Call::post(&path).query("dry_run", "true").json(&json!({}))?).await?;
        Ok(json!({ "dry_run": true, "effect": effect, "wrapper_key": wrapper_key }))
    };
    if !step.decide(remote, &question, plan).await? {
        return Ok(());
    }
    remote.print(&remote.client.post(&path, &json!({})).await?)
}
