//! `audit query`: lists audit entries, filtered by key, node, principal, operation, result and time.

use clap::Args;

use crate::cli::{
    Failure,
    connection::Remote,
    output::ListArgs,
    value_parsers::{time, words},
};
use crate::client::Call;
use crate::domain::{KeyId, NodeName, Operation, Outcome, Timestamp};

const COLUMNS: &[&str] = &["sequence", "at", "principal", "operation", "outcome", "reason", "node", "key_id"];

/// The filters.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Only entries about this key
    #[arg(long)]
    key_id: Option<KeyId>,
    /// Only entries about this node
    #[arg(long)]
    node: Option<NodeName>,
    /// Only entries of this principal, spiffe://… or dns:…
    #[arg(long)]
    principal: Option<String>,
    /// Only entries of this operation
    #[arg(long, value_parser = words::<Operation>())]
    operation: Option<Operation>,
    /// Only entries with this result
    #[arg(long, value_parser = words::<Outcome>())]
    outcome: Option<Outcome>,
    /// Not before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// Before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,
    /// Only entries after this one: continue after the last entry that you have
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    #[command(flatten)]
    page: ListArgs,
}

/// Runs the command.
pub(super) async fn run(args: &QueryArgs, remote: &Remote) -> Result<(), Failure> {
    let QueryArgs { key_id, node, principal, operation, outcome, from, to, after, page } = args;
    let call = || {
        Call::get("/v1/audit/entries")
            .query_if("key_id", *key_id)
            .query_if("node", node.as_ref())
            .query_if("principal", principal.as_ref())
            .query_if("operation", *operation)
            .query_if("outcome", *outcome)
            .query_if("from", *from)
            .query_if("to", *to)
            .query_if("after", *after)
    };
    remote.print_list(COLUMNS, page, call).await
}
