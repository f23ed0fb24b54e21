//! `keys enable`, `disable`, `rotate`, `supersede`, `delete`, `cancel-deletion`: the steps of a key's life.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{Failure, connection::Remote},
    client::Call,
    domain::KeyId,
};

/// Which key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Id of the key
    id: KeyId,
}

/// Which key, and when.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Id of the key
    id: KeyId,
    /// Destroy it after so many days, at least 7
    #[arg(long, value_parser = clap::value_parser!(u32).range(7..))]
    days: Option<u32>,
}

/// Takes a step and shows the key.
pub(super) async fn transition(args: &KeyArgs, step: &str, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post(&format!("/v1/keys/{}/{step}", args.id), &json!({})).await?)
}

/// Makes the successor and shows it. It creates, so that a lost connection must not make two.
pub(super) async fn rotate(args: &KeyArgs, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.create(&format!("/v1/keys/{}/rotate", args.id), &json!({})).await?)
}

/// Schedules the deletion and shows the key.
pub(super) async fn delete(args: &DeleteArgs, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::delete(&format!("/v1/keys/{}", args.id)).query_if("days", args.days)).await?)
}
