//! The chain of state changes along one log: numbers without gaps, each change with the leaf hash of the one before.

use super::head::EntryHead;
use crate::{audit::merkle::Hash, domain::Hex};

/// The leaf hash before the first state change.
const START: Hash = [0; 32];

/// The newest state change so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    /// None yet, and the log is read from its first entry.
    None,
    /// Not known: the log is not read from its first entry, or the chain is broken before.
    Unknown,
    /// Its leaf hash and its sequence number.
    Leaf(Hash, u64),
}

/// How an entry does not continue the chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The entry is not the next one.
    Here(String),
    /// The entry and the state change before it do not belong together: one of the two was changed.
    Link {
        /// The sequence number of the state change before.
        before: u64,
    },
}

/// The chain so far.
#[derive(Debug)]
pub(super) struct Chain {
    revision: Option<u64>,
    newest: Newest,
}

impl Chain {
    /// Before the first entry that is read. `whole` says that it is the first entry of the log.
    pub(super) const fn new(whole: bool) -> Self {
        Self { revision: None, newest: if whole { Newest::None } else { Newest::Unknown } }
    }

    /// The next entry. If it does not continue the chain, the error says why, and the chain goes on after it.
    pub(super) fn follow(&mut self, head: &EntryHead<'_>, leaf: Hash) -> Result<(), Broken> {
        let result = self.check(head);
        if !head.is_replacement() {
            self.revision = head.state_revision.or(self.revision);
        }
        if head.previous.is_some() {
            self.newest = Newest::Leaf(leaf, head.sequence);
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
                    here(format!("it counts {revision} state changes, and the log has {known} before it"))
                }
                _ => Ok(()),
            };
        };
        if let Some(known) = self.revision {
            let begins_again = head.incarnation.is_some() && revision > known;
            if revision != known.saturating_add(1) && !begins_again {
                return here(format!("it is the state change {revision}, and {} should follow", known.saturating_add(1)));
            }
        }
        let names = |leaf: &Hash| previous == Hex(leaf).to_string();
        match self.newest {
            Newest::Unknown => Ok(()),
            Newest::None if names(&START) => Ok(()),
            Newest::None => here("it names a state change before it, and there is none".into()),
            Newest::Leaf(leaf, _) if names(&leaf) => Ok(()),
            // An operator accepted the state, which begins a new chain.
            Newest::Leaf(..) if names(&START) && head.incarnation.is_some() => Ok(()),
            Newest::Leaf(_, before) => Err(Broken::Link { before }),
        }
    }

    /// Whether this is the newest state change, as far as that is known.
    pub(super) fn is_at(&self, revision: u64, leaf: &Hash) -> bool {
        self.revision.is_none_or(|known| known == revision)
            && match self.newest {
                Newest::None => *leaf == START,
                Newest::Unknown => true,
                Newest::Leaf(known, _) => known == *leaf,
            }
    }
}
