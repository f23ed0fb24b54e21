//! The chain of state changes along one log: each change has the leaf hash of the one before. If several replicas share a store, a part of the changes is
//! in their logs, and the numbers of this one have gaps. The entry of a start says that it is so.

use super::head::EntryHead;
use crate::{audit::merkle::Hash, domain::Hex};

/// The leaf hash before the first state change.
const START: Hash = [0; 32];

/// What the entries of a new store count before its first state change.
const FIRST: u64 = 1;

/// The newest state change so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    /// None yet, and the log is read from its first entry.
    None,
    /// Not known: the log is not read from its first entry, or the chain is broken before.
    Unknown,
    /// Its leaf hash, its sequence number and its number in the chain.
    Leaf(Hash, u64, u64),
}

/// How an entry does not continue the chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The entry is not the next one.
    Here(String),
    /// State changes are missing before the entry: they are in the logs of other replicas, or were removed from this one. A checkpoint after it decides.
    Gap(String),
    /// The entry and the state change before it do not belong together: one of the two was changed.
    Link {
        /// The sequence number of the state change before.
        before: u64,
    },
}

/// The chain so far.
#[derive(Debug)]
pub(super) struct Chain {
    /// Whether state changes can be in other logs: a start said so, or the log is not read from its first entry.
    shared: bool,
    revision: Option<u64>,
    newest: Newest,
}

impl Chain {
    /// Before the first entry that is read. `whole` says that it is the first entry of the log.
    pub(super) const fn new(whole: bool) -> Self {
        Self { shared: !whole, revision: None, newest: if whole { Newest::None } else { Newest::Unknown } }
    }

    /// The next entry. If it does not continue the chain, the error says why, and the chain goes on after it.
    pub(super) fn follow(&mut self, head: &EntryHead<'_>, leaf: Hash) -> Result<(), Broken> {
        self.shared |= head.begins_replica();
        let result = match self.check(head) {
            Err(Broken::Gap(why)) if !self.shared => Err(Broken::Here(why)),
            checked => checked,
        };
        if !head.is_replacement() {
            self.revision = head.state_revision.or(self.revision);
        }
        if head.previous.is_some() {
            self.newest = Newest::Leaf(leaf, head.sequence, head.state_revision.unwrap_or(0));
        }
        result
    }

    fn check(&self, head: &EntryHead<'_>) -> Result<(), Broken> {
        let here = |why: String| Err(Broken::Here(why));
        let Some(revision) = head.state_revision else {
            // Entries of programs without the chain.
            let is_earlier = self.revision.is_none() && head.previous.is_none();
            return if is_earlier { Ok(()) } else { here("it does not count the state changes".into()) };
        };
        let Some(previous) = head.previous else {
            return match self.revision {
                Some(known) if known != revision && !head.is_replacement() => {
                    let why = format!("it counts {revision} state changes, and the log has {known} before it");
                    if revision > known { Err(Broken::Gap(why)) } else { here(why) }
                }
                _ => Ok(()),
            };
        };
        if let Some(known) = self.revision {
            let begins_again = head.incarnation.is_some() && revision > known;
            if revision != known.saturating_add(1) && !begins_again {
                let why = format!("it is the state change {revision}, and {} should follow", known.saturating_add(1));
                return if revision > known { Err(Broken::Gap(why)) } else { here(why) };
            }
        }
        let names = |leaf: &Hash| previous == Hex(leaf).to_string();
        match self.newest {
            Newest::Unknown => Ok(()),
            Newest::None if names(&START) => Ok(()),
            // Other replicas made the changes before.
            Newest::None if self.shared && self.revision.is_some_and(|known| known > FIRST) => Ok(()),
            Newest::None => here("it names a state change before it, and there is none".into()),
            Newest::Leaf(leaf, ..) if names(&leaf) => Ok(()),
            // The one before it is in another log.
            Newest::Leaf(_, _, newest) if self.shared && newest.saturating_add(1) < revision && !names(&START) => Ok(()),
            // An operator accepted the state, which begins a new chain.
            Newest::Leaf(..) if names(&START) && head.incarnation.is_some() => Ok(()),
            Newest::Leaf(_, before, _) => Err(Broken::Link { before }),
        }
    }

    /// Whether this is the newest state change, as far as that is known.
    pub(super) fn is_at(&self, revision: u64, leaf: &Hash) -> bool {
        self.revision.is_none_or(|known| known == revision)
            && match self.newest {
                Newest::None => *leaf == START || self.shared && revision > FIRST,
                Newest::Unknown => true,
                // The newest one of the store can be in another log.
                Newest::Leaf(known, _, newest) => known == *leaf || self.shared && newest < revision,
            }
    }
}
