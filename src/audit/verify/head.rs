//! The fields of an entry that a verification needs. The rest of its JSON is checked for its syntax only, which is several times faster.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{audit::Entry, domain::REPLICA};

/// What a verification reads of an entry.
#[derive(Debug, Deserialize)]
pub(super) struct EntryHead<'a> {
    pub(super) v: u32,
    pub(super) sequence: u64,
    pub(super) at: &'a str,
    pub(super) vault: &'a str,
    pub(super) instance: &'a str,
    pub(super) operation: &'a str,
    #[serde(default)]
    pub(super) state_revision: Option<u64>,
    #[serde(default)]
    pub(super) previous: Option<&'a str>,
    #[serde(default)]
    pub(super) incarnation: Option<u64>,
    #[serde(borrow, default)]
    pub(super) subject: Option<Cow<'a, str>>,
}

impl<'a> EntryHead<'a> {
    /// Reads the bytes of an entry.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let head: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if (1..=Entry::VERSION).contains(&head.v) { Ok(head) } else { Err(format!("its version is {}", head.v)) }
    }

    /// Whether the entry is the start of a process that shares its store with others. The state changes of the others are not in this log.
    pub(super) fn begins_replica(&self) -> bool {
        self.operation == "vault.start" && self.subject.as_ref().is_some_and(|subject| subject.contains(REPLICA))
    }

    /// Whether the entry takes the place of one that was missing when an operator accepted the log. It counts no state changes.
    pub(super) fn is_replacement(&self) -> bool {
        self.state_revision == Some(0) && self.previous.is_none() && self.operation == "vault.restate-state"
    }
}
