//! What was not usual. The definitions are in the last section of the report.

use maud::{Markup, html};

use crate::{
    audit::report::{Anomalies, Burst, FirstUse, Listed, UnusualHour},
    cli::html::{Cell, Column, Table, grouped, paragraph},
};

/// The anomalies of the period.
pub(super) fn found(anomalies: &Anomalies) -> Markup {
    let not_compared = anomalies.not_compared();
    html! {
        (paragraph("An anomaly is a reason to ask, not a proof of misuse. The definitions are fixed, so that two reports of the same log agree."))
        h3 { "First use of a certificate" }
        (first_uses(&anomalies.first_uses))
        h3 { "Use outside the usual hours of a certificate" }
        (unusual_hours(&anomalies.unusual_hours))
        h3 { "Bursts" }
        (bursts(&anomalies.bursts))
        @if not_compared > 0 {
            (paragraph(&format!("{} calls were not compared: there are too many certificates or principals.", grouped(not_compared))))
        }
    }
}

fn more<T>(listed: &Listed<T>) -> String {
    if listed.left_out == 0 { String::new() } else { format!("And {} later ones.", grouped(listed.left_out)) }
}

fn first_uses(listed: &Listed<FirstUse>) -> Markup {
    let row = |FirstUse { sequence, at, certificate, principal, operation }: &FirstUse| {
        vec![Cell::Count(*sequence), Cell::Time(Some(*at)), Cell::code(principal), Cell::word(operation), Cell::code(certificate)]
    };
    Table {
        caption: "Certificates that were never used before".into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Time"),
            Column::Text("Principal"),
            Column::Text("Operation"),
            Column::Text("Certificate (SHA-256)"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(listed),
        empty: "No certificate was used for the first time in the period.",
    }
    .render()
}

fn unusual_hours(listed: &Listed<UnusualHour>) -> Markup {
    let row = |UnusualHour { sequence, hour, certificate, principal, calls, usual }: &UnusualHour| {
        let usual: Vec<String> = usual.iter().map(ToString::to_string).collect();
        let first = [Cell::Count(*sequence), Cell::Time(Some(*hour)), Cell::code(principal), Cell::code(certificate)];
        first.into_iter().chain([Cell::Count(*calls), Cell::text(usual.join(", "))]).collect()
    };
    Table {
        caption: "Hours in which a certificate was used and usually is not".into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Hour (UTC)"),
            Column::Text("Principal"),
            Column::Text("Certificate (SHA-256)"),
            Column::Count("Calls"),
            Column::Text("Usual hours of the day"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(listed),
        empty: "No certificate with known usual hours was used outside them.",
    }
    .render()
}

fn bursts(listed: &Listed<Burst>) -> Markup {
    let row = |Burst { hour, principal, calls, twice_the_median }: &Burst| {
        let half = if twice_the_median.is_multiple_of(2) { "" } else { ".5" };
        let median = format!("{}{half}", grouped(twice_the_median / 2));
        vec![Cell::code(principal), Cell::Time(Some(*hour)), Cell::Count(*calls), Cell::text(median)]
    };
    Table {
        caption: "Hours in which a principal made far more calls than before".into(),
        columns: &[Column::Text("Principal"), Column::Text("Hour (UTC)"), Column::Count("Calls"), Column::Text("Median hour")],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(listed),
        empty: "No principal made far more calls in an hour than before.",
    }
    .render()
}
