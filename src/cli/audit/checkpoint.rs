//! `audit checkpoint`: prints the newest checkpoint as the signed note, which `audit verify --checkpoint` reads.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    audit::SignedNote,
    cli::{Failure, Format, connection::Remote},
};

/// Which checkpoint.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// Make a new checkpoint, which covers all entries up to this call
    #[arg(long)]
    new: bool,
}

/// Runs the command.
pub(super) async fn run(args: &CheckpointArgs, remote: &Remote) -> Result<(), Failure> {
    let answer = if args.new {
        remote.client.post("/v1/audit/checkpoints", &json!({})).await?
    } else {
        remote.client.get("/v1/audit/checkpoint").await?
    };
    if remote.format == Format::Json {
        return remote.print(&answer);
    }
    // Parsed, so that nothing but a note reaches the terminal.
    let note = answer.get("note").and_then(Value::as_str).unwrap_or_default();
    let note = SignedNote::parse(note.as_bytes()).map_err(|error| Failure::Unexpected(format!("the answer's note: {error}")))?;
    write!(std::io::stdout().lock(), "{note}")?;
    Ok(())
}
