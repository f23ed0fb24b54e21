//! `wrapper create` and `wrapper register`: creates a wrapper key in the KMS, or registers an existing one.

use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Failure, connection::Remote, value_parsers::words},
    client::Call,
    domain::{ProviderKind, WrapperKeyName},
};

/// The options of `wrapper create`.
#[derive(Debug, Args)]
pub struct CreateWrapperKeyArgs {
    /// The provider
    #[arg(long, value_parser = words::<ProviderKind>())]
    provider: ProviderKind,
    /// A name, by which commands find it
    #[arg(long)]
    name: Option<WrapperKeyName>,
    /// Create a key that can be replicated to other regions
    #[arg(long)]
    multi_region: bool,
    /// The regions, in the order to try; comma-separated
    #[arg(long, value_delimiter = ',')]
    regions: Vec<String>,
}

/// The options of `wrapper register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The provider
    #[arg(long, value_parser = words::<ProviderKind>())]
    provider: ProviderKind,
    /// A name in the vault, by which commands find it
    #[arg(long)]
    name: Option<WrapperKeyName>,
    /// The name of the key in the KMS: an ARN, a URL or a file
    #[arg(long)]
    reference: String,
    /// The regions, in the order to try; comma-separated
    #[arg(long, value_delimiter = ',')]
    regions: Vec<String>,
}

#[derive(Serialize)]
struct AddWrapperKeyBody<'a> {
    provider: ProviderKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a WrapperKeyName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    create: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    multi_region: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    regions: &'a [String],
}

/// Creates a wrapper key, and prints it.
pub(super) async fn create(args: &CreateWrapperKeyArgs, remote: &Remote) -> Result<(), Failure> {
    let CreateWrapperKeyArgs { provider, name, multi_region, regions } = args;
    let body =
        AddWrapperKeyBody { provider: *provider, name: name.as_ref(), reference: None, create: true, multi_region: *multi_region, regions };
    add(&body, remote).await
}

/// Registers a wrapper key, and prints it.
pub(super) async fn register(args: &RegisterArgs, remote: &Remote) -> Result<(), Failure> {
    let RegisterArgs { provider, name, reference, regions } = args;
    let body = AddWrapperKeyBody {
        provider: *provider,
        name: name.as_ref(),
        reference: Some(reference),
        create: false,
        multi_region: false,
        regions,
    };
    add(&body, remote).await
}

async fn add(body: &AddWrapperKeyBody<'_>, remote: &Remote) -> Result<(), Failure> {
    remote.print(&remote.client.json(Call::post("/v1/wrapper-keys").json(body)?.idempotent()?).await?)
}
