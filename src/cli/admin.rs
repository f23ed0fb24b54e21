//! `freeze`, `unfreeze`, `status`, `whoami`, `authorize`: the vault as a whole, and oneself before it.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Failure, connection::Remote, value_parsers::words};
use crate::client::Call;
use crate::domain::{KeyId, NodeName, Operation};

/// Which decision to explain.
#[derive(Debug, Args, Serialize)]
pub struct AuthorizeArgs {
    /// What would be asked
    #[arg(long, value_parser = words::<Operation>())]
    operation: Operation,
    /// Of which key
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    /// On which node
    #[arg(long, conflicts_with = "key_id")]
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeName>,
    /// By whom, spiffe://… or dns:…; oneself if left out, and only an auditor may ask about others
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
}

/// Wipes every open key and refuses every use.
pub(super) async fn freeze(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post("/v1/freeze", &json!({})).await?)
}

/// Ends it.
pub(super) async fn unfreeze(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.post("/v1/unfreeze", &json!({})).await?)
}

/// Shows whether the vault is well.
pub(super) async fn status(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.get("/v1/status").await?)
}

/// Shows who the vault takes the caller for.
pub(super) async fn whoami(remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.get("/v1/whoami").await?)
}

/// Explains a decision without performing it.
pub(super) async fn authorize(args: AuthorizeArgs, remote: Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::post("/v1/authorize").json(&args)?).await?)
}
