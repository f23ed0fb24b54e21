//! `keys enable`, `disable`, `rotate`, `supersede`, `delete`, `cancel-deletion`: the state changes of a key.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{Failure, connection::Remote},
    client::Call,
    domain::KeyId,
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
