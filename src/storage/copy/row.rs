//! Rows as both databases have them, and their digests: two tables with the same digests have the same rows, byte for byte.

use sha2::{Digest as _, Sha256};

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum Value {
    /// No value.
    Null,
    /// An integer, or a truth value as 0 or 1.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// The integer.
    pub(in crate::storage) const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes.
    pub(in crate::storage) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The values of a row, in the order of the columns of its table.
pub(in crate::storage) type Row = Vec<Value>;

/// What is true of a store as a whole, and its logs.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::storage) struct Meta {
    /// The id of the vault.
    pub(in crate::storage) vault: String,
    /// The purpose of the store.
    pub(in crate::storage) mode: String,
    /// The key for hashes of request bodies.
    pub(in crate::storage) hash_key: Vec<u8>,
    /// When the store was created, in microseconds since 1970.
    pub(in crate::storage) created_at: i64,
    /// The number of the newest state change.
    pub(in crate::storage) store_revision: i64,
    /// Whether the vault is frozen.
    pub(in crate::storage) frozen: bool,
    /// The logs. A vault over SQLite continues the first one.
    pub(in crate::storage) logs: Vec<Log>,
}

/// The log of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::storage) struct Log {
    /// The instance.
    pub(in crate::storage) instance: String,
    /// The entries up to this one are removed, except state changes.
    pub(in crate::storage) removal_position: i64,
}

/// The digests of the rows of a table, in their order.
#[derive(Default)]
pub(super) struct RowDigests {
    /// The digests of complete groups of rows.
    groups: Vec<[u8; 32]>,
    group: Sha256,
    rows: u64,
}

/// Rows of a group: a difference is found to a group of this many rows.
const GROUP: u64 = 64;

impl RowDigests {
    /// Adds the next row.
    pub(super) fn add(&mut self, row: &Row) {
        for value in row {
            let number = value.integer().map(i64::to_be_bytes);
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Integer(_) => (1, number.as_ref().map_or(&[], <[u8; 8]>::as_slice)),
                Value::Text(text) => (2, text.as_bytes()),
                Value::Bytes(bytes) => (3, bytes),
            };
            self.group.update([kind]);
            self.group.update((bytes.len() as u64).to_be_bytes());
            self.group.update(bytes);
        }
        self.rows += 1;
        if self.rows.is_multiple_of(GROUP) {
            self.groups.push(self.group.finalize_reset().into());
        }
    }

    /// The number of rows.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// The first and the last row of the first group in which two tables differ. `None` if they have the same rows.
    pub(super) fn difference(&self, other: &Self) -> Option<(u64, u64)> {
        let ends = |digests: &Self| {
            let last: [u8; 32] = digests.group.clone().finalize().into();
            digests.groups.iter().copied().chain([last]).collect::<Vec<_>>()
        };
        let (these, others) = (ends(self), ends(other));
        let same = these.iter().zip(&others).take_while(|(this, that)| this == that).count();
        let is_same = self.rows == other.rows && same == these.len();
        let first = (same as u64).saturating_mul(GROUP);
        (!is_same).then(|| (first.saturating_add(1), first.saturating_add(GROUP).min(self.rows.max(other.rows))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(rows: &[Row]) -> RowDigests {
        let mut digests = RowDigests::default();
        for row in rows {
            digests.add(row);
        }
        digests
    }

    #[test]
    fn a_difference_is_found() {
        let rows: Vec<Row> = (0..200).map(|number| vec![Value::Integer(number), Value::Text("a".into()), Value::Null]).collect();
        assert_eq!(digests(&rows).difference(&digests(&rows)), None);
        assert_eq!(digests(&[]).difference(&digests(&[])), None);
        assert_eq!(digests(&rows).difference(&digests(&rows[..199])), Some((193, 200)), "a row is missing");
        assert_eq!(digests(&rows[..128]).difference(&digests(&rows)), Some((129, 192)), "rows were added");
        for (number, other) in [
            (70, vec![Value::Integer(70), Value::Bytes(b"a".into()), Value::Null]),
            (70, vec![Value::Integer(70), Value::Text("ab".into()), Value::Null]),
            (70, vec![Value::Integer(71), Value::Text("a".into()), Value::Null]),
        ] {
            let mut changed = rows.clone();
            changed[number] = other;
            assert_eq!(digests(&rows).difference(&digests(&changed)), Some((65, 128)));
        }
    }
}
