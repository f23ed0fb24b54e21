//! Verifies the log in the file of a store, offline: each entry, its leaf hash and its index columns, each hash of the tree, each checkpoint, and the
//! summary for queries. Nothing is written.

use std::{collections::VecDeque, path::Path};

use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};

use super::{
    OpenStoreError, StoreError,
    blocks::{BLOCK, BlockSummary, block_of},
    chain::{self, CHECKED_COLUMNS, columns_agree},
    digests,
    error::signed,
    open::{check_newest_schema, connect, looks_like_sqlite},
    rows::unsigned,
};
use crate::audit::{
    Checkpoint, Entry, SignedNote, leaf_hash,
    merkle::{Frontier, TileHash},
    verify::{Depth, Finding, LogCheck, LogName, Place, Reason, TrustedKeys, Verified},
};

/// Why the log of a file is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyLogError {
    /// The file cannot be read as a store.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// The log is not the one that was signed.
    #[error("{0}")]
    Found(Finding),
}

impl From<StoreError> for VerifyLogError {
    fn from(error: StoreError) -> Self {
        Self::Open(error.into())
    }
}

impl From<Finding> for VerifyLogError {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

impl From<rusqlite::Error> for VerifyLogError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Verifies the log of a file, whether a vault uses it or not. `known` are checkpoints that were seen before. The file is read from one snapshot; a
/// running vault does not shorten its write-ahead log until this returns.
///
/// # Errors
/// [`VerifyLogError`] with the first bad entry and the reason.
pub fn verify_log(path: &Path, trust: TrustedKeys, known: Vec<Checkpoint>) -> Result<Verified, VerifyLogError> {
    if !looks_like_sqlite(path).map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })? {
        return Err(OpenStoreError::NotAVault(path.to_owned()).into());
    }
    let mut db = connect(path, None, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let db = db.transaction()?;
    check_newest_schema(&db, path)?;
    let vault: String = db.query_row("SELECT vault FROM meta", [], |row| row.get(0))?;
    let name = match LogName::of(trust.origin()) {
        Some((name, _)) if name.vault == vault => name,
        _ => return Err(Finding::of_log(Reason::OtherLog { found: vault, expected: trust.origin().to_owned() }).into()),
    };
    let mut log = Log {
        check: LogCheck::begin(name, Frontier::default(), trust, known, Depth::Fast)?,
        checkpoints: checkpoints(&db)?,
        summary: Summary { blocks: digests::first_without(&db)?, ..Summary::default() },
        db: &db,
    };
    log.read_entries()?;
    log.read_rest()?;
    let verified = log.check.finish()?;
    match chain::verify(&db) {
        Ok(_) => Ok(verified),
        Err(error @ OpenStoreError::BrokenChain { .. }) => Err(Finding::of_log(Reason::State(error.to_string())).into()),
        Err(error) => Err(error.into()),
    }
}

/// The sizes and origins of the stored checkpoints, in the order of the log.
fn checkpoints(db: &Connection) -> Result<VecDeque<(u64, String)>, StoreError> {
    let sql = format!("SELECT size, origin FROM audit_checkpoints WHERE size > 0 AND {} ORDER BY size, origin", chain::OF_THIS_LOG);
    let mut sql = db.prepare(&sql)?;
    let mut rows = sql.query([])?;
    let mut all = VecDeque::new();
    while let Some(row) = rows.next()? {
        all.push_back((unsigned(row.get(0)?)?, row.get(1)?));
    }
    Ok(all)
}

/// The log while it is verified.
struct Log<'db> {
    db: &'db Connection,
    check: LogCheck,
    checkpoints: VecDeque<(u64, String)>,
    summary: Summary,
}

impl Log<'_> {
    fn read_entries(&mut self) -> Result<(), VerifyLogError> {
        let sql = format!("SELECT {CHECKED_COLUMNS} FROM audit_entries ORDER BY sequence");
        let mut sql = self.db.prepare(&sql)?;
        let mut rows = sql.query([])?;
        while let Some(row) = rows.next()? {
            self.read_entry(row)?;
            while self.checkpoints.front().is_some_and(|(size, _)| *size <= self.check.size()) {
                if let Some((size, origin)) = self.checkpoints.pop_front() {
                    self.check.stored_checkpoint(&note(self.db, size, &origin)?);
                }
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, row: &Row<'_>) -> Result<(), VerifyLogError> {
        let bytes = row.get_ref("entry")?.as_blob().unwrap_or_default();
        let (place, before) = (self.check.size() + 1, self.check.size());
        if bytes.is_empty() {
            return self.read_removed(row);
        }
        if row.get_ref("leaf")?.as_blob().ok() != Some(leaf_hash(bytes).as_slice()) {
            self.check.fault(Finding::at(place, Reason::Leaf));
        }
        let mut completed = Vec::new();
        self.check.entry(bytes, |hash| completed.push(hash))?;
        if self.check.size() == before {
            // The entry is not the next one. The one after it decides what happened.
            return Ok(());
        }
        match Entry::decode(bytes) {
            Ok(entry) => {
                if !columns_agree(row, &entry) {
                    self.check.fault(Finding::at(place, Reason::IndexColumns));
                }
                if let Some(missing) = self.summary.add(self.db, &entry)? {
                    self.check.fault(missing);
                }
            }
            Err(error) => self.check.fault(Finding::at(place, Reason::NotAnEntry(error.to_string()))),
        }
        for hash in completed {
            self.compare(&hash)?;
        }
        Ok(())
    }

    /// An entry that was archived and removed. Its hash is in the tree, which the checkpoints sign.
    fn read_removed(&mut self, row: &Row<'_>) -> Result<(), VerifyLogError> {
        let (sequence, mut completed) = (unsigned(row.get("sequence")?)?, Vec::new());
        let leaf: Option<[u8; 32]> = row.get_ref("leaf")?.as_blob().ok().and_then(|leaf| leaf.try_into().ok());
        let Some(leaf) = leaf else { return Err(Finding::at(sequence, Reason::Leaf).into()) };
        self.check.removed(sequence, leaf, |hash| completed.push(hash))?;
        completed.iter().try_for_each(|hash| self.compare(hash))
    }

    /// Compares a stored hash of the tree with that of the entries.
    fn compare(&mut self, computed: &TileHash) -> Result<(), VerifyLogError> {
        let TileHash { level, position, hash } = computed;
        let mut sql = self.db.prepare_cached("SELECT hash FROM audit_tree WHERE level = ?1 AND position = ?2")?;
        let mut rows = sql.query((level, signed(*position)?))?;
        let agrees = match rows.next()? {
            Some(row) => row.get_ref(0)?.as_blob().ok() == Some(hash.as_slice()),
            None => false,
        };
        if !agrees {
            let covers = 1_u64.checked_shl(8 * level).unwrap_or(0);
            let first = (position * covers).max(self.check.covered()) + 1;
            self.check.fault(Finding { place: Place::Between { first, last: self.check.size() }, reason: Reason::TreeHash });
        }
        Ok(())
    }

    /// What belongs to entries that the log does not have.
    fn read_rest(&mut self) -> Result<(), VerifyLogError> {
        if let Some(missing) = self.summary.end(self.db)? {
            self.check.fault(missing);
        }
        let size = self.check.size();
        let sql = "SELECT count(*) FROM audit_tree WHERE (position + 1) * (1 << (8 * level)) > ?1";
        let beyond: i64 = self.db.query_row(sql, [signed(size)?], |row| row.get(0))?;
        for (size, origin) in std::mem::take(&mut self.checkpoints) {
            let note = note(self.db, size, &origin)?;
            let signed = SignedNote::parse(note.as_bytes()).ok().filter(|note| self.check.trust().signer(note, &origin, size).is_ok());
            let reason = if signed.is_some() { Reason::Truncated(size) } else { Reason::UnknownKey(size) };
            self.check.fault(Finding::at(self.check.size() + 1, reason));
        }
        if beyond > 0 {
            self.check.fault(Finding::at(size + 1, Reason::TreeHash));
        }
        Ok(())
    }
}

/// A stored checkpoint. Bytes that are no text are no valid one.
fn note(db: &Connection, size: u64, origin: &str) -> Result<String, StoreError> {
    let sql = "SELECT note FROM audit_checkpoints WHERE size = ?1 AND origin = ?2";
    let bytes: Vec<u8> = db.prepare_cached(sql)?.query_row((signed(size)?, origin), |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        })
    })?;
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// The summary of the block that is read, as its entries say, which the stored one must have.
#[derive(Default)]
struct Summary {
    /// The first block without a stored summary.
    blocks: u64,
    block: u64,
    last: u64,
    of_block: BlockSummary,
}

impl Summary {
    /// Adds an entry. Returns what the summary of the block before lacks, when that is complete.
    fn add(&mut self, db: &Connection, entry: &Entry) -> Result<Option<Finding>, StoreError> {
        let block = block_of(entry.sequence);
        let finding = if block == self.block { None } else { self.end(db)? };
        if block != self.block {
            *self = Self { block, blocks: self.blocks, ..Self::default() };
        }
        self.last = entry.sequence;
        self.of_block.add(entry);
        Ok(finding)
    }

    fn end(&self, db: &Connection) -> Result<Option<Finding>, StoreError> {
        let is_complete = self.block >= self.blocks || self.of_block.is_stored(db, self.block)?;
        let first = (self.block * BLOCK).max(1);
        Ok((!is_complete).then_some(Finding { place: Place::Between { first, last: self.last }, reason: Reason::Summary }))
    }
}
