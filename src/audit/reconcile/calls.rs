//! The calls of a KMS in a period: each once, found by its request id. Calls of other keys leave only a hash of their request id.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::domain::Timestamp;

use super::{
    call::{Interner, KmsCall},
    outcome::By,
};

/// There are more calls than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the files have more than {0} calls. Reconcile a shorter period, or allow more with --max-calls")]
pub struct TooManyCalls(usize);

/// A hash of an id.
type Id = [u8; 16];

/// A call, and what explains it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) call: KmsCall,
    pub(super) by: Option<By>,
    /// Another call with the same request id.
    next: Option<usize>,
}

/// The calls of the files.
#[derive(Debug)]
pub struct CallSet {
    pub(super) slots: Vec<Slot>,
    by_request: HashMap<Id, usize>,
    /// The request ids of calls that concern no wrapper key of the vault.
    others: HashSet<Id>,
    events: HashSet<Id>,
    pub(super) interner: Interner,
    limit: usize,
    /// The calls of other keys.
    pub(super) other_keys: u64,
    /// Records that were there before.
    pub(super) duplicates: u64,
    /// The times of the first and of the last record.
    pub(super) times: Option<(Timestamp, Timestamp)>,
}

impl CallSet {
    /// For at most this number of calls, those of other keys included.
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            by_request: HashMap::new(),
            others: HashSet::new(),
            events: HashSet::new(),
            interner: Interner::default(),
            limit,
            other_keys: 0,
            duplicates: 0,
            times: None,
        }
    }

    /// The number of calls of own keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Counts a record. `false` if it was there before: CloudTrail delivers some twice.
    pub(super) fn is_new_event(&mut self, event: &str) -> Result<bool, TooManyCalls> {
        if event.is_empty() {
            return Ok(true);
        }
        self.within_limit(self.events.len())?;
        let new = self.events.insert(id(event));
        self.duplicates += u64::from(!new);
        Ok(new)
    }

    /// Extends the period of the files.
    pub(super) fn saw(&mut self, at: Timestamp) {
        self.times = Some(self.times.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
    }

    /// Adds a call of an own key. One with the same request id and action is the same call, which was delivered to two accounts.
    pub(super) fn add(&mut self, request: Option<&str>, call: KmsCall) -> Result<(), TooManyCalls> {
        self.within_limit(self.slots.len())?;
        let index = self.slots.len();
        let mut next = None;
        if let Some(request) = request {
            let request = id(request);
            next = self.by_request.get(&request).copied();
            let same = |slot: &Slot| slot.call.action == call.action && slot.call.place == call.place;
            if self.chain(next).any(same) {
                self.duplicates += 1;
                return Ok(());
            }
            self.by_request.insert(request, index);
        }
        self.slots.push(Slot { call, by: None, next });
        Ok(())
    }

    /// Adds a call of another key.
    pub(super) fn add_other(&mut self, request: Option<&str>) -> Result<(), TooManyCalls> {
        self.within_limit(self.others.len())?;
        self.other_keys += 1;
        if let Some(request) = request {
            self.others.insert(id(request));
        }
        Ok(())
    }

    /// The call of an own key with this request id, to complete it.
    pub(super) fn get_mut(&mut self, request: &str) -> Option<&mut KmsCall> {
        let index = self.by_request.get(&id(request)).copied()?;
        self.slots.get_mut(index).map(|slot| &mut slot.call)
    }

    /// Whether a call of another key has this request id.
    pub(super) fn has_other(&self, request: &str) -> bool {
        self.others.contains(&id(request))
    }

    /// The places of the calls with this request id.
    pub(super) fn places(&self, request: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let mut place = self.by_request.get(&id(request)).copied();
        while let Some(index) = place {
            places.push(index);
            place = self.slots.get(index).and_then(|slot| slot.next);
        }
        places
    }

    fn chain(&self, first: Option<usize>) -> impl Iterator<Item = &Slot> {
        std::iter::successors(first.and_then(|index| self.slots.get(index)), |slot| slot.next.and_then(|index| self.slots.get(index)))
    }

    const fn within_limit(&self, number: usize) -> Result<(), TooManyCalls> {
        if number < self.limit { Ok(()) } else { Err(TooManyCalls(self.limit)) }
    }
}

fn id(text: &str) -> Id {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let mut id = Id::default();
    id.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
    id
}
