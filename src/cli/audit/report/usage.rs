//! The use of the vault: over time, by operation, by principal and by key.

use maud::{Markup, html};

use super::MOST_ROWS;
use crate::{
    audit::report::{Bucket, Calls, PeriodCount, Use},
    cli::html::{Bars, Cell, Column, Table, grouped, stacked_columns, stacked_rows},
    domain::Timestamp,
};

/// Bars of a chart of principals.
const MOST_BARS: usize = 12;
/// Rows of the table of hours or days.
const MOST_TIMES: usize = 62;
/// The most bars of the time: a longer period has longer bars.
const MOST_COLUMNS: i64 = 1_000;

const fn by_outcome(Calls { ok, denied, failed }: Calls) -> [u64; 3] {
    [ok, denied, failed]
}

fn counts(used: &Use) -> [Cell; 4] {
    let Calls { ok, denied, failed } = used.calls;
    [Cell::Count(used.calls.total()), Cell::Count(ok), Cell::Count(denied), Cell::Count(failed)]
}

fn first_and_last(used: &Use) -> [Cell; 2] {
    let (first, last) = used.between.unzip();
    [Cell::Time(first), Cell::Time(last)]
}

/// What a table leaves out: rows beyond the limit, and calls that were not counted one by one.
pub(super) fn left_out(all: usize, shown: usize, others: u64, what: &str) -> String {
    let more = (all > shown).then(|| format!("And {} more {what}.", grouped(u64::try_from(all - shown).unwrap_or(u64::MAX))));
    let further =
        (others > 0).then(|| format!("{} calls are of further {what}, which were too many to count one by one.", grouped(others)));
    more.into_iter().chain(further).collect::<Vec<_>>().join(" ")
}

/// The name of a part of the time: its hour or its day.
fn name_of(begin: i64, bucket: Bucket) -> String {
    let text = Timestamp::from_micros(begin).to_string();
    let length = if bucket == Bucket::Hour { 16 } else { 10 };
    text.replacen('T', " ", 1).chars().take(length).collect()
}

/// A chart of the whole period, and a table of the parts with calls.
pub(super) fn over_time(count: &PeriodCount) -> Markup {
    let (usage, length) = (&count.usage, count.usage.bucket.micros());
    let first = count.shown.from.micros().div_euclid(length);
    let last = count.shown.to.micros().saturating_sub(1).div_euclid(length).min(first.saturating_add(MOST_COLUMNS));
    let bars = (first..=last).map(|place| {
        let begin = place.saturating_mul(length);
        // The hour alone fits under a bar, with the date at its first one.
        let name = name_of(begin, usage.bucket);
        (name.chars().skip(5).collect(), by_outcome(usage.over_time.get(&begin).copied().unwrap_or_default()))
    });
    let unit = match usage.bucket {
        Bucket::Hour => "hour",
        Bucket::Day => "day",
        Bucket::Week => "week",
        Bucket::FourWeeks => "four weeks",
    };
    let rows: Vec<_> = usage
        .over_time
        .iter()
        .map(|(begin, calls)| {
            let mut row = vec![Cell::text(name_of(*begin, usage.bucket))];
            row.extend(counts(&Use { calls: *calls, between: None }));
            row
        })
        .collect();
    let all = rows.len();
    let table = Table {
        caption: format!("Calls of clients in each {unit} with calls"),
        columns: &[
            Column::Text("Begin (UTC)"),
            Column::Count("Calls"),
            Column::Count("Succeeded"),
            Column::Count("Denied"),
            Column::Count("Failed"),
        ],
        rows: rows.into_iter().take(MOST_TIMES).collect(),
        left_out: left_out(all, all.min(MOST_TIMES), 0, "parts of the time, which the chart shows"),
        empty: "There were no calls of clients in the period.",
    };
    html! {
        @if !usage.over_time.is_empty() {
            (stacked_columns(&Bars { id: "chart-time", title: format!("Calls of clients per {unit} by outcome"), groups: bars.collect() }))
        }
        (table.render())
    }
}

/// A table of the operations.
pub(super) fn by_operation(count: &PeriodCount) -> Markup {
    let mut operations: Vec<_> = count.usage.by_operation.iter().collect();
    operations.sort_by_key(|(operation, used)| (std::cmp::Reverse(used.calls.total()), **operation));
    let rows = operations.into_iter().map(|(operation, used)| {
        let mut row = vec![Cell::word(operation)];
        row.extend(counts(used));
        row.extend(first_and_last(used));
        row
    });
    Table {
        caption: "Calls of clients by operation".into(),
        columns: &[
            Column::Text("Operation"),
            Column::Count("Calls"),
            Column::Count("Succeeded"),
            Column::Count("Denied"),
            Column::Count("Failed"),
            Column::Text("First"),
            Column::Text("Last"),
        ],
        rows: rows.collect(),
        left_out: String::new(),
        empty: "There were no calls of clients in the period.",
    }
    .render()
}

/// A chart and a table of the principals.
pub(super) fn by_principal(count: &PeriodCount) -> Markup {
    let principals = count.usage.by_principal.largest(|of| of.used.calls.total());
    let bars = principals.iter().take(MOST_BARS).map(|(name, of)| ((*name).clone(), by_outcome(of.used.calls))).collect();
    let rows = principals.iter().take(MOST_ROWS).map(|(name, of)| {
        let mut row = vec![Cell::code(name)];
        row.extend(counts(&of.used));
        row.extend(first_and_last(&of.used));
        let certificates = of.certificates.names.len();
        row.push(if of.certificates.more { Cell::text(format!("more than {certificates}")) } else { Cell::Count(certificates as u64) });
        row
    });
    let table = Table {
        caption: "Principals, the most active first".into(),
        columns: &[
            Column::Text("Principal"),
            Column::Count("Calls"),
            Column::Count("Succeeded"),
            Column::Count("Denied"),
            Column::Count("Failed"),
            Column::Text("First"),
            Column::Text("Last"),
            Column::Count("Certificates"),
        ],
        rows: rows.collect(),
        left_out: left_out(principals.len(), principals.len().min(MOST_ROWS), count.usage.by_principal.others, "principals"),
        empty: "No client called the vault in the period.",
    };
    html! {
        @if !principals.is_empty() {
            (stacked_rows(&Bars { id: "chart-principals", title: "Calls of the most active principals by outcome".into(), groups: bars }))
        }
        (table.render())
    }
}

/// A table of the keys.
pub(super) fn by_key(count: &PeriodCount) -> Markup {
    let keys = count.usage.by_key.largest(|of| of.used.calls.total());
    let rows = keys.iter().take(MOST_ROWS).map(|(key, of)| {
        let mut row = vec![Cell::code(key), Cell::text(of.node.as_ref().map_or_else(String::new, ToString::to_string))];
        row.extend(counts(&of.used));
        let mut names: Vec<String> = of.principals.names.iter().take(3).cloned().collect();
        let more = of.principals.names.len().saturating_sub(3);
        if more > 0 || of.principals.more {
            names.push(format!("and {} more", if of.principals.more { format!("at least {more}") } else { more.to_string() }));
        }
        row.push(Cell::code(names.join(", ")));
        row.extend(first_and_last(&of.used));
        row
    });
    Table {
        caption: "Keys, the most used first: signatures, decryptions, encryptions and exports".into(),
        columns: &[
            Column::Text("Key"),
            Column::Text("Node"),
            Column::Count("Calls"),
            Column::Count("Succeeded"),
            Column::Count("Denied"),
            Column::Count("Failed"),
            Column::Text("Principals"),
            Column::Text("First"),
            Column::Text("Last"),
        ],
        rows: rows.collect(),
        left_out: left_out(keys.len(), keys.len().min(MOST_ROWS), count.usage.by_key.others, "keys"),
        empty: "No key was used in the period.",
    }
    .render()
}
