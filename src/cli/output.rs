//! Results as aligned text for people, and as JSON for programs. Text shows no control characters that a vault might send.

use std::{borrow::Cow, io::Write};

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    Failure,
    connection::{Format, Remote},
    table::{Column, Table, room},
};
use crate::client::{Call, ClientError};

/// Fields that come first. Other fields follow in alphabetical order.
const FIRST: &[&str] = &[
    "id",
    "key_id",
    "ready",
    "degraded",
    "frozen",
    "principal",
    "permitted_by_policy",
    "key_state",
    "operation",
    "node",
    "name",
    "purpose",
    "spec",
    "usage",
    "class",
    "state",
    "kind",
    "from",
    "to",
    "total",
    "done",
    "failed",
    "started_at",
    "finished_at",
    "algorithm",
    "signature_format",
    "signature",
];

impl Remote {
    /// A list on standard output.
    pub(super) fn list_printer(&self, columns: &[Column]) -> ListPrinter<std::io::Stdout> {
        ListPrinter::new(std::io::stdout(), self.format, columns, room(self.wide))
    }

    /// Prints one object.
    pub(super) fn print(&self, value: &Value) -> Result<(), Failure> {
        print_to(&mut std::io::stdout().lock(), self.format, value)
    }

    /// Prints a list, page by page: to its end, or up to `limit` items.
    pub(super) async fn print_list(&self, columns: &[Column], page: &ListArgs, call: impl Fn() -> Call) -> Result<(), Failure> {
        self.print_pages(columns, page, LARGEST_PAGE, call).await
    }

    /// As [`Remote::print_list`], with at most `largest` items in a request.
    pub(super) async fn print_pages(
        &self,
        columns: &[Column],
        page: &ListArgs,
        largest: u32,
        call: impl Fn() -> Call,
    ) -> Result<(), Failure> {
        let mut list = self.list_printer(columns);
        let mut cursor = page.cursor.clone();
        let mut left = page.limit;
        loop {
            let size = left.map(|left| left.min(largest));
            let answer = self.client.success(call().query_if("cursor", cursor.as_ref()).query_if("limit", size)).await?;
            let Page { items, next_cursor: next, removed_through } = answer.parse()?;
            list.items(&items)?;
            left = left.map(|left| left.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX)));
            if next.is_none() || left == Some(0) {
                if let Some(removed) = removed_through {
                    warn_of_removed(removed);
                }
                return list.end(next.as_deref());
            }
            if next == cursor {
                let reason = "the list's next_cursor is not as expected".into();
                return Err(ClientError::Unreadable { status: 200, reason }.into());
            }
            cursor = next;
        }
    }
}

/// Says on standard error that the log has entries that were archived and removed.
pub(super) fn warn_of_removed(through: u64) {
    eprintln!("note: the entries up to {through} were archived and removed, except state changes: look into the archive too");
}

/// The most items of one request. Without a limit, the vault chooses.
const LARGEST_PAGE: u32 = 100;

/// The part of a list.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The maximum number of items; if absent, all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Continue where a list with --limit ended
    #[arg(long)]
    pub(super) cursor: Option<String>,
}

/// A page of a list. The items stay as the vault sent them: an entry of the log is hashed with its fields in their order.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next_cursor: Option<String>,
    /// Of the audit log: what it lacks.
    #[serde(default)]
    removed_through: Option<u64>,
}

/// Prints one object.
pub(super) fn print_to(out: &mut impl Write, format: Format, value: &Value) -> Result<(), Failure> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => object(out, value, "")?,
    }
    out.flush()?;
    Ok(())
}

fn object(out: &mut impl Write, value: &Value, indent: &str) -> Result<(), Failure> {
    let Value::Object(fields) = value else {
        return Ok(writeln!(out, "{indent}{}", scalar(value))?);
    };
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or_default() + 1;
    for (name, value) in in_order(fields) {
        match value {
            Value::Null => {}
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, item) in items.iter().enumerate() {
                    writeln!(out, "{indent}{} {}:", printable(name), index + 1)?;
                    object(out, item, &format!("{indent}  "))?;
                }
            }
            Value::Object(_) => {
                writeln!(out, "{indent}{}:", printable(name))?;
                object(out, value, &format!("{indent}  "))?;
            }
            _ => writeln!(out, "{indent}{:width$} {}", format!("{}:", printable(name)), scalar(value))?,
        }
    }
    Ok(())
}

fn in_order(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut all: Vec<_> = fields.iter().collect();
    all.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    all.into_iter()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => printable(text).into_owned(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(","),
        other => printable(&other.to_string()).into_owned(),
    }
}

/// Text without control characters, which could change what a terminal shows. Line ends stay.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n';
    if text.contains(bad) { text.replace(bad, "\u{fffd}").into() } else { text.into() }
}

fn parsed(item: &RawValue) -> Result<Value, ClientError> {
    serde_json::from_str(item.get()).map_err(|error| ClientError::Unreadable { status: 200, reason: error.to_string() })
}

/// A list while it is printed: a table with a header, or `{"items": […], "next_cursor": …}` with one item per line.
pub(super) struct ListPrinter<W> {
    out: W,
    format: Format,
    names: Vec<&'static str>,
    table: Table,
    count: u64,
}

impl<W: Write> ListPrinter<W> {
    /// A list with lines of at most `room` characters, if it is a table.
    pub(super) fn new(out: W, format: Format, columns: &[Column], room: usize) -> Self {
        let names = columns.iter().map(|column| column.name).collect();
        Self { out, format, names, table: Table::new(columns, room), count: 0 }
    }

    /// Prints the items of a page.
    pub(super) fn items(&mut self, items: &[&RawValue]) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(items),
            Format::Text => self.table(&items.iter().map(|item| parsed(item)).collect::<Result<Vec<_>, _>>()?),
        }
    }

    fn json(&mut self, items: &[&RawValue]) -> Result<(), Failure> {
        for item in items {
            let before = if self.count == 0 { "{\"items\": [\n" } else { ",\n" };
            write!(self.out, "{before}{}", item.get())?;
            self.count += 1;
        }
        Ok(())
    }

    fn table(&mut self, items: &[Value]) -> Result<(), Failure> {
        let cells = |item: &Value| -> Vec<String> {
            self.names.iter().map(|name| item.get(name).map_or_else(|| "-".into(), scalar).replace('\n', " ")).collect()
        };
        let rows = items.iter().map(cells).collect();
        self.count += u64::try_from(items.len()).unwrap_or(u64::MAX);
        for line in self.table.lines(rows) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Ends the list. `next` is the cursor of the next page.
    pub(super) fn end(mut self, next: Option<&str>) -> Result<(), Failure> {
        match (self.format, next) {
            (Format::Json, _) => {
                let before = if self.count == 0 { "{\"items\": [" } else { "\n" };
                writeln!(self.out, "{before}], \"next_cursor\": {}}}", Value::from(next))?;
            }
            (Format::Text, _) if self.count == 0 => writeln!(self.out, "none")?,
            (Format::Text, Some(next)) => writeln!(self.out, "more with --cursor {}", printable(next))?,
            (Format::Text, None) => {}
        }
        self.out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::table::column;

    fn shown(format: Format, value: &Value) -> String {
        let mut out = Vec::new();
        print_to(&mut out, format, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_object_is_aligned_with_its_id_first_and_lists_of_objects_indented() {
        let key = json!({
            "class": "long-term", "id": "1220ab", "name": null, "usage": ["protocol", "namespace"], "exportable": false, "created_at": "2026",
            "wraps": [{"wrapper_key": "wk-1", "verified_at": null}]
        });
        assert_eq!(
            shown(Format::Text, &key),
            "id:         1220ab\nusage:      protocol,namespace\nclass:      long-term\ncreated_at: 2026\nexportable: false\n\
             wraps 1:\n  wrapper_key: wk-1\n"
        );
        assert_eq!(serde_json::from_str::<Value>(&shown(Format::Json, &key)).unwrap(), key);
    }

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        assert_eq!(shown(Format::Text, &json!({"name": "a\u{1b}[2Jb"})), "name: a\u{fffd}[2Jb\n");
    }

    fn listed(format: Format, pages: &[Value], next: Option<&str>) -> String {
        let mut out = Vec::new();
        let mut list = ListPrinter::new(&mut out, format, &[column("id"), column("state")], usize::MAX);
        for page in pages {
            let page = page.to_string();
            list.items(&serde_json::from_str::<Vec<&RawValue>>(&page).unwrap()).unwrap();
        }
        list.end(next).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_is_aligned_over_pages_with_one_head() {
        let pages = [json!([{"id": "a", "state": "active"}]), json!([{"id": "bcd", "state": null}, {"id": "e"}])];
        assert_eq!(listed(Format::Text, &pages, None), "ID  STATE\na   active\nbcd  -\ne    -\n");
        assert_eq!(listed(Format::Text, &[], None), "none\n");
        assert_eq!(listed(Format::Text, &pages[..1], Some("9")), "ID  STATE\na   active\nmore with --cursor 9\n");
    }

    #[test]
    fn an_item_in_json_is_as_the_vault_sent_it() {
        let sent = r#"{"z":1,"a":"ü\u0000","m":1.50}"#;
        let mut out = Vec::new();
        let mut list = ListPrinter::new(&mut out, Format::Json, &[], usize::MAX);
        list.items(&[serde_json::from_str(sent).unwrap()]).unwrap();
        list.end(None).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().nth(1), Some(sent));
    }

    #[test]
    fn a_list_in_json_is_one_document_over_pages() {
        let pages = [json!([{"id": "a"}]), json!([{"id": "b"}])];
        for (pages, next, expected) in [
            (&pages[..], None, json!({"items": [{"id": "a"}, {"id": "b"}], "next_cursor": null})),
            (&pages[..0], None, json!({"items": [], "next_cursor": null})),
            (&pages[..1], Some("7"), json!({"items": [{"id": "a"}], "next_cursor": "7"})),
        ] {
            assert_eq!(serde_json::from_str::<Value>(&listed(Format::Json, pages, next)).unwrap(), expected);
        }
    }
}
