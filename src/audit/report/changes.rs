//! What changed in a period: keys, grants, wrapper keys, and the log itself. Only what succeeded.

use std::collections::BTreeMap;

use crate::{
    audit::Entry,
    domain::{KeyId, NodeName, Operation, Outcome, Timestamp},
};

use super::{Listed, Rewrap, Tally};

/// Entries that are listed for each topic.
const MOST: usize = 500;
/// Pairs of wrapper keys whose re-wraps are counted one by one.
const MOST_PAIRS: usize = 1_000;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A key was created, imported, changed, disabled, deleted or quarantined.
    Keys,
    /// A key left the vault.
    Exports,
    /// The policy that is in force: starts and reloads.
    Grants,
    /// A wrapper key, or a job over all keys.
    WrapperKeys,
    /// The vault was frozen or unfrozen.
    Freeze,
    /// The vault started or stopped.
    Service,
    /// The log: rollbacks that an operator accepted, keys that sign checkpoints, sinks.
    Log,
}

impl Topic {
    /// The topics of an operation, if it is a change that a report lists.
    fn of(operation: Operation) -> &'static [Self] {
        use Operation as O;
        match operation {
            O::CreateKey
            | O::CreateExportableKey
            | O::ImportKey
            | O::EnableKey
            | O::DisableKey
            | O::RotateKey
            | O::SupersedeKey
            | O::RestrictSigning
            | O::DeleteKey
            | O::CancelDeletion
            | O::WithdrawKey
            | O::RenameKey
            | O::ResealKey
            | O::Quarantine
            | O::DestroyKey => &[Self::Keys],
            O::ExportKey => &[Self::Exports],
            O::Start => &[Self::Grants, Self::Service],
            O::Stop => &[Self::Service],
            O::Reload => &[Self::Grants],
            O::AddWrapperKey
            | O::BootstrapWrapperKey
            | O::ReplicateWrapperKey
            | O::RenameWrapperKey
            | O::RetireWrapperKey
            | O::StartRotation
            | O::AbortRotation
            | O::EndRotation
            | O::StartReseal
            | O::AbortReseal
            | O::EndReseal => &[Self::WrapperKeys],
            O::Freeze | O::Unfreeze => &[Self::Freeze],
            O::AcceptRollback | O::RestateState | O::CreateCheckpointKey | O::RotateCheckpointKey | O::StartSink | O::SkipEntries => {
                &[Self::Log]
            }
            _ => &[],
        }
    }
}

/// A change as its entry states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The sequence number of the entry.
    pub sequence: u64,
    /// The time.
    pub at: Timestamp,
    /// Who did it.
    pub principal: String,
    /// What was done.
    pub operation: Operation,
    /// The key.
    pub key: Option<KeyId>,
    /// The node.
    pub node: Option<NodeName>,
    /// The object or the details, as the entry names them.
    pub subject: String,
    /// The cause.
    pub reason: String,
    /// The state of the key after it.
    pub state: String,
    /// Of a start or reload: the digest of the policy in force, and whether it is another one than before.
    pub policy: Option<(String, bool)>,
    /// The instance and version of the vault that wrote the entry.
    pub program: String,
}

/// The changes of a period.
#[derive(Debug, Clone)]
pub struct Changes {
    topics: BTreeMap<Topic, Listed<Change>>,
    /// The keys that got a further wrap, by the wrapper keys `from` and `to` and whether the KMS re-encrypted.
    pub rewraps: Tally<(String, String, bool), u64>,
    /// The policy in force, to see a change.
    policy: Option<String>,
    /// How often another policy came into force in the period.
    pub policy_changes: u64,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { topics: BTreeMap::new(), rewraps: Tally::new(MOST_PAIRS), policy: None, policy_changes: 0 }
    }

    /// The changes of a topic.
    pub fn of(&self, topic: Topic) -> Listed<Change> {
        self.topics.get(&topic).cloned().unwrap_or(Listed::new(MOST))
    }

    /// Adds an entry. One before the period only shows which policy was in force.
    pub(super) fn add(&mut self, entry: &Entry, in_period: bool) {
        if entry.outcome != Outcome::Ok {
            return;
        }
        let policy = entry.digest.clone().filter(|_| matches!(entry.operation, Operation::Start | Operation::Reload));
        let differs = policy.is_some() && self.policy.is_some() && policy != self.policy;
        if policy.is_some() {
            self.policy.clone_from(&policy);
        }
        if !in_period {
            return;
        }
        self.policy_changes = self.policy_changes.saturating_add(u64::from(differs));
        if let Some(Rewrap { from, to, re_encrypted, .. }) = Rewrap::of(entry) {
            let pair = (from, to, re_encrypted);
            if let Some(count) = self.rewraps.of(&pair, 1) {
                *count = count.saturating_add(1);
            }
        }
        // A dry run and the repetition of a call change nothing.
        let changes_nothing = matches!(entry.subject.as_deref(), Some(text) if text == "repeated" || text.ends_with(", repeated") || text.ends_with(", dry run"));
        for topic in Topic::of(entry.operation).iter().filter(|_| !changes_nothing) {
            let change = Change {
                sequence: entry.sequence,
                at: entry.at,
                principal: entry.principal.clone(),
                operation: entry.operation,
                key: entry.key_id,
                node: entry.node.clone(),
                subject: entry.subject.clone().unwrap_or_default(),
                reason: entry.reason.clone().unwrap_or_default(),
                state: entry.state.clone().unwrap_or_default(),
                policy: policy.clone().map(|digest| (digest, differs)),
                program: format!("{}, version {}", entry.instance, entry.version),
            };
            self.topics.entry(*topic).or_insert(Listed::new(MOST)).push(change);
        }
    }
}
