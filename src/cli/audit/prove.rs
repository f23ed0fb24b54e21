//! `audit prove`: prints an inclusion or a consistency proof of the log, after verifying it.

use clap::Args;
use serde_json::Value;

use crate::{
    audit::merkle::{Hash, verify_inclusion},
    cli::{Failure, connection::Remote, input::from_base64},
    client::Call,
};

/// What to prove.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ProveArgs {
    /// Prove that the log contains the entry with this sequence number
    #[arg(long, value_name = "N", conflicts_with = "from", required_unless_present = "from")]
    sequence: Option<u64>,
    /// Prove that the log begins with the log of this many entries
    #[arg(long, value_name = "SIZE")]
    from: Option<u64>,
    /// In the log of this many entries; if absent, in that of the newest checkpoint
    #[arg(long, value_name = "SIZE")]
    size: Option<u64>,
}

/// Runs the command.
pub(super) async fn run(args: &ProveArgs, remote: &Remote) -> Result<(), Failure> {
    let ProveArgs { sequence, from, size } = args;
    let path = if sequence.is_some() { "/v1/audit/proofs/inclusion" } else { "/v1/audit/proofs/consistency" };
    let call = Call::get(path).query_if("sequence", *sequence).query_if("from", *from).query_if("size", *size);
    let answer: Value = remote.client.success(call).await?.parse()?;
    if let Some(sequence) = sequence
        && !is_valid(&answer, *sequence)?
    {
        return Err(Failure::Unexpected("the proof of the vault is not valid for the leaf and the root in the same answer".into()));
    }
    remote.print(&answer)
}

fn is_valid(answer: &Value, sequence: u64) -> Result<bool, Failure> {
    let hash = |value: Option<&Value>, field| -> Result<Hash, Failure> {
        let bytes = from_base64(value.and_then(Value::as_str).unwrap_or_default(), field)?;
        bytes.as_slice().try_into().map_err(|_| Failure::Unexpected(format!("the answer's {field} is no hash")))
    };
    let proof = answer.get("proof").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let proof = proof.iter().map(|item| hash(Some(item), "proof")).collect::<Result<Vec<_>, _>>()?;
    let size = answer.get("size").and_then(Value::as_u64).unwrap_or_default();
    let (leaf, root) = (hash(answer.get("leaf"), "leaf")?, hash(answer.get("root"), "root")?);
    Ok(sequence > 0 && verify_inclusion(&proof, sequence - 1, leaf, size, &root))
}
