//! `freeze`, `unfreeze`, `status`, `whoami`, `authorize`: commands about the vault as a whole and the caller.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Failure, connection::Remote, value_parsers::words};
use crate::client::Call;
use crate::domain::{KeyId, NodeName, Operation};

/// Which decision to explain.
#[derive(Debug, Args, Serialize)]
pub struct AuthorizeArgs {
    /// The operation to explain
    #[arg(long, value_parser = words::<Operation>())]
    operation: Operation,
    /// The key of the operation
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    /// The node of the operation
    #[arg(long, conflicts_with = "key_id")]
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeName>,
    /// The principal, spiffe://… or dns:…; the caller if absent. Only an auditor may ask about others
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
}

/// Wipes every open key and refuses every use.
pub(super) async fn freeze(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post("/v1/freeze", &json!({})).await?)
}

/// Ends a freeze.
pub(super) async fn unfreeze(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post("/v1/unfreeze", &json!({})).await?)
}

/// Shows the status of the vault.
pub(super) async fn status(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.get("/v1/status").await?)
}

/// Shows the principal that the vault sees.
pub(super) async fn whoami(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.get("/v1/whoami").await?)
}

/// Explains a decision without performing it.
pub(super) async fn authorize(args: AuthorizeArgs, remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::post("/v1/authorize").json(&args)?).await?)
}
