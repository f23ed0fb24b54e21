//! The Merkle tree over the log of an instance: leaves beside their entries, hashes of complete subtrees in `audit_tree`.

use std::{cell::Cell, collections::HashMap};

use super::{
    StoreError,
    connect::{Db, optional, rows},
    error::{corrupt, signed, unsigned},
};
use crate::{
    audit::{
        leaf_hash,
        merkle::{self, Frontier, Hash, HashReader, TILE},
    },
    domain::Timestamp,
};

/// The hashes that were read. A question that needs others notes them, and is asked again.
#[derive(Default)]
pub(super) struct Tiles {
    known: HashMap<(u32, u64), Hash>,
    missing: Cell<Option<(u32, u64, u64)>>,
}

impl HashReader for Tiles {
    type Error = StoreError;

    fn hashes(&self, level: u32, from: u64, count: u64) -> Result<Vec<Hash>, StoreError> {
        let found: Option<Vec<Hash>> =
            (from..from.saturating_add(count)).map(|position| self.known.get(&(level, position)).copied()).collect();
        found.ok_or_else(|| {
            self.missing.set(Some((level, from, count)));
            corrupt("audit_tree", "hashes are not read yet")
        })
    }
}

impl Tiles {
    /// Reads the tiles that have these hashes.
    async fn read(&mut self, db: &Db, instance: i32, (level, from, count): (u32, u64, u64)) -> Result<(), StoreError> {
        let to = from.saturating_add(count);
        let (first, end) = (from - from % TILE, to.div_ceil(TILE).saturating_mul(TILE));
        let found = if level == 0 {
            let sql = "SELECT sequence - 1, leaf FROM audit_entries WHERE instance = $1 AND sequence > $2 AND sequence <= $3";
            rows(db, sql, &[&instance, &signed(first)?, &signed(end)?]).await?
        } else {
            let sql = "SELECT position, hash FROM audit_tree WHERE instance = $1 AND level = $2 AND position >= $3 AND position < $4";
            let number = i32::try_from(level).map_err(|_| corrupt("audit_tree", "a level is too high"))?;
            rows(db, sql, &[&instance, &number, &signed(first)?, &signed(end)?]).await?
        };
        for row in found {
            let hash = row.try_get::<_, &[u8]>(1)?.try_into().map_err(|_| corrupt("audit_tree", "a hash has another length"))?;
            self.known.insert((level, unsigned(row.try_get(0)?)?), hash);
        }
        if (from..to).all(|position| self.known.contains_key(&(level, position))) {
            Ok(())
        } else {
            let (table, what) = if level == 0 { ("audit_entries", "entries") } else { ("audit_tree", "hashes") };
            Err(corrupt(table, format_args!("{what} {from} to {to} of level {level} are not complete")))
        }
    }
}

/// Asks a question about the tree, with the hashes that it needs.
pub(super) async fn ask<T>(db: &Db, instance: i32, question: impl Fn(&Tiles) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut tiles = Tiles::default();
    loop {
        let answer = question(&tiles);
        let Some(missing) = tiles.missing.take() else { return answer };
        tiles.read(db, instance, missing).await?;
    }
}

/// The stored bytes of entries, for a bundle.
pub(super) async fn entry_bytes(db: &Db, instance: i32, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let to = from.saturating_add(count.min(TILE));
    let sql = "SELECT entry FROM audit_entries WHERE instance = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence";
    let found = rows(db, sql, &[&instance, &signed(from)?, &signed(to)?]).await?;
    let found = found.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
    if found.iter().any(Vec::is_empty) {
        Err(corrupt("audit_entries", format_args!("entries {from} to {to} are removed")))
    } else if found.len() as u64 == to.saturating_sub(from) {
        Ok(found)
    } else {
        Err(corrupt("audit_entries", format_args!("entries {from} to {to} are not complete")))
    }
}

/// The right edge of the tree of the first `size` entries. The entries after the last stored hash are read and hashed.
pub(super) async fn frontier(db: &Db, instance: i32, size: u64) -> Result<Frontier, StoreError> {
    let first = size - size % TILE;
    let entries = entry_bytes(db, instance, first, size - first).await?;
    let leaves = ask(db, instance, |tiles| tiles.hashes(0, first, size - first)).await?;
    for (entry, leaf) in entries.iter().zip(leaves) {
        if leaf_hash(entry) != leaf {
            return Err(corrupt("audit_entries", format_args!("an entry after {first} has another hash than its bytes")));
        }
    }
    ask(db, instance, |tiles| merkle::frontier(tiles, size)).await
}

/// The time of the newest entry of all logs. `None` if there is none.
pub(super) async fn newest_entry_at(db: &Db) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT max((SELECT at FROM audit_entries WHERE instance = number ORDER BY sequence DESC LIMIT 1)) FROM instances";
    let row = optional(db, sql, &[]).await?;
    Ok(row.map(|row| row.try_get::<_, Option<i64>>(0)).transpose()?.flatten().map(Timestamp::from_micros))
}
