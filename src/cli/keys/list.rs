//! `keys list` and `keys show`.

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{
        Failure,
        connection::Remote,
        output::ListArgs,
        reference::KeyArg,
        table::{Column, column, optional},
        value_parsers::{Since, since, time, words},
    },
    client::Call,
    domain::{Class, KeyName, KeyState, NodeName, Purpose, Timestamp},
    server::run::clock,
};

const COLUMNS: &[Column] = &[
    column("id"),
    column("node"),
    column("name"),
    optional("purpose"),
    column("spec"),
    optional("usage"),
    optional("class"),
    column("state"),
];

/// The filters.
#[derive(Debug, Args)]
pub struct ListKeysArgs {
    /// Only keys of this node
    #[arg(long)]
    node: Option<NodeName>,
    /// Only keys for this purpose
    #[arg(long, value_parser = words::<Purpose>())]
    purpose: Option<Purpose>,
    /// Only keys in this state
    #[arg(long, value_parser = words::<KeyState>())]
    state: Option<KeyState>,
    /// Only keys of this class
    #[arg(long, value_parser = words::<Class>())]
    class: Option<Class>,
    /// Only keys with exactly this name
    #[arg(long)]
    name: Option<KeyName>,
    /// Only keys created at this time or later: RFC 3339, a date (00:00 UTC), or a duration before now, such as 7d
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only keys created before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    created_before: Option<Timestamp>,
    #[command(flatten)]
    page: ListArgs,
}

/// The key, and the format.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    key: KeyArg,
    /// Print only the public key, as PEM
    #[arg(long)]
    public_key: bool,
}

/// Lists keys.
pub(super) async fn run(args: &ListKeysArgs, remote: &Remote) -> Result<(), Failure> {
    let ListKeysArgs { node, purpose, state, class, name, since, created_before, page } = args;
    let since = since.as_ref().map(|since| since.time(&clock()));
    let call = || {
        Call::get("/v1/keys")
            .query_if("node", node.as_ref())
            .query_if("purpose", *purpose)
            .query_if("state", *state)
            .query_if("class", *class)
            .query_if("name", name.as_ref())
            .query_if("created_since", since)
            .query_if("created_before", *created_before)
    };
    remote.print_list(COLUMNS, page, call).await
}

/// Prints a key.
pub(super) async fn show(args: &ShowArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let key = remote.client.get(&format!("/v1/keys/{id}")).await?;
    if !args.public_key {
        return remote.print(&key);
    }
    let base64 = key.get("public_key").and_then(Value::as_str).ok_or_else(|| Failure::Unexpected("this key has no public key".into()))?;
    Ok(std::io::stdout().lock().write_all(pem(base64).as_bytes())?)
}

/// RFC 7468: lines of 64 characters.
fn pem(base64: &str) -> String {
    let lines: Vec<String> = base64.chars().collect::<Vec<_>>().chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn the_public_key_reads_back_from_pem() {
        let pem = pem(&"AAAA".repeat(30));
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert_eq!(SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap().as_ref(), [0; 90]);
    }
}
