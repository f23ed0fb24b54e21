//! `keys enable`, `disable`, `rotate`, `supersede`, `restrict-signing`, `delete`, `cancel-deletion`: the state changes of a key.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{Failure, connection::Remote, value_parsers::words},
    client::Call,
    domain::{KeyId, MappingKind},
};

/// The key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Id of the key
    id: KeyId,
}

/// The key, and the waiting time.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Id of the key
    id: KeyId,
    /// Destroy the key after this many days, at least 7
    #[arg(long, value_parser = clap::value_parser!(u32).range(7..))]
    days: Option<u32>,
}

/// The key, and what it may sign.
#[derive(Debug, Args)]
pub struct RestrictArgs {
    /// Id of the key
    id: KeyId,
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

/// Restricts what the key may sign, and prints the key.
pub(super) async fn restrict(args: &RestrictArgs, remote: &Remote) -> Result<(), Failure> {
    let body = match &args.mappings {
        Some(mappings) => json!({ "topology_only": args.topology_only, "mappings": mappings }),
        None => json!({ "topology_only": args.topology_only }),
    };
    remote.print(&remote.client.post(&format!("/v1/keys/{}/signing-restriction", args.id), &body).await?)
}

/// Changes the state and prints the key.
pub(super) async fn transition(args: &KeyArgs, step: &str, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post(&format!("/v1/keys/{}/{step}", args.id), &json!({})).await?)
}

/// Creates the successor and prints it. The call has an idempotency key, so that a lost connection does not create two.
pub(super) async fn rotate(args: &KeyArgs, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.create(&format!("/v1/keys/{}/rotate", args.id), &json!({})).await?)
}

/// Schedules the deletion and prints the key.
pub(super) async fn delete(args: &DeleteArgs, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::delete(&format!("/v1/keys/{}", args.id)).query_if("days", args.days)).await?)
}
