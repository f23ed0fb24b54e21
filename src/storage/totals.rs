//! Totals of the log: how many calls there were, by principal, key, day and so on.

use std::collections::HashMap;

use super::digest::{Count, DAY, Group};
use crate::{
    audit::Entry,
    domain::{CertificateId, Dimension, Hex, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp},
};

/// Which calls to count, and by what. All given filters must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalsQuery {
    /// The nodes that the caller may see. Calls without a node are included for [`NodeScope::All`] only.
    pub nodes: NodeScope,
    /// What the calls are counted by, each at most once.
    pub by: Vec<Dimension>,
    /// The principal.
    pub principal: Option<String>,
    /// The client certificate.
    pub certificate: Option<CertificateId>,
    /// The node.
    pub node: Option<NodeName>,
    /// The key.
    pub key: Option<KeyId>,
    /// The operation.
    pub operation: Option<Operation>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// From this day, inclusive, in days since 1970-01-01.
    pub from: Option<i64>,
    /// Up to this day, exclusive.
    pub to: Option<i64>,
}

/// The calls of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// The values in the order of [`TotalsQuery::by`], as texts. `None`: the calls without one.
    pub values: Vec<Option<String>>,
    /// The number of calls. An entry of collapsed refusals counts with their number.
    pub calls: u64,
    /// The number of entries.
    pub entries: u64,
    /// The time of the first call.
    pub first_at: Timestamp,
    /// The time of the last call.
    pub last_at: Timestamp,
}

/// The totals of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// One for each group, in the order of the values.
    pub groups: Vec<Total>,
    /// The last entry that is counted.
    pub counted_to: u64,
    /// Whether it is the newest entry. If not, the time of the query ended first, because the log is not digested yet.
    pub complete: bool,
}

/// The most groups of a query.
pub const MAX_GROUPS: usize = 10_000;

/// Numbers by the values of a query.
pub(super) type Groups = HashMap<Vec<String>, Count>;

/// Counts an entry, if the query is about it.
pub(super) fn count_entry(groups: &mut Groups, query: &TotalsQuery, entry: &Entry) {
    let group = Group::of(entry);
    if includes(query, &group) {
        let values = query.by.iter().map(|dimension| value(&group, *dimension)).collect();
        let count = Count::of(entry);
        groups.entry(values).and_modify(|sum| sum.add(count)).or_insert(count);
    }
}

/// The groups in the order of their values.
pub(super) fn sorted(groups: Groups) -> Vec<Total> {
    let mut groups: Vec<Total> = groups.into_iter().map(total).collect();
    groups.sort_unstable_by(|one, other| one.values.cmp(&other.values));
    groups
}

/// The same conditions on the group of an entry.
fn includes(query: &TotalsQuery, group: &Group) -> bool {
    let TotalsQuery { nodes, by: _, principal, certificate, node, key, operation, outcome, from, to } = query;
    let visible = match nodes {
        NodeScope::All => true,
        NodeScope::Only(nodes) => nodes.iter().any(|node| node.as_str() == group.node),
    };
    visible
        && principal.as_ref().is_none_or(|principal| *principal == group.principal)
        && certificate.is_none_or(|digest| Hex(&digest).to_string() == group.certificate)
        && node.as_ref().is_none_or(|node| node.as_str() == group.node)
        && key.is_none_or(|key| key.to_string() == group.key)
        && operation.map(Operation::as_str).is_none_or(|operation| operation == group.operation)
        && outcome.map(Outcome::as_str).is_none_or(|outcome| outcome == group.outcome)
        && from.is_none_or(|from| group.day >= from)
        && to.is_none_or(|to| group.day < to)
}

/// The column of a dimension in the stored totals.
pub(super) const fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Day => "day",
        Dimension::Principal => "principal",
        Dimension::Certificate => "certificate",
        Dimension::Node => "node",
        Dimension::Key => "key_id",
        Dimension::Operation => "operation",
        Dimension::Outcome => "outcome",
    }
}

fn value(group: &Group, dimension: Dimension) -> String {
    match dimension {
        Dimension::Day => date(group.day),
        Dimension::Principal => group.principal.clone(),
        Dimension::Certificate => group.certificate.clone(),
        Dimension::Node => group.node.clone(),
        Dimension::Key => group.key.clone(),
        Dimension::Operation => group.operation.to_owned(),
        Dimension::Outcome => group.outcome.to_owned(),
    }
}

/// The date of a day, such as 2026-01-31.
pub(super) fn date(day: i64) -> String {
    let time = Timestamp::from_micros(day.saturating_mul(DAY)).to_string();
    time.split_once('T').map_or_else(|| time.clone(), |(date, _)| date.to_owned())
}

fn total((values, Count { entries, calls, first_at, last_at }): (Vec<String>, Count)) -> Total {
    let values = values.into_iter().map(|value| Some(value).filter(|value| !value.is_empty())).collect();
    Total { values, calls, entries, first_at: Timestamp::from_micros(first_at), last_at: Timestamp::from_micros(last_at) }
}
