//! The parts of the log that a query looks at, one after the other: blocks, or for a key the parts of blocks in which the summary has it.

use rusqlite::Connection;

use super::{
    StoreError,
    blocks::{block_of, last_of, last_of_part, next_part, number_of, part_of, previous_part},
    digests,
};
use crate::{domain::KeyId, storage::Order};

/// The entries after one up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) after: u64,
    pub(super) last: u64,
}

impl Span {
    const fn is_empty(self) -> bool {
        self.after >= self.last
    }

    /// The common part with all entries from `first` to `last`.
    fn within(self, first: u64, last: u64) -> Self {
        Self { after: self.after.max(first.saturating_sub(1)), last: self.last.min(last) }
    }
}

/// What is left to look at.
pub(super) struct Spans<'db> {
    db: &'db Connection,
    left: Span,
    order: Order,
    key: Key,
    /// The first entry after the blocks that have a summary.
    unsummarized: u64,
}

/// The key whose entries are looked for.
enum Key {
    Any,
    /// No summary has it.
    Unknown,
    Number(i64),
}

impl<'db> Spans<'db> {
    /// The parts of `all` in which entries about `key` can be.
    pub(super) fn of(db: &'db Connection, all: Span, order: Order, key: Option<KeyId>) -> Result<Self, StoreError> {
        let unsummarized = digests::first_without(db)?.checked_sub(1).map_or(0, |block| last_of(block).saturating_add(1));
        let key = match key {
            None => Key::Any,
            Some(key) => number_of(db, &key.to_string())?.map_or(Key::Unknown, Key::Number),
        };
        Ok(Self { db, left: all, order, key, unsummarized })
    }

    /// What is left.
    pub(super) const fn left(&self) -> Span {
        self.left
    }

    /// Whether the block of an entry has a summary.
    pub(super) const fn is_summarized(&self, sequence: u64) -> bool {
        sequence < self.unsummarized
    }

    /// The part to look at next, which is in one block. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Span>, StoreError> {
        let found = match self.order {
            Order::Oldest => self.oldest()?,
            Order::Newest => self.newest()?,
        };
        let Some(found) = found.filter(|found| !found.is_empty()) else {
            self.left = Span { after: self.left.last, ..self.left };
            return Ok(None);
        };
        match self.order {
            Order::Oldest => self.left.after = found.last,
            Order::Newest => self.left.last = found.after,
        }
        Ok(Some(found))
    }

    fn oldest(&self) -> Result<Option<Span>, StoreError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let first = self.left.after.saturating_add(1);
        let number = match self.key {
            Key::Number(number) if self.is_summarized(first) => number,
            Key::Unknown if self.is_summarized(first) => return Ok(Some(self.block(self.unsummarized))),
            _ => return Ok(Some(self.block(first))),
        };
        let last = self.left.last.min(self.unsummarized.saturating_sub(1));
        Ok(Some(match next_part(self.db, number, part_of(first), part_of(last))? {
            Some(part) => self.part(part),
            None => self.block(self.unsummarized),
        }))
    }

    fn newest(&self) -> Result<Option<Span>, StoreError> {
        let last = self.left.last;
        if self.left.is_empty() {
            return Ok(None);
        }
        if !self.is_summarized(last) {
            return Ok(Some(self.block(last)));
        }
        match self.key {
            Key::Any => Ok(Some(self.block(last))),
            Key::Unknown => Ok(None),
            Key::Number(number) => {
                let first = part_of(self.left.after.saturating_add(1));
                Ok(previous_part(self.db, number, first, part_of(last))?.map(|part| self.part(part)))
            }
        }
    }

    fn block(&self, sequence: u64) -> Span {
        let block = block_of(sequence);
        self.left.within(block.checked_sub(1).map_or(0, last_of).saturating_add(1), last_of(block))
    }

    fn part(&self, part: u64) -> Span {
        self.left.within(part.checked_sub(1).map_or(0, last_of_part).saturating_add(1), last_of_part(part))
    }
}
