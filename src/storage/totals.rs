//! Totals of the log: how many calls there were, by principal, key, day and so on.

use crate::domain::{CertificateId, Dimension, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp};

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
