//! `audit summary`: how many calls there were. `--recount` counts the entries themselves, which takes as long as an export.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json, value::RawValue};

use super::{
    export_stream::{ExportStream, Line},
    filters::FilterArgs,
};
use crate::audit::Entry;
use crate::cli::{
    Failure,
    connection::Remote,
    table::{Column, column, optional},
    value_parsers::{certificate, date, words},
};
use crate::client::{Answer, Call};
use crate::domain::{Dimension, NodeName, Operation, Outcome, Timestamp};

/// What to count, and by what.
#[derive(Debug, Args)]
pub struct SummaryArgs {
    /// What to count by
    #[arg(long, required = true, value_delimiter = ',', value_parser = words::<Dimension>())]
    by: Vec<Dimension>,
    /// Calls about this key: its id, the beginning of its id, or its name
    #[arg(long, value_name = "KEY")]
    key_id: Option<String>,
    /// Calls about this node
    #[arg(long)]
    node: Option<NodeName>,
    /// Calls of this principal, spiffe://… or dns:…
    #[arg(long)]
    principal: Option<String>,
    /// Calls with the client certificate with this SHA-256 in hex
    #[arg(long, value_name = "DIGEST", value_parser = certificate)]
    certificate: Option<String>,
    /// Calls of this operation
    #[arg(long, value_parser = words::<Operation>())]
    operation: Option<Operation>,
    /// Calls with this result
    #[arg(long, value_parser = words::<Outcome>())]
    outcome: Option<Outcome>,
    /// From this day, UTC
    #[arg(long, value_name = "DATE", value_parser = date)]
    from: Option<Timestamp>,
    /// Before this day, UTC
    #[arg(long, value_name = "DATE", value_parser = date)]
    to: Option<Timestamp>,
    /// Count the entries themselves instead of the totals that the vault keeps
    #[arg(long)]
    recount: bool,
}

/// Runs the command.
pub(super) async fn run(args: SummaryArgs, remote: &Remote) -> Result<(), Failure> {
    let counted = [column("calls"), column("entries"), optional("first_at"), optional("last_at")];
    let columns: Vec<Column> = args.by.iter().map(|dimension| column(field(*dimension))).chain(counted).collect();
    let mut list = remote.list_printer(&columns);
    if args.recount {
        let items = recount(&args, remote).await?;
        let items = items.iter().map(serde_json::value::to_raw_value).collect::<Result<Vec<_>, _>>().map_err(std::io::Error::from)?;
        list.items(&items.iter().map(|raw| &**raw).collect::<Vec<_>>())?;
        return list.end(None);
    }
    let answer = remote.client.success(args.call()).await?;
    let items: Summary<'_> = parsed(&answer)?;
    list.items(&items.items)?;
    if !items.complete {
        eprintln!(
            "counted up to entry {}: the vault still reads the log of an earlier version. Repeat the command later",
            items.counted_to
        );
    }
    list.end(None)
}

/// The answer of the vault.
#[derive(serde::Deserialize)]
pub(super) struct Summary<'a> {
    /// The groups.
    #[serde(borrow)]
    pub(super) items: Vec<&'a RawValue>,
    counted_to: u64,
    complete: bool,
}

fn parsed(answer: &Answer) -> Result<Summary<'_>, Failure> {
    Ok(answer.parse()?)
}

impl SummaryArgs {
    fn call(&self) -> Call {
        let Self { by, key_id, node, principal, certificate, operation, outcome, from, to, recount: _ } = self;
        let day = |time: &Option<Timestamp>| time.map(|time| time.to_string().chars().take(10).collect::<String>());
        let by: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).collect();
        Call::get("/v1/audit/summary")
            .query("by", &by.join(","))
            .query_if("key", key_id.as_ref())
            .query_if("node", node.as_ref())
            .query_if("principal", principal.as_ref())
            .query_if("certificate", certificate.as_ref())
            .query_if("operation", *operation)
            .query_if("outcome", *outcome)
            .query_if("from", day(from))
            .query_if("to", day(to))
    }
}

/// Counts the entries of an export.
async fn recount(args: &SummaryArgs, remote: &Remote) -> Result<Vec<Value>, Failure> {
    let SummaryArgs { by, key_id, node, principal, certificate, operation, outcome, from, to, recount: _ } = args;
    let filters = FilterArgs {
        key_id: key_id.clone(),
        node: node.clone(),
        principal: principal.clone(),
        certificate: certificate.clone(),
        operation: *operation,
        outcome: *outcome,
        from: *from,
        to: *to,
        ..FilterArgs::default()
    };
    let mut export = ExportStream::begin_with_first(remote, &filters).await?;
    let mut groups: BTreeMap<Vec<Option<String>>, (u64, u64, Timestamp, Timestamp)> = BTreeMap::new();
    while let Some((line, bytes)) = export.next().await? {
        if !matches!(line, Line::Entry(_)) {
            continue;
        }
        let entry =
            Entry::decode(bytes).map_err(|error| Failure::Unexpected(format!("the vault sent an entry that cannot be read: {error}")))?;
        let group = groups.entry(by.iter().map(|dimension| value(&entry, *dimension)).collect()).or_insert((0, 0, entry.at, entry.at));
        *group = (group.0 + entry.count.unwrap_or(1), group.1 + 1, group.2.min(entry.at), group.3.max(entry.at));
    }
    let item = |(values, (calls, entries, first_at, last_at)): (Vec<Option<String>>, _)| {
        let numbers = json!({ "calls": calls, "entries": entries, "first_at": first_at, "last_at": last_at });
        let fields = by.iter().zip(values).filter_map(|(dimension, value)| Some((field(*dimension).to_owned(), Value::from(value?))));
        fields.chain(numbers.as_object().cloned().unwrap_or_default()).collect::<Value>()
    };
    Ok(groups.into_iter().map(item).collect())
}

const fn field(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Key => "key_id",
        other => other.as_str(),
    }
}

fn value(entry: &Entry, dimension: Dimension) -> Option<String> {
    match dimension {
        Dimension::Day => Some(entry.at.to_string().chars().take(10).collect()),
        Dimension::Principal => Some(entry.principal.clone()),
        Dimension::Certificate => entry.certificate.clone(),
        Dimension::Node => entry.node.as_ref().map(ToString::to_string),
        Dimension::Key => entry.key_id.map(|key| key.to_string()),
        Dimension::Operation => Some(entry.operation.to_string()),
        Dimension::Outcome => Some(entry.outcome.to_string()),
    }
}
