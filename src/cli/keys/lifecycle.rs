//! `keys enable`, `disable`, `rotate`, `supersede`, `restrict-signing`, `delete`, `withdraw`, `cancel-deletion`, `rename`: the changes of a key.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure,
        confirmation::StepArgs,
        connection::Remote,
        reference::KeyArg,
        steps::{self, Step},
        value_parsers::words,
    },
    client::Call,
    domain::{KeyId, KeyName, MappingKind},
};

/// The key that is superseded.
#[derive(Debug, Args)]
pub struct SupersedeArgs {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    step: StepArgs,
}

/// The key, and the waiting time.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    key: KeyArg,
    /// Destroy the key after this many days, at least 7
    #[arg(long, value_parser = clap::value_parser!(u32).range(7..))]
    days: Option<u32>,
    #[command(flatten)]
    step: StepArgs,
}

/// The key, and what it may sign.
#[derive(Debug, Args)]
pub struct RestrictArgs {
    #[command(flatten)]
    key: KeyArg,
    /// Limit the key to topology transactions, which the vault decodes before it signs
    #[arg(long, required_unless_present = "lift")]
    topology_only: bool,
    /// With --topology-only: the kinds of mappings that the key may sign, comma-separated. Default: all kinds
    #[arg(long, value_delimiter = ',', requires = "topology_only", value_parser = words::<MappingKind>())]
    mappings: Option<Vec<MappingKind>>,
    /// Remove the restriction: the key signs any message
    #[arg(long, conflicts_with = "topology_only")]
    lift: bool,
}

/// The key, and its new name.
#[derive(Debug, Args)]
pub struct RenameArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The new name
    #[arg(required_unless_present = "remove")]
    name: Option<KeyName>,
    /// Remove the name
    #[arg(long, conflicts_with = "name")]
    remove: bool,
}

/// Gives the key another name or none, and prints the key.
pub(super) async fn rename(args: &RenameArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/name"), &json!({ "name": args.name })).await?)
}

/// Restricts what the key may sign, and prints the key.
pub(super) async fn restrict(args: &RestrictArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let body = match &args.mappings {
        Some(mappings) => json!({ "topology_only": args.topology_only, "mappings": mappings }),
        None => json!({ "topology_only": args.topology_only }),
    };
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/signing-restriction"), &body).await?)
}

/// Changes the state and prints the key.
pub(super) async fn transition(args: &KeyArg, step: &str, remote: &Remote) -> Result<(), Failure> {
    let id = args.id(&remote.client).await?;
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/{step}"), &json!({})).await?)
}

/// Creates the successor and prints it. The call has an idempotency key, so that a lost connection does not create two.
pub(super) async fn rotate(args: &KeyArg, remote: &Remote) -> Result<(), Failure> {
    let id = args.id(&remote.client).await?;
    remote.print(&remote.client.create(&format!("/v1/keys/{id}/rotate"), &json!({})).await?)
}

/// Ends the signing of the key, after a confirmation, and prints the key.
pub(super) async fn supersede(args: &SupersedeArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let step = steps::supersede(id);
    if !args.step.decide(remote, &step.question, plan(id, &step, remote)).await? {
        return Ok(());
    }
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/supersede"), &json!({})).await?)
}

/// Schedules the deletion, after a confirmation, and prints the key.
pub(super) async fn delete(args: &DeleteArgs, remote: &Remote) -> Result<(), Failure> {
    let (id, days) = (args.key.id(&remote.client).await?, args.days.unwrap_or(steps::DEFAULT_DAYS));
    let step = steps::delete(id, days);
    if !args.step.decide(remote, &step.question, plan(id, &step, remote)).await? {
        return Ok(());
    }
    remote.print(&remote.client.json(Call::delete(&format!("/v1/keys/{id}")).query_if("days", args.days)).await?)
}

/// Withdraws the key, after a confirmation, and prints it.
pub(super) async fn withdraw(args: &DeleteArgs, remote: &Remote) -> Result<(), Failure> {
    let (id, days) = (args.key.id(&remote.client).await?, args.days.unwrap_or(steps::DEFAULT_DAYS));
    let step = steps::withdraw(id, days);
    if !args.step.decide(remote, &step.question, plan(id, &step, remote)).await? {
        return Ok(());
    }
    let body = args.days.map_or_else(|| json!({}), |days| json!({ "days": days }));
    remote.print(&remote.client.post(&format!("/v1/keys/{id}/withdraw"), &body).await?)
}

/// What the step would do to which key.
///
/// # Errors
/// The code with which the vault would refuse it.
async fn plan(id: KeyId, Step { operation, effect, .. }: &Step, remote: &Remote) -> Result<Value, Failure> {
    let key = remote.client.get(&format!("/v1/keys/{id}")).await?;
    let decision = remote.client.post("/v1/authorize", &json!({ "operation": operation, "key_id": id })).await?;
    if let Some(code) = decision.get("code").and_then(Value::as_str) {
        let detail = decision.get("detail").and_then(Value::as_str).unwrap_or_default();
        return Err(anyhow::anyhow!("the vault would refuse this with {code}: {detail}. Nothing was done").into());
    }
    Ok(json!({ "dry_run": true, "effect": effect, "key": key }))
}
