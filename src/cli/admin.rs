//! `freeze`, `unfreeze`, `status`, `whoami`, `authorize`: commands about the vault as a whole and the caller.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Failure, connection::Remote, reference::KeyReference, value_parsers::words};
use crate::client::Call;
use crate::domain::{KeyId, NodeName, Operation};

/// Which decision to explain.
#[derive(Debug, Args)]
pub struct AuthorizeArgs {
    /// The operation to explain
    #[arg(long, value_parser = words::<Operation>())]
    operation: Operation,
    /// The key of the operation: its id, the beginning of its id, or its name
    #[arg(long, value_name = "KEY")]
    key_id: Option<KeyReference>,
    /// The node of the operation
    #[arg(long, conflicts_with = "key_id")]
    node: Option<NodeName>,
    /// The principal, spiffe://… or dns:…; the caller if absent. Only an auditor may ask about others
    #[arg(long)]
    principal: Option<String>,
}

#[derive(Serialize)]
struct AuthorizeBody<'a> {
    operation: Operation,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
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
    let AuthorizeArgs { operation, key_id, node, principal } = &args;
    let key_id = match key_id {
        Some(key) => Some(key.resolve(&remote.client).await?),
        None => None,
    };
    let body = AuthorizeBody { operation: *operation, key_id, node: node.as_ref(), principal: principal.as_deref() };
    remote.print(&remote.client.json(Call::post("/v1/authorize").json(&body)?).await?)
}
