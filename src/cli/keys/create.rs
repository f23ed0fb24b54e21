//! `keys create`: a key made in the vault.

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Failure, connection::Remote, value_parsers::words},
    client::Call,
    domain::{Class, KeyName, KeySpec, NodeName, Purpose, Usage},
};

/// What the new key is.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Which Canton node it belongs to
    #[arg(long)]
    node: NodeName,
    /// What it is for
    #[arg(long, value_parser = words::<Purpose>())]
    purpose: Purpose,
    /// What it is
    #[arg(long, value_parser = words::<KeySpec>())]
    spec: KeySpec,
    #[command(flatten)]
    attributes: AttributeArgs,
}

/// Facts that a key may have, whether it is made or brought in.
#[derive(Debug, Args, Serialize)]
pub(super) struct AttributeArgs {
    /// What Canton uses it for; comma-separated
    #[arg(long, value_delimiter = ',', value_parser = words::<Usage>())]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    usage: Vec<Usage>,
    /// How long it lives; `permanent` if the usage has `namespace`
    #[arg(long, value_parser = words::<Class>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    /// A label for people
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<KeyName>,
    /// An exporter may take it out of the vault; fixed for ever, and only a key-admin may say so
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exportable: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    node: &'a NodeName,
    purpose: Purpose,
    spec: KeySpec,
    #[serde(flatten)]
    attributes: &'a AttributeArgs,
}

/// Makes the key and shows it.
pub(super) async fn run(args: &CreateArgs, remote: &Remote) -> Result<(), Failure> {
    let CreateArgs { node, purpose, spec, attributes } = args;
    let body = Body { node, purpose: *purpose, spec: *spec, attributes };
    remote.print(&remote.client.json(Call::post("/v1/keys").json(&body)?.idempotent()?).await?)
}
