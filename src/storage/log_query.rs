//! Which entries of the log a query is about. A query decides by the stored bytes of an entry: columns and summaries only help to find it.

use crate::{
    audit::Entry,
    domain::{CertificateId, Hex, JobId, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp, WrapperKeyId},
};

/// The order of a list of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// Which audit entries to list, and in which order. All given filters must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFilter {
    /// The nodes that the caller may see. Entries without a node are included for [`NodeScope::All`] only.
    pub nodes: NodeScope,
    /// The key.
    pub key: Option<KeyId>,
    /// The node.
    pub node: Option<NodeName>,
    /// The principal.
    pub principal: Option<String>,
    /// The client certificate.
    pub certificate: Option<CertificateId>,
    /// The operation.
    pub operation: Option<Operation>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The request id of the call, or one that a KMS assigned to a call of the vault.
    pub request_id: Option<String>,
    /// The trace id of the caller.
    pub trace_id: Option<String>,
    /// A job that the entry names.
    pub job: Option<JobId>,
    /// A wrapper key that the entry names.
    pub wrapper_key: Option<WrapperKeyId>,
    /// From this time, inclusive.
    pub from: Option<Timestamp>,
    /// Up to this time, exclusive.
    pub to: Option<Timestamp>,
    /// Only entries with a larger sequence number.
    pub after: u64,
    /// Only entries up to this sequence number.
    pub last: Option<u64>,
    /// The order.
    pub order: Order,
}

impl EntryFilter {
    /// All entries, oldest first.
    pub const fn all() -> Self {
        Self {
            nodes: NodeScope::All,
            key: None,
            node: None,
            principal: None,
            certificate: None,
            operation: None,
            outcome: None,
            request_id: None,
            trace_id: None,
            job: None,
            wrapper_key: None,
            from: None,
            to: None,
            after: 0,
            last: None,
            order: Order::Oldest,
        }
    }

    /// Whether the list can lack an entry between its first and its last one.
    pub fn leaves_out(&self) -> bool {
        *self != Self { after: self.after, last: self.last, order: self.order, ..Self::all() }
    }

    /// Whether the entry is one of the list.
    pub fn includes(&self, entry: &Entry) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        // Destructured, so that a new filter cannot be forgotten here.
        let Self {
            nodes,
            key,
            node,
            principal,
            certificate,
            operation,
            outcome,
            request_id,
            trace_id,
            job,
            wrapper_key,
            from,
            to,
            after,
            last,
            order: _,
        } = self;
        let visible = match nodes {
            NodeScope::All => true,
            NodeScope::Only(nodes) => entry.node.as_ref().is_some_and(|node| nodes.contains(node)),
        };
        visible
            && entry.sequence > *after
            && last.is_none_or(|last| entry.sequence <= last)
            && from.is_none_or(|from| entry.at >= from)
            && to.is_none_or(|to| entry.at < to)
            && is(key.as_ref(), entry.key_id.as_ref())
            && is(node.as_ref(), entry.node.as_ref())
            && is(principal.as_ref(), Some(&entry.principal))
            && is(operation.as_ref(), Some(&entry.operation))
            && is(outcome.as_ref(), Some(&entry.outcome))
            && is(trace_id.as_ref(), entry.trace_id.as_ref())
            && certificate.as_ref().is_none_or(|digest| entry.certificate.as_deref() == Some(&Hex(digest).to_string()))
            && request_id.as_deref().is_none_or(|id| request_ids(entry).any(|of| of == id))
            && job.is_none_or(|job| named(entry).any(|name| name == job.to_string()))
            && wrapper_key
                .is_none_or(|key| named(entry).any(|name| name == key.to_string()) || entry.wrapper_keys.iter().any(|of| of.id == key))
    }
}

/// The request id of the call, and those that a KMS assigned to calls of the vault for it.
pub(super) fn request_ids(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.request_id.iter().chain(&entry.kms_request_ids).map(String::as_str)
}

/// The jobs and wrapper keys that the subject of an entry names.
pub(super) fn named(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.named()
}

/// An audit entry with its stored bytes and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The decoded entry.
    pub entry: Entry,
    /// The stored bytes. Only they are hashed.
    pub bytes: Vec<u8>,
    /// The stored leaf hash.
    pub leaf: [u8; 32],
}

/// A page of audit entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// The entries.
    pub entries: Vec<StoredEntry>,
    /// The last entry looked at, if the time of the query ended first. The next page starts there.
    pub stopped_at: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Source, StatePosition},
        domain::{AuditEvent, KmsUse, Principal},
    };

    fn entry() -> Entry {
        let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
        let principal = Principal { name: "dns:a".into(), certificate: Some([0xab; 32]) };
        let event = AuditEvent {
            subject: Some("wk-000000000001 to wk-000000000002, unwrapped, job-00000000000a".into()),
            kms: KmsUse { request_ids: vec!["kms-1".into()], wrapper_keys: Vec::new() },
            request_id: Some("r-1".into()),
            trace_id: Some("t-1".into()),
            ..AuditEvent::new(Timestamp::from_micros(5), principal, Operation::RewrapKey, "p".into())
        };
        Entry::new(7, &source, &event, StatePosition::unchanged(1))
    }

    #[test]
    fn each_filter_decides_by_the_entry() {
        let all = EntryFilter::all;
        let (entry, only) = (entry(), |name: &str| NodeScope::Only([name.parse().unwrap()].into()));
        for (filter, expected) in [
            (all(), true),
            (EntryFilter { nodes: only("n"), ..all() }, false),
            (EntryFilter { certificate: Some([0xab; 32]), ..all() }, true),
            (EntryFilter { certificate: Some([0xac; 32]), ..all() }, false),
            (EntryFilter { request_id: Some("r-1".into()), ..all() }, true),
            (EntryFilter { request_id: Some("kms-1".into()), ..all() }, true),
            (EntryFilter { request_id: Some("kms".into()), ..all() }, false),
            (EntryFilter { trace_id: Some("t-1".into()), ..all() }, true),
            (EntryFilter { trace_id: Some("r-1".into()), ..all() }, false),
            (EntryFilter { job: "job-00000000000a".parse().ok(), ..all() }, true),
            (EntryFilter { job: "job-00000000000b".parse().ok(), ..all() }, false),
            (EntryFilter { wrapper_key: "wk-000000000002".parse().ok(), ..all() }, true),
            (EntryFilter { wrapper_key: "wk-000000000003".parse().ok(), ..all() }, false),
            (EntryFilter { after: 7, ..all() }, false),
            (EntryFilter { last: Some(6), ..all() }, false),
            (EntryFilter { after: 6, last: Some(7), ..all() }, true),
        ] {
            assert_eq!(filter.includes(&entry), expected, "{filter:?}");
        }
    }

    #[test]
    fn only_filters_leave_entries_out() {
        assert!(!EntryFilter { after: 3, last: Some(9), order: Order::Newest, ..EntryFilter::all() }.leaves_out());
        assert!(EntryFilter { outcome: Some(Outcome::Ok), ..EntryFilter::all() }.leaves_out());
        assert!(EntryFilter { nodes: NodeScope::Only([].into()), ..EntryFilter::all() }.leaves_out());
    }
}
