//! What changed, by topic.

use maud::{Markup, html};

use super::usage::left_out;
use crate::{
    audit::report::{Change, Changes, Listed, Topic},
    cli::html::{Cell, Column, Table, grouped, paragraph},
    domain::Operation,
};

fn more(listed: &Listed<Change>) -> String {
    if listed.left_out == 0 {
        return String::new();
    }
    format!("And {} later ones: canton-keyvault audit query lists them.", grouped(listed.left_out))
}

fn details(change: &Change) -> String {
    let parts = [&change.subject, &change.reason];
    let state = if change.state.is_empty() { String::new() } else { format!("state {}", change.state) };
    let all: Vec<&str> = parts.into_iter().chain([&state]).map(String::as_str).filter(|text| !text.is_empty()).collect();
    all.join("; ")
}

fn node(change: &Change) -> Cell {
    Cell::text(change.node.as_ref().map_or_else(String::new, ToString::to_string))
}

/// The entry, time, principal and operation of a change.
fn head(change: &Change) -> [Cell; 4] {
    [Cell::Count(change.sequence), Cell::Time(Some(change.at)), Cell::code(&change.principal), Cell::word(change.operation)]
}

fn with_keys(changes: &Changes, topic: Topic, caption: &str, empty: &'static str) -> Markup {
    let listed = changes.of(topic);
    let row = |change: &Change| {
        let key = Cell::code(change.key.map_or_else(String::new, |key| key.to_string()));
        head(change).into_iter().chain([key, node(change), Cell::text(details(change))]).collect()
    };
    Table {
        caption: caption.into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Time"),
            Column::Text("Principal"),
            Column::Text("Operation"),
            Column::Text("Key"),
            Column::Text("Node"),
            Column::Text("Details"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(&listed),
        empty,
    }
    .render()
}

fn without_keys(changes: &Changes, topic: Topic, caption: &str, empty: &'static str) -> Markup {
    let listed = changes.of(topic);
    let row = |change: &Change| head(change).into_iter().chain([Cell::text(details(change)), Cell::text(&change.program)]).collect();
    Table {
        caption: caption.into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Time"),
            Column::Text("Principal"),
            Column::Text("Operation"),
            Column::Text("Details"),
            Column::Text("Written by"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(&listed),
        empty,
    }
    .render()
}

/// Keys.
pub(super) fn keys(changes: &Changes) -> Markup {
    with_keys(changes, Topic::Keys, "Keys that were created, imported, changed, deleted or quarantined", "No key changed in the period.")
}

/// Exports.
pub(super) fn exports(changes: &Changes) -> Markup {
    with_keys(changes, Topic::Exports, "Private keys that left the vault", "No key was exported in the period.")
}

/// Grants.
pub(super) fn grants(changes: &Changes) -> Markup {
    let listed = changes.of(Topic::Grants);
    let row = |change: &Change| {
        let (digest, differs) = change.policy.clone().unwrap_or_default();
        let kind = match (differs, digest.is_empty()) {
            (_, true) => "not recorded",
            (true, false) => "changed",
            (false, false) => "as before",
        };
        let what = if change.operation == Operation::Start { "start".to_owned() } else { format!("reload of {}", change.subject) };
        vec![Cell::Count(change.sequence), Cell::Time(Some(change.at)), Cell::text(what), Cell::text(kind), Cell::code(digest)]
    };
    let table = Table {
        caption: "The policy in force after each start and reload".into(),
        columns: &[
            Column::Count("Entry"),
            Column::Text("Time"),
            Column::Text("Cause"),
            Column::Text("Policy"),
            Column::Text("Digest (SHA-256)"),
        ],
        rows: listed.items.iter().map(row).collect(),
        left_out: more(&listed),
        empty: "The vault neither started nor reloaded its configuration in the period, so that the grants did not change.",
    };
    html! {
        (paragraph("Grants are part of the configuration. Each start and reload states the digest of the nodes and grants in force. To see the grants for a key at a time: canton-keyvault audit who --key-id KEY --at TIME."))
        (table.render())
    }
}

/// Wrapper keys and jobs.
pub(super) fn wrapper_keys(changes: &Changes) -> Markup {
    let pairs = changes.rewraps.largest(|count| *count);
    let row = |((from, to, re_encrypted), count): &(&(String, String, bool), &u64)| {
        let method = if *re_encrypted { "re-encrypted inside the KMS" } else { "unwrapped and wrapped" };
        vec![Cell::code(from), Cell::code(to), Cell::text(method), Cell::Count(**count)]
    };
    let rewraps = Table {
        caption: "Keys that got a further wrap".into(),
        columns: &[Column::Text("From"), Column::Text("To"), Column::Text("Method"), Column::Count("Keys")],
        rows: pairs.iter().map(row).collect(),
        left_out: left_out(pairs.len(), pairs.len(), changes.rewraps.others, "pairs of wrapper keys"),
        empty: "No key got a further wrap in the period.",
    };
    let caption = "Wrapper keys that were added, replicated or retired, and jobs over all keys";
    html! {
        (without_keys(changes, Topic::WrapperKeys, caption, "No wrapper key changed in the period."))
        (rewraps.render())
        (paragraph("The report of one rotation: canton-keyvault wrapper rotation report JOB."))
    }
}

/// Freezes.
pub(super) fn freezes(changes: &Changes) -> Markup {
    without_keys(
        changes,
        Topic::Freeze,
        "Freezes, which stop every use of keys, and their ends",
        "The vault was not frozen or unfrozen in the period.",
    )
}

/// Starts and stops.
pub(super) fn service(changes: &Changes) -> Markup {
    without_keys(changes, Topic::Service, "Starts and orderly stops", "The vault neither started nor stopped in the period.")
}

/// The log.
pub(super) fn log(changes: &Changes) -> Markup {
    without_keys(
        changes,
        Topic::Log,
        "Accepted rollbacks, keys that sign checkpoints, and audit sinks",
        "No rollback was accepted, the key that signs checkpoints stayed, and no entry was withheld from a sink in the period.",
    )
}
