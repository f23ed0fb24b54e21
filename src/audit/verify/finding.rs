//! Where a verification failed, and why: for people as text, for programs as a code.

use std::fmt;

/// What the verification found first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: Reason,
}

/// The place of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The log as a whole, or what signs it. No entry is known to be bad.
    Log,
    /// The entry with this sequence number is the first bad one.
    Entry(u64),
    /// The first bad entry is one of these. The entries before them are those that were signed.
    Between {
        /// The first one that can be bad.
        first: u64,
        /// The last one.
        last: u64,
    },
}

/// Why a verification failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A line of the export cannot be read.
    #[error("line {line} of the export cannot be read: {why}")]
    Unreadable {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The export has no checkpoint.
    #[error("there is no signed checkpoint, so that nothing shows that these are the entries that were written")]
    NoCheckpoint,
    /// A checkpoint is no valid note or has other content.
    #[error("the checkpoint cannot be read: {0}")]
    MalformedCheckpoint(String),
    /// None of the given keys signed the checkpoint.
    #[error(
        "none of the trusted keys signed the checkpoint over {0} entries: the key was replaced, or the checkpoint is not of this vault"
    )]
    UnknownKey(u64),
    /// The signature is wrong.
    #[error("the signature of the checkpoint over {0} entries is not valid: the checkpoint was changed")]
    WrongSignature(u64),
    /// No checkpoint has the cosignatures of all demanded witnesses.
    #[error("no checkpoint has the cosignatures of all given witnesses; the one over {size} entries has none of {witness}")]
    NotCosigned {
        /// The entries of the newest checkpoint.
        size: u64,
        /// A witness that did not cosign it.
        witness: String,
    },
    /// The checkpoint or an entry is of another log.
    #[error("this is of the log {found}, and the verifier key is of {expected}")]
    OtherLog {
        /// The log that was found.
        found: String,
        /// The log that was expected.
        expected: String,
    },
    /// An entry is missing.
    #[error("the entry is missing; entry {0} follows")]
    Missing(u64),
    /// The bytes of the entry are missing, and its hash is there.
    #[error("the entry was removed, and no entry of the log states its removal")]
    Removed,
    /// Two entries are in the wrong order.
    #[error("the entry stands after entry {0}: the order was changed")]
    Moved(u64),
    /// The entry occurs again.
    #[error("the entry occurs twice")]
    Duplicate,
    /// Another entry has the same number.
    #[error("a second entry with this number and another content was inserted")]
    Inserted,
    /// The bytes are no entry.
    #[error("the entry was changed: its bytes are no entry ({0})")]
    NotAnEntry(String),
    /// The bytes are an entry that this program would not write.
    #[error("the entry was changed: its bytes are not in the form that a vault writes")]
    NotCanonical,
    /// The entry does not follow in the chain of state changes.
    #[error("the entry does not continue the chain of state changes: {0}")]
    StateChain(String),
    /// Entries were changed, replaced or inserted.
    #[error("the entries are not those that the checkpoint over {0} entries was signed over")]
    Changed(u64),
    /// The checkpoint names another newest state change than the log.
    #[error("the checkpoint over {0} entries names another newest state change than the log has")]
    OtherState(u64),
    /// Entries at the end are missing.
    #[error("the entry is missing: the log ends before it, and a checkpoint was signed over {0} entries")]
    Truncated(u64),
    /// The export has no last line.
    #[error("the export has no last line: it is not complete. Continue it with --after")]
    NoEnd,
    /// The last line counts other entries.
    #[error("the last line of the export counts {counted} entries up to {last}, and there are {found}")]
    OtherCount {
        /// The number in the last line.
        counted: u64,
        /// The last sequence number in it.
        last: u64,
        /// The number of entries found.
        found: u64,
    },
    /// An entry that no checkpoint of the export covers.
    #[error("the entry is not covered by the checkpoint of the export, which ends before it: it was added")]
    NotCovered,
    /// The proof of an entry is wrong.
    #[error("its proof is not valid for the checkpoint: the entry or the proof was changed")]
    Proof,
    /// The log is older than a checkpoint that was seen before.
    #[error("a checkpoint over {0} entries was seen before, and this log is older: it was rolled back, or its end was removed")]
    RolledBack(u64),
    /// Another history than that of a checkpoint that was seen before.
    #[error("the checkpoint over {0} entries that was seen before is of another history: the log was rewritten or forked")]
    Forked(u64),
    /// An operator accepted an older or changed store, which replaced a history that was seen before.
    #[error(
        "at this entry an operator accepted an older or changed store. It replaced the history of the checkpoint over {0} entries that was seen before"
    )]
    Replaced(u64),
    /// A checkpoint that was seen before lies before the first entry of the export.
    #[error("the checkpoint over {0} entries cannot be compared, because the export begins after them: export from an earlier entry")]
    NotCompared(u64),
    /// The incarnation of the checkpoint is not that of the entries.
    #[error("the checkpoint is of incarnation {signed}, and the entries are of {found}")]
    OtherIncarnation {
        /// That of the checkpoint.
        signed: u64,
        /// That of the entries.
        found: u64,
    },
    /// An operator accepted an older or changed store since the last look.
    #[error("the log is of incarnation {now}, and the last checkpoint was of {before}: an operator accepted an older or changed store")]
    NewIncarnation {
        /// That of the last checkpoint.
        before: u64,
        /// That of the newest one.
        now: u64,
    },
    /// The frontier of the export does not fit.
    #[error("the hashes of the entries before the export were changed")]
    Frontier,
    /// The stored leaf hash is not that of the bytes.
    #[error("the entry was changed: its stored hash is not that of its bytes")]
    Leaf,
    /// An index column disagrees with the bytes.
    #[error("an index column of the entry does not agree with its bytes: queries answer wrongly")]
    IndexColumns,
    /// The summary that queries use lacks a value.
    #[error("the summary for queries lacks a value that these entries have: queries leave out entries")]
    Summary,
    /// A stored hash of the tree is not that of its entries.
    #[error("a stored hash of the tree is not that of these entries")]
    TreeHash,
    /// The state of the store is not the one in the log.
    #[error("{0}")]
    State(String),
}

impl Finding {
    /// A finding at an entry.
    pub const fn at(sequence: u64, reason: Reason) -> Self {
        Self { place: Place::Entry(sequence), reason }
    }

    /// A finding about the log as a whole.
    pub const fn of_log(reason: Reason) -> Self {
        Self { place: Place::Log, reason }
    }
}

impl Reason {
    /// The reason for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable_line",
            Self::NoCheckpoint => "no_checkpoint",
            Self::MalformedCheckpoint(_) => "malformed_checkpoint",
            Self::UnknownKey(_) => "unknown_key",
            Self::WrongSignature(_) => "wrong_signature",
            Self::NotCosigned { .. } => "not_cosigned",
            Self::OtherLog { .. } => "other_log",
            Self::Missing(_) => "missing_entry",
            Self::Removed => "removed_entry",
            Self::Moved(_) => "moved_entry",
            Self::Duplicate => "duplicate_entry",
            Self::Inserted => "inserted_entry",
            Self::NotAnEntry(_) => "not_an_entry",
            Self::NotCanonical => "not_canonical",
            Self::StateChain(_) => "broken_state_chain",
            Self::Changed(_) => "changed_entries",
            Self::OtherState(_) => "other_state",
            Self::Truncated(_) => "truncated",
            Self::NoEnd => "incomplete_export",
            Self::OtherCount { .. } => "other_count",
            Self::NotCovered => "not_covered",
            Self::Proof => "wrong_proof",
            Self::RolledBack(_) => "rolled_back",
            Self::Forked(_) => "forked",
            Self::Replaced(_) => "replaced",
            Self::NotCompared(_) => "not_compared",
            Self::OtherIncarnation { .. } => "other_incarnation",
            Self::NewIncarnation { .. } => "new_incarnation",
            Self::Frontier => "wrong_frontier",
            Self::Leaf => "wrong_leaf_hash",
            Self::IndexColumns => "wrong_index_columns",
            Self::Summary => "wrong_summary",
            Self::TreeHash => "wrong_tree_hash",
            Self::State(_) => "wrong_state",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("the log"),
            Self::Entry(sequence) => write!(f, "entry {sequence}"),
            Self::Between { first, last } if first == last => write!(f, "entry {first}"),
            Self::Between { first, last } => write!(f, "one of the entries {first} to {last}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}
