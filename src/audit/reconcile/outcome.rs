//! The result of a comparison: numbers, and lists of bounded length.

use std::collections::BTreeMap;

use crate::domain::{JobId, Operation, Timestamp};

use super::call::KmsCall;

/// Items of each list that are kept. The rest is counted.
const MAX_LISTED: usize = 1000;

/// What explains a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The entry with this number, of an operation of a principal or of the vault itself.
    Entry(u64),
    /// A probe: a canary in an entry of calls without an operation.
    Probe(u64),
    /// A job, in the entry with this number.
    Job(JobId, u64),
    /// The report with this index.
    Report(usize),
    /// A process that ended without an entry of its stop, before the entry with this number.
    Crash(u64),
}

/// The report of `verify-backup` or `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For people.
    pub name: String,
    /// When the command began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The request ids of its calls.
    pub kms_request_ids: Vec<String>,
}

/// The period that the files of the KMS cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// All calls since this time are in the files; `None`: since the first one in them.
    pub from: Option<Timestamp>,
    /// All calls before this time are in the files; `None`: up to 15 minutes before the last one in them.
    pub to: Option<Timestamp>,
}

/// Some items, and the number of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The first ones.
    pub items: Vec<T>,
    /// The number of all.
    pub total: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: Vec::new(), total: 0 }
    }
}

impl<T> Listed<T> {
    pub(super) fn push(&mut self, item: T) {
        self.total += 1;
        if self.items.len() < MAX_LISTED {
            self.items.push(item);
        }
    }
}

/// A call of an entry or a report that is not in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCall {
    /// The request id.
    pub request_id: String,
    /// The entry, or the report.
    pub by: By,
    /// The time of the entry.
    pub at: Timestamp,
    /// The operation of the entry.
    pub operation: Option<Operation>,
}

/// A call that is explained without its request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeakerCall {
    /// The call.
    pub call: KmsCall,
    /// What may have made it.
    pub by: By,
}

/// The calls of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobCalls {
    /// Who started it, and the number of the entry. `None` if that entry is not among those that were read.
    pub started: Option<(String, u64)>,
    /// The number of calls.
    pub calls: u64,
}

/// The result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The period of the files.
    pub period: Option<(Timestamp, Timestamp)>,
    /// Calls of own wrapper keys in the files.
    pub calls: u64,
    /// Calls of other keys.
    pub other_keys: u64,
    /// Records that were in the files more than once.
    pub duplicates: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Explained by their request id: by entries, probes and reports; by jobs.
    pub by_entry: u64,
    /// Probes.
    pub by_probe: u64,
    /// Each report, with the number of its calls.
    pub by_report: Vec<(String, u64)>,
    /// Jobs.
    pub by_job: BTreeMap<JobId, JobCalls>,
    /// Explained by context, place and time only.
    pub weaker: Listed<WeakerCall>,
    /// Uses of a wrapper key that nothing explains.
    pub unknown: Listed<KmsCall>,
    /// Calls with the request id of an entry about another key.
    pub other_context: Listed<WeakerCall>,
    /// Canaries of the vault that no entry has: of `check` without a report. They hold no key.
    pub canaries: Listed<KmsCall>,
    /// Attributes that somebody else read.
    pub reads: Listed<KmsCall>,
    /// Changes of a wrapper key that did not come from the vault.
    pub changes: Listed<KmsCall>,
    /// Calls at the end of the entries, which may get an entry later.
    pub too_new: Listed<KmsCall>,
    /// Calls of entries that the files do not have.
    pub missing: Listed<MissingCall>,
    /// The same, of operations that failed. A KMS does not record every refused call.
    pub missing_failed: Listed<MissingCall>,
    /// The same, at the end of the files.
    pub not_delivered: Listed<MissingCall>,
    /// Calls of entries before or after the period of the files.
    pub outside: u64,
    /// Whether there are files of every KMS that has a wrapper key. Otherwise a missing call may be one of another KMS.
    pub all_kms: bool,
}

impl Reconciled {
    /// Whether every use of a wrapper key is explained, and every call of an entry is in the files.
    pub const fn is_good(&self) -> bool {
        self.unknown.total == 0 && self.other_context.total == 0 && (self.missing.total == 0 || !self.all_kms)
    }
}
