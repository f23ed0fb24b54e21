//! `wrapper create` and `wrapper register`: a wrapper key that is new to the KMS, or only to the vault.

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Failure, connection::Remote, value_parsers::words},
    client::Call,
    domain::ProviderKind,
};

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

/// Has one made, and shows it.
pub(super) async fn create(args: &CreateArgs, remote: &Remote) -> Result<(), Failure> {
    let CreateArgs { provider, multi_region, regions } = args;
    add(&Body { provider: *provider, reference: None, create: true, multi_region: *multi_region, regions }, remote).await
}

/// Registers one, and shows it.
pub(super) async fn register(args: &RegisterArgs, remote: &Remote) -> Result<(), Failure> {
    let RegisterArgs { provider, reference, regions } = args;
    add(&Body { provider: *provider, reference: Some(reference), create: false, multi_region: false, regions }, remote).await
}

async fn add(body: &Body<'_>, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::post("/v1/wrapper-keys").json(body)?.idempotent()?).await?)
}
