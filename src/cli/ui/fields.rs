//! Fields of the vault's answers as tables: a table in each page says which field is shown how. An absent field is a dash in a list, and no row in a table of
//! one object. A value that a newer vault has added is shown as text.

use maud::Markup;
use serde_json::Value;

use crate::{
    cli::html::{self, Cell, Column},
    domain::Timestamp,
};

/// A field, and how it is shown.
pub(super) struct Shown {
    /// The headline of the column, or the name of the row.
    pub(super) label: &'static str,
    /// The field of the answer.
    pub(super) name: &'static str,
    /// How it is shown.
    pub(super) kind: Kind,
}

/// How a field is shown.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Text that may be long.
    Text,
    /// A short word.
    Word,
    /// An identifier.
    Code,
    /// A number.
    Count,
    /// A time.
    Time,
    /// An identifier with a link to its page.
    Link(fn(&str) -> String),
}

/// A field, its label, and how it is shown.
pub(super) const fn field(label: &'static str, name: &'static str, kind: Kind) -> Shown {
    Shown { label, name, kind }
}

/// A table of objects.
pub(super) fn list(caption: &str, fields: &[Shown], items: &[Value], empty: &str) -> Markup {
    let columns: Vec<Column> = fields
        .iter()
        .map(|field| match field.kind {
            Kind::Count => Column::Count(field.label),
            _ => Column::Text(field.label),
        })
        .collect();
    let rows: Vec<Vec<Cell>> =
        items.iter().map(|item| fields.iter().map(|field| cell(item.get(field.name), field.kind)).collect()).collect();
    html::render_table(caption, &columns, &rows, "", empty)
}

/// A table of one object.
pub(super) fn facts(caption: &str, fields: &[Shown], object: &Value) -> Markup {
    let present = |field: &Shown| {
        let value = object.get(field.name).filter(|value| !value.is_null() && **value != Value::Array(Vec::new()))?;
        Some((field.label, cell(Some(value), field.kind)))
    };
    html::facts(caption, &fields.iter().filter_map(present).collect::<Vec<_>>())
}

fn cell(value: Option<&Value>, kind: Kind) -> Cell {
    let text = value.map(text).unwrap_or_default();
    match kind {
        Kind::Text => Cell::Text(text),
        Kind::Word => Cell::Word(text),
        Kind::Link(_) if text.is_empty() => Cell::Code(text),
        Kind::Link(to) => Cell::Link { href: to(&text), text },
        Kind::Code => Cell::Code(text),
        Kind::Count => value.and_then(Value::as_u64).map_or(Cell::Text(text), Cell::Count),
        Kind::Time if text.is_empty() => Cell::Time(None),
        Kind::Time => Timestamp::parse(&text).map_or(Cell::Text(text), |at| Cell::Time(Some(at))),
    }
}

/// A value as text: a list with commas, an object as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(self::text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The text of a field; empty if it is absent.
pub(super) fn field_text<'v>(object: &'v Value, name: &str) -> &'v str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list; none if it is absent.
pub(super) fn items<'v>(object: &'v Value, name: &str) -> &'v [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_every_kind_are_shown_and_escaped() {
        let fields = [
            field("Id", "id", Kind::Link(crate::cli::ui::link::key)),
            field("Usage", "usage", Kind::Text),
            field("Keys", "keys", Kind::Count),
            field("At", "at", Kind::Time),
            field("Flag", "flag", Kind::Word),
            field("Absent", "absent", Kind::Time),
        ];
        let item = json!({ "id": "<b>", "usage": ["a", "b"], "keys": 12_345, "at": "2026-01-31T12:00:00Z", "flag": true });
        let text = list("Keys", &fields, std::slice::from_ref(&item), "none").into_string();
        for part in ["<a href=\"/keys/%3Cb%3E\">&lt;b&gt;</a>", "a, b", "12,345", "2026-01-31 12:00:00Z", "yes", "–"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let facts = facts("Key", &fields, &item).into_string();
        assert!(!facts.contains("Absent") && facts.contains("Usage"), "{facts}");
    }
}
