//! Maps and lists with a limit: the memory of a report does not grow with the log. What does not fit is counted.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// A value for each key, for the first keys that come. The calls of further keys are counted together.
#[derive(Debug, Clone)]
pub struct Tally<K, V> {
    most: usize,
    values: HashMap<K, V>,
    /// Calls of keys that have no value of their own.
    pub others: u64,
}

impl<K: Eq + Hash + Ord + Clone, V: Default> Tally<K, V> {
    /// A tally of at most `most` keys.
    pub(super) fn new(most: usize) -> Self {
        Self { most, values: HashMap::new(), others: 0 }
    }

    /// The value of a key. `None` if there is no place for it; its calls are counted then.
    pub(super) fn of<Q>(&mut self, key: &Q, calls: u64) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if !self.values.contains_key(key) {
            if self.values.len() >= self.most {
                self.others = self.others.saturating_add(calls);
                return None;
            }
            self.values.insert(key.to_owned(), V::default());
        }
        self.values.get_mut(key)
    }

    /// The number of keys with a value.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All keys and values, the largest `size` first; equal ones in the order of their keys.
    pub fn largest(&self, size: impl Fn(&V) -> u64) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.values.iter().collect();
        all.sort_by(|(key, value), (other_key, other)| size(other).cmp(&size(value)).then_with(|| key.cmp(other_key)));
        all
    }
}

/// The first items of a list, and the number of those that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    most: usize,
    /// The items, oldest first.
    pub items: Vec<T>,
    /// The number of further ones.
    pub left_out: u64,
}

impl<T> Listed<T> {
    /// A list of at most `most` items.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, items: Vec::new(), left_out: 0 }
    }

    /// Adds an item, or counts it.
    pub(super) fn push(&mut self, item: T) {
        if self.items.len() < self.most { self.items.push(item) } else { self.left_out = self.left_out.saturating_add(1) }
    }

    /// The number of all items.
    pub fn total(&self) -> u64 {
        self.left_out.saturating_add(u64::try_from(self.items.len()).unwrap_or(u64::MAX))
    }
}
