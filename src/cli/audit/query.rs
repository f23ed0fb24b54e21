//! `audit query`: lists audit entries. One command is one entry in the log, however many entries it lists.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::value::RawValue;

use super::{
    export_stream::{ExportStream, Line},
    filters::FilterArgs,
};
use crate::audit::leaf_hash;
use crate::cli::{
    Failure,
    connection::Remote,
    output::{ListArgs, ListPrinter},
    table::{Column, column, optional},
};
use crate::client::Call;

const COLUMNS: &[Column] = &[
    column("sequence"),
    column("at"),
    column("principal"),
    column("operation"),
    column("outcome"),
    optional("reason"),
    optional("node"),
    column("key_id"),
];

/// The most entries of one page of the vault. A longer list is a stream.
const LARGEST_PAGE: u32 = 1000;
/// How many entries `--newest` lists without `--limit`.
const NEWEST: u32 = 100;
/// Entries that are aligned together.
const ALIGNED: usize = 100;

/// The filters and the part of the list.
#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    filters: FilterArgs,
    /// Newest first: 100 entries, or --limit, at most 1000
    #[arg(long, help_heading = None)]
    newest: bool,
    #[command(flatten)]
    page: ListArgs,
}

/// Runs the command.
pub(super) async fn run(args: &QueryArgs, remote: &Remote) -> Result<(), Failure> {
    let QueryArgs { filters, newest, page } = args;
    let filters = &filters.resolved(&remote.client).await?;
    let limit = page.limit.or(newest.then_some(NEWEST));
    match limit {
        Some(limit) if limit <= LARGEST_PAGE => {
            let page = ListArgs { limit: Some(limit), cursor: page.cursor.clone() };
            let call = || filters.query(Call::get("/v1/audit/entries"), filters.after).query_if("order", newest.then_some("newest"));
            remote.print_pages(COLUMNS, &page, LARGEST_PAGE, call).await
        }
        _ if *newest => Err(Failure::Usage(format!("--limit: at most {LARGEST_PAGE} with --newest; without it, any number"))),
        _ => stream(filters, page, remote).await,
    }
}

/// Lists the entries while they arrive, up to the limit.
async fn stream(filters: &FilterArgs, page: &ListArgs, remote: &Remote) -> Result<(), Failure> {
    let cursor = page.cursor.as_deref().map(str::parse::<u64>).transpose();
    let cursor = cursor.map_err(|_| Failure::Usage("--cursor: supply the cursor that a list printed".into()))?;
    let mut export = match filters.after.max(cursor) {
        None => ExportStream::begin_with_first(remote, filters).await?,
        after => ExportStream::begin(remote, filters, after).await?,
    };
    let mut list = remote.list_printer(COLUMNS);
    let (mut left, mut next_cursor, mut waiting) = (page.limit, None, Vec::new());
    while left != Some(0) {
        let Some((line, bytes)) = export.next().await? else {
            next_cursor = None;
            break;
        };
        if let Line::Entry(sequence) = line {
            waiting.push(with_leaf(bytes)?);
            next_cursor = Some(sequence.to_string());
            left = left.map(|left| left - 1);
            if waiting.len() == ALIGNED {
                print(&mut list, &mut waiting)?;
            }
        }
    }
    print(&mut list, &mut waiting)?;
    list.end(next_cursor.as_deref())
}

fn print<W: std::io::Write>(list: &mut ListPrinter<W>, waiting: &mut Vec<Box<RawValue>>) -> Result<(), Failure> {
    list.items(&waiting.iter().map(|raw| &**raw).collect::<Vec<_>>())?;
    waiting.clear();
    Ok(())
}

/// The entry in its stored bytes, with their leaf hash as the last field, as the API lists it.
fn with_leaf(bytes: &[u8]) -> Result<Box<RawValue>, Failure> {
    let unexpected = || Failure::Unexpected("the vault sent an entry that is no JSON object".into());
    let fields = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('}')).ok_or_else(unexpected)?;
    RawValue::from_string(format!("{fields},\"leaf\":\"{}\"}}", STANDARD.encode(leaf_hash(bytes)))).map_err(|_| unexpected())
}
