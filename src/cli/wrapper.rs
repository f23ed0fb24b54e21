//! `wrapper …`: the wrapper keys in the KMS.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, client::Call, connection::Remote, output::ListArgs, words::words};
use crate::domain::{ProviderKind, WrapperKeyId};

const COLUMNS: &[&str] = &["id", "provider", "state", "keys", "regions", "reference", "created_at"];

/// What to do with wrapper keys.
#[derive(Debug, Subcommand)]
pub enum WrapperCommand {
    /// Make a new wrapper key in the KMS and register it
    Create(CreateArgs),
    /// Register a wrapper key that exists
    Register(RegisterArgs),
    /// List wrapper keys, oldest first
    List(ListArgs),
    /// Show a wrapper key
    Show(ShowArgs),
}

/// What the new wrapper key is.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Which kind of KMS
    #[arg(long, value_parser = words::<ProviderKind>())]
    provider: ProviderKind,
    /// Make it replicable to other regions
    #[arg(long)]
    multi_region: bool,
    /// Its regions, in the order to try; comma-separated
    #[arg(long, value_delimiter = ',')]
    regions: Vec<String>,
}

/// Which wrapper key.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Which kind of KMS
    #[arg(long, value_parser = words::<ProviderKind>())]
    provider: ProviderKind,
    /// What the KMS calls it: an ARN, for instance
    #[arg(long)]
    reference: String,
    /// Its regions, in the order to try; comma-separated
    #[arg(long, value_delimiter = ',')]
    regions: Vec<String>,
}

/// Which wrapper key.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the wrapper key, wk-…
    id: WrapperKeyId,
}

#[derive(Serialize)]
struct Body<'a> {
    provider: ProviderKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    create: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    multi_region: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    regions: &'a [String],
}

/// Does it.
pub(super) async fn run(command: WrapperCommand, remote: Remote) -> Result<(), Failure> {
    match &command {
        WrapperCommand::Create(CreateArgs { provider, multi_region, regions }) => {
            add(&Body { provider: *provider, reference: None, create: true, multi_region: *multi_region, regions }, &remote).await
        }
        WrapperCommand::Register(RegisterArgs { provider, reference, regions }) => {
            add(&Body { provider: *provider, reference: Some(reference), create: false, multi_region: false, regions }, &remote).await
        }
        WrapperCommand::List(page) => remote.print_list(COLUMNS, page, || Call::get("/v1/wrapper-keys")).await,
        WrapperCommand::Show(ShowArgs { id }) => remote.print(&remote.client.get(&format!("/v1/wrapper-keys/{id}")).await?),
    }
}

async fn add(body: &Body<'_>, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::post("/v1/wrapper-keys").json(body)?.idempotent()?).await?)
}
