//! `canton show`: what prepared topology transactions do. With --offline no vault is asked, so that keys have no names.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure, Format,
        connection::ConnectionArgs,
        input::{Place, base64_secret},
        output::printable,
    },
    topology::{TopologyError, TopologyTransaction, text, warnings},
};

/// The options of `canton show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Files with prepared transactions (.prep)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Do not ask a vault for the names of keys
    #[arg(long)]
    offline: bool,
}

/// Prints the transactions.
pub(super) async fn run(args: &ShowArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    let mut shown = Vec::with_capacity(args.files.len());
    for file in &args.files {
        let prepared = Place::File(file.clone()).read("FILE")?;
        let answer = if args.offline {
            offline(&prepared).with_context(|| file.display().to_string())?
        } else {
            let body = json!({ "transaction": *base64_secret(&prepared) });
            connection.remote()?.client.post("/v1/topology/decode", &body).await?
        };
        shown.push((file, answer));
    }
    if connection.output == Format::Json {
        let items: Vec<Value> = shown.into_iter().map(|(_, answer)| answer).collect();
        writeln!(std::io::stdout(), "{}", json!({ "items": items }))?;
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for (file, answer) in &shown {
        if shown.len() > 1 {
            writeln!(out, "{}", file.display())?;
        }
        for line in lines(answer) {
            writeln!(out, "{}", printable(line))?;
        }
    }
    Ok(())
}

/// The lines of the text in an answer of the vault.
pub(super) fn lines(answer: &Value) -> impl Iterator<Item = &str> {
    answer.get("text").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The answer of the vault, without names of keys.
fn offline(prepared: &[u8]) -> Result<Value, TopologyError> {
    let transaction = TopologyTransaction::decode(prepared)?;
    Ok(json!({
        "hash": transaction.hash(),
        "description": serde_json::to_value(transaction.description()).unwrap_or_default(),
        "fields": transaction.fields(),
        "warnings": warnings(&transaction, &[]),
        "text": text(&transaction, &[]),
    }))
}
