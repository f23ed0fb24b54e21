//! `/audit/charts`: how many calls there were by day, principal, operation and key, as charts with their numbers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::{Query, State};
use maud::{Markup, html};
use serde_json::Value;

use crate::{
    cli::{
        html::{Bars, Cell, Column, grouped, render_table, stacked_columns, stacked_rows},
        ui::{
            fields::{field_text, items},
            form::{self, Field, Values, filters},
            layout::{Html, Page},
            link,
            part::part,
            server::App,
        },
        value_parsers::ClosedSet,
    },
    client::Call,
    domain::{Operation, Outcome, Timestamp},
    server::run::clock,
};

/// The filters that totals have.
pub(super) const FILTERS: &[Field] = &[
    Field { name: "key", label: "Key: name, id or its beginning", kind: form::Kind::Text("orders") },
    Field { name: "node", label: "Node", kind: form::Kind::Text("participant1") },
    Field { name: "principal", label: "Principal", kind: form::Kind::Text("spiffe://…") },
    Field { name: "operation", label: "Operation", kind: form::Kind::Choice(Operation::all) },
    Field { name: "outcome", label: "Outcome", kind: form::Kind::Choice(Outcome::all) },
    Field { name: "from", label: "From (date)", kind: form::Kind::Text("2026-01-31") },
    Field { name: "to", label: "Before (date)", kind: form::Kind::Text("2026-02-01") },
];

const DAY: Duration = Duration::from_hours(24);

/// How long before now the charts begin, if no date is given.
const DEFAULT_PERIOD: Duration = Duration::from_hours(30 * 24);

/// Bars of a chart over time. A longer period is shown in months.
const MOST_DAYS: usize = 92;

/// Bars of the other charts.
const MOST_ROWS: usize = 12;

/// A chart of the values of one dimension.
struct Chart {
    /// The name of the part for links.
    part: &'static str,
    /// The name of the drawing.
    id: &'static str,
    title: &'static str,
    /// The dimension in the API, and its field in the answer.
    dimension: &'static str,
    field: &'static str,
}

const CHARTS: &[Chart] = &[
    Chart { part: "principals", id: "chart-principals", title: "Calls by principal", dimension: "principal", field: "principal" },
    Chart { part: "operations", id: "chart-operations", title: "Calls by operation", dimension: "operation", field: "operation" },
    Chart { part: "used-keys", id: "chart-keys", title: "Calls by key", dimension: "key", field: "key_id" },
];

/// The page.
pub(in crate::cli::ui) async fn page(State(app): State<Arc<App>>, Query(values): Query<Values>) -> Html {
    let now = clock()();
    let start = date(now.minus(DEFAULT_PERIOD));
    let from = values.get("from").unwrap_or(&start);
    // The day after the last one.
    let to = values.get("to").map_or_else(|| date(now.plus(DAY)), str::to_owned);
    let call = |by: &str| {
        let call = values.add_to(Call::get("/v1/audit/summary").query("by", &format!("{by},outcome")), FILTERS);
        if values.get("from").is_none() { call.query("from", from) } else { call }
    };
    let mut body = html! {
        p { a href=(link::with_query("/audit", values.of(FILTERS))) { "The entries" } " · The charts begin on " (from) "." }
        (filters("/audit/charts", "Which calls", "Show", FILTERS, &values))
        (part("days", "Calls over time", app.client.json(call("day")).await, |summary| by_day(summary, from, &to)))
    };
    for chart in CHARTS {
        let more = part(chart.part, chart.title, app.client.json(call(chart.dimension)).await, |summary| by_name(chart, summary));
        body = html! { (body) (more) };
    }
    Page { place: "/audit", title: "Charts of the audit log", reload: None, body }.render(&app)
}

/// The numbers of each value by outcome: succeeded, denied, failed.
fn totals(summary: &Value, name: &str) -> BTreeMap<String, [u64; 3]> {
    let mut totals: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for item in items(summary, "items") {
        let calls = item.get("calls").and_then(Value::as_u64).unwrap_or_default();
        let [succeeded, denied, failed] = totals.entry(field_text(item, name).to_owned()).or_default();
        let number = match field_text(item, "outcome").parse() {
            Ok(Outcome::Ok) => succeeded,
            Ok(Outcome::Denied) => denied,
            Ok(Outcome::Failed) => failed,
            // Another entry has the outcome of an intent.
            Ok(Outcome::Intent) | Err(_) => continue,
        };
        *number = number.saturating_add(calls);
    }
    totals
}

fn by_day(summary: &Value, from: &str, to: &str) -> Markup {
    let days = totals(summary, "day");
    if days.is_empty() {
        return html! { p { "No calls." } };
    }
    let days = every_day(days, from, to);
    let (unit, groups) = if days.len() > MOST_DAYS { ("month", months(days)) } else { ("day", days) };
    show("chart-days", &format!("Calls per {unit} by outcome"), summary, groups, 0, stacked_columns)
}

fn by_name(Chart { id, title, field, .. }: &Chart, summary: &Value) -> Markup {
    let mut groups: Vec<_> = totals(summary, field)
        .into_iter()
        .map(|(value, numbers)| (if value.is_empty() { "none".to_owned() } else { value }, numbers))
        .collect();
    groups.sort_by_key(|(_, numbers)| std::cmp::Reverse(sum(numbers)));
    let left_out = groups.len().saturating_sub(MOST_ROWS);
    groups.truncate(MOST_ROWS);
    show(id, &format!("{title} and outcome, the most first"), summary, groups, left_out, stacked_rows)
}

/// A chart, and the same numbers as a table.
fn show(
    id: &'static str,
    title: &str,
    summary: &Value,
    groups: Vec<(String, [u64; 3])>,
    left_out: usize,
    draw: fn(&Bars) -> Markup,
) -> Markup {
    if groups.is_empty() {
        return html! { p { "No calls." } };
    }
    let columns = [Column::Text("Value"), Column::Count("Succeeded"), Column::Count("Denied"), Column::Count("Failed")];
    let row = |(name, numbers): &(String, [u64; 3])| std::iter::once(Cell::text(name)).chain(numbers.map(Cell::Count)).collect();
    let rows: Vec<Vec<Cell>> = groups.iter().filter(|(_, numbers)| sum(numbers) > 0).map(row).collect();
    let left_out =
        if left_out == 0 { String::new() } else { format!("{} more are left out.", grouped(u64::try_from(left_out).unwrap_or(u64::MAX))) };
    html! {
        (draw(&Bars { id, title: title.to_owned(), groups }))
        details { summary { "The numbers" } (render_table(title, &columns, &rows, &left_out, "No calls.")) }
        @if summary.get("complete").and_then(Value::as_bool) == Some(false) { p class="note" { "Not all entries are counted yet. Load the page again later." } }
    }
}

fn sum(numbers: &[u64; 3]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum.saturating_add(*number))
}

/// The days of the period, also those without calls. Of a period of more than ten years, only those with calls.
fn every_day(mut days: BTreeMap<String, [u64; 3]>, from: &str, to: &str) -> Vec<(String, [u64; 3])> {
    let bound = |day: &str| Timestamp::parse(&format!("{day}T00:00:00Z"));
    if let (Some(mut day), Some(end)) = (bound(from), bound(to))
        && end.since(day) < DAY * 3_660
    {
        while day < end {
            days.entry(date(day)).or_default();
            day = day.plus(DAY);
        }
    }
    days.into_iter().collect()
}

fn months(days: Vec<(String, [u64; 3])>) -> Vec<(String, [u64; 3])> {
    let mut months: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for (day, numbers) in days {
        let month = months.entry(day.chars().take(7).collect()).or_default();
        for (sum, number) in month.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
    }
    months.into_iter().collect()
}

fn date(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn days_without_calls_have_a_place_and_outcomes_are_separate() {
        let summary = json!({ "items": [
            { "day": "2026-02-27", "outcome": "ok", "calls": 3 }, { "day": "2026-02-27", "outcome": "denied", "calls": 1 },
            { "day": "2026-03-02", "outcome": "failed", "calls": 2 },
        ] });
        let days = every_day(totals(&summary, "day"), "2026-02-27", "2026-03-03");
        let expected = [("2026-02-27", [3, 1, 0]), ("2026-02-28", [0; 3]), ("2026-03-01", [0; 3]), ("2026-03-02", [0, 0, 2])];
        assert_eq!(days, expected.map(|(day, numbers)| (day.to_owned(), numbers)));
        assert_eq!(every_day(totals(&summary, "day"), "1900-01-01", "2026-03-03").len(), 2);
        assert_eq!(months(days), [("2026-02".to_owned(), [3, 1, 0]), ("2026-03".to_owned(), [0, 0, 2])]);
    }
}
