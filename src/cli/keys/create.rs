//! `keys create`: creates a key in the vault.

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Failure, connection::Remote, value_parsers::words},
    client::Call,
    domain::{Class, KeyName, KeySpec, NodeName, Purpose, Usage},
};

/// The attributes of the new key.
#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    /// The Canton node of the key
    #[arg(long)]
    node: NodeName,
    /// What the key is for
    #[arg(long, value_parser = words::<Purpose>())]
    purpose: Purpose,
    /// The scheme
    #[arg(long, value_parser = words::<KeySpec>())]
    spec: KeySpec,
    #[command(flatten)]
    attributes: AttributeArgs,
}

/// Attributes of a created or imported key.
#[derive(Debug, Args, Serialize)]
pub(super) struct AttributeArgs {
    /// What Canton uses the key for; comma-separated
    #[arg(long, value_delimiter = ',', value_parser = words::<Usage>())]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    usage: Vec<Usage>,
    /// The class; `permanent` if the usage has `namespace`
    #[arg(long, value_parser = words::<Class>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    /// A label
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<KeyName>,
    /// An exporter may export the key. This can never be changed, and only a key-admin may set it
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exportable: bool,
}

#[derive(Serialize)]
struct CreateKeyBody<'a> {
    node: &'a NodeName,
    purpose: Purpose,
    spec: KeySpec,
    #[serde(flatten)]
    attributes: &'a AttributeArgs,
}

/// Creates the key and prints it.
pub(super) async fn run(args: &CreateKeyArgs, remote: &Remote) -> Result<(), Failure> {
    let CreateKeyArgs { node, purpose, spec, attributes } = args;
    let body = CreateKeyBody { node, purpose: *purpose, spec: *spec, attributes };
    remote.print(&remote.client.json(Call::post("/v1/keys").json(&body)?.idempotent()?).await?)
}
