//! Denied and failed calls, and refused certificates, grouped.

use maud::{Markup, html};

use super::{MOST_ROWS, usage::left_out};
use crate::{
    audit::report::{Refusals, RefusedCalls, Tally, Use},
    cli::html::{Cell, Column, Table, paragraph},
};

type Groups = Tally<RefusedCalls, Use>;

fn row(first: [Cell; 3], used: &Use) -> Vec<Cell> {
    let (begin, end) = used.between.unzip();
    first.into_iter().chain([Cell::Count(used.calls.total()), Cell::Time(begin), Cell::Time(end)]).collect()
}

fn table(
    groups: &Groups,
    caption: &str,
    columns: &'static [Column],
    empty: &'static str,
    cells: impl Fn(&RefusedCalls) -> [Cell; 3],
) -> Markup {
    let all = groups.largest(|used| used.calls.total());
    Table {
        caption: caption.into(),
        columns,
        rows: all.iter().take(MOST_ROWS).map(|(group, used)| row(cells(group), used)).collect(),
        left_out: left_out(all.len(), all.len().min(MOST_ROWS), groups.others, "groups"),
        empty,
    }
    .render()
}

const CALLS: &[Column] = &[
    Column::Text("Principal"),
    Column::Text("Operation"),
    Column::Text("Reason"),
    Column::Count("Calls"),
    Column::Text("First"),
    Column::Text("Last"),
];

fn of_a_call(group: &RefusedCalls) -> [Cell; 3] {
    [Cell::code(&group.who), Cell::word(group.operation), Cell::text(&group.reason)]
}

/// What the policy denied.
pub(super) fn denied(refusals: &Refusals) -> Markup {
    html! {
        (paragraph("Calls of admitted clients that the policy does not permit. The reason not_found is the answer to a caller who may not know whether the key exists."))
        (table(&refusals.denied, "Denied calls by principal, operation and reason", CALLS, "No call was denied in the period.", of_a_call))
    }
}

/// What could not be done.
pub(super) fn failed(refusals: &Refusals) -> Markup {
    table(&refusals.failed, "Failed calls by principal, operation and reason", CALLS, "No call failed in the period.", of_a_call)
}

/// Whom the vault did not admit.
pub(super) fn clients(refusals: &Refusals) -> Markup {
    const COLUMNS: &[Column] = &[
        Column::Text("Certificate (SHA-256)"),
        Column::Text("Reason"),
        Column::Text("What it says, not verified"),
        Column::Count("Attempts"),
        Column::Text("First"),
        Column::Text("Last"),
    ];
    let cells = |group: &RefusedCalls| [Cell::code(&group.who), Cell::text(&group.reason), Cell::text(&group.says)];
    html! {
        (paragraph("Clients whose certificate the vault did not admit. Nothing that such a certificate says is authenticated."))
        (table(&refusals.clients, "Refused certificates", COLUMNS, "No certificate was refused in the period.", cells))
    }
}
