//! Tables of a report. Every text from outside goes through [`shown`].

use std::borrow::Cow;

use maud::{Markup, html};

use crate::domain::Timestamp;

/// Rows that a table shows.
const MOST_ROWS: usize = 2_000;

/// A table with at most so many rows is not divided between two pages.
const SHORT: usize = 12;

/// A value in a table.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Cell {
    /// Text.
    Text(String),
    /// A short word, which is not divided.
    Word(String),
    /// An identifier, which may be long.
    Code(String),
    /// A number.
    Count(u64),
    /// A time.
    Time(Option<Timestamp>),
    /// An identifier with a link. Reports have none, because they are files.
    Link {
        /// The text.
        text: String,
        /// The address, which the caller has encoded.
        href: String,
    },
}

impl Cell {
    /// Text.
    pub(in crate::cli) fn text(text: impl std::fmt::Display) -> Self {
        Self::Text(text.to_string())
    }

    /// A short word.
    pub(in crate::cli) fn word(text: impl std::fmt::Display) -> Self {
        Self::Word(text.to_string())
    }

    /// An identifier.
    pub(in crate::cli) fn code(text: impl std::fmt::Display) -> Self {
        Self::Code(text.to_string())
    }

    const fn class(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) => None,
            Self::Word(_) => Some("w"),
            Self::Code(_) | Self::Link { .. } => Some("c"),
            Self::Count(_) => Some("n"),
            Self::Time(_) => Some("t"),
        }
    }

    fn content(&self) -> Markup {
        match self {
            Self::Text(text) | Self::Word(text) | Self::Code(text) if text.is_empty() => html! { "–" },
            Self::Text(text) | Self::Word(text) | Self::Code(text) => html! { (shown(text)) },
            Self::Count(count) => html! { (grouped(*count)) },
            Self::Time(None) => html! { "–" },
            Self::Time(Some(at)) => html! { time datetime=(at) { (seconds(*at)) } },
            Self::Link { text, href } => html! { a href=(href) { (shown(text)) } },
        }
    }
}

/// A column: its name, and whether it has numbers.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Column {
    /// Text, identifiers or times.
    Text(&'static str),
    /// Numbers.
    Count(&'static str),
}

/// A table. The first cell of a row names the row.
#[derive(Debug)]
pub(in crate::cli) struct Table {
    /// What it shows.
    pub(in crate::cli) caption: String,
    /// The columns.
    pub(in crate::cli) columns: &'static [Column],
    /// The rows.
    pub(in crate::cli) rows: Vec<Vec<Cell>>,
    /// What is not in the rows, as a sentence. Empty if nothing is left out.
    pub(in crate::cli) left_out: String,
    /// What stands instead of a table without rows.
    pub(in crate::cli) empty: &'static str,
}

impl Table {
    /// The table, or the sentence that there is nothing.
    pub(in crate::cli) fn render(&self) -> Markup {
        let Self { caption, columns, rows, left_out, empty } = self;
        render_table(caption, columns, rows, left_out, empty)
    }
}

/// A table of these columns, as [`Table`] describes it.
pub(in crate::cli) fn render_table(caption: &str, columns: &[Column], rows: &[Vec<Cell>], left_out: &str, empty: &str) -> Markup {
    html! {
        @if rows.is_empty() {
            p { (empty) }
        } @else {
            div class="table" {
                table class=[(rows.len() <= SHORT).then_some("short")] {
                    caption { (shown(caption)) }
                    thead { tr {
                        @for column in columns {
                            @match column {
                                Column::Text(name) => { th scope="col" { (name) } }
                                Column::Count(name) => { th scope="col" class="n" { (name) } }
                            }
                        }
                    } }
                    tbody {
                        @for row in rows.iter().take(MOST_ROWS) {
                            tr {
                                @for (place, cell) in row.iter().enumerate() {
                                    @if place == 0 { th scope="row" class=[cell.class()] { (cell.content()) } }
                                    @else { td class=[cell.class()] { (cell.content()) } }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if !left_out.is_empty() { p class="note" { (shown(left_out)) } }
    }
}

/// A table of names and values.
pub(in crate::cli) fn facts(caption: &str, rows: &[(&str, Cell)]) -> Markup {
    html! {
        table class="facts" {
            caption { (caption) }
            tbody {
                @for (name, value) in rows {
                    tr {
                        th scope="row" { (name) }
                        // Numbers stand at the left here.
                        td class=[value.class().filter(|class| *class != "n")] { (value.content()) }
                    }
                }
            }
        }
    }
}

/// A number with separators: 12,345.
pub(in crate::cli) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in seconds: 2026-01-31 12:00:00Z.
pub(in crate::cli) fn seconds(at: Timestamp) -> String {
    let whole = Timestamp::from_micros(at.seconds().saturating_mul(1_000_000)).to_string();
    whole.replacen('T', " ", 1)
}

/// Text from outside without characters that XML forbids, that control a terminal, or that change the direction of the text.
pub(in crate::cli) fn shown(text: &str) -> Cow<'_, str> {
    let bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(bad) { text.replace(bad, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_hostile_text() {
        assert_eq!([0, 999, 1_000, 12_345, 1_234_567].map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!(seconds(Timestamp::from_micros(1_769_860_800_123_456)), "2026-01-31 12:00:00Z");
        let hostile = "<script>\u{1b}[2J\u{202e}&\"\u{0}";
        let text = Cell::text(hostile).content().into_string();
        assert_eq!(text, "&lt;script&gt;\u{fffd}[2J\u{fffd}&amp;&quot;\u{fffd}");
    }
}
