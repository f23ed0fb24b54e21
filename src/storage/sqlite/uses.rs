//! Whether an imported key was used since its import, from the entries about it in the log. It decides about uses by programs that did not
//! write the first use of a key into the chain of state changes.
//!
//! The entries are found by the index of the key, from the newest one back to its import: the time depends on this key only. Each row is
//! compared with the bytes and the hash of its entry, and the revisions of the key must lead back, without a gap, from the one that the chain
//! has. Then the entries since the import are counted, because a removed entry leaves a gap in the sequence numbers. What remains undetected
//! is a use by an earlier program whose entry was replaced in all its parts, or hidden from the index: no hash outside its row covers it.
//! A use by this program is in the chain, which a start verifies.

use std::sync::{PoisonError, RwLock};

use rusqlite::Connection;

use super::{
    StoreError, VerifiedState,
    chain::{CHECKED_COLUMNS, checked_entry},
    error::{corrupt, signed},
    read::{self, Snapshot},
    rows::unsigned,
};
use crate::{
    domain::KeyId,
    storage::{LoggedUse, verified_state::is_import},
};

/// Maximum number of entries about a key that are read. Far fewer are about a key that nobody uses.
const MAX_ENTRIES: usize = 50_000;
/// How many entries one read counts. It takes some tens of milliseconds.
pub(super) const COUNTED_AT_ONCE: u64 = 1 << 17;

/// What the entries about a key say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SinceImport {
    /// The key was used.
    Used(LoggedUse),
    /// They have no use. It remains to count the entries from the import up to the newest entry of the log.
    Unused {
        /// The sequence number of the import.
        import: u64,
        /// The sequence number of the newest entry.
        newest: u64,
    },
}

/// Looks for a use of the key since its import: in the chain, then in the entries about the key.
pub(super) fn since_import(db: &Connection, state: &RwLock<VerifiedState>, id: KeyId) -> Result<Snapshot<SinceImport>, StoreError> {
    let (first_use, logged) = {
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        let Snapshot::Read(revision) = read::snapshot_revision(db, &state)? else { return Ok(Snapshot::Moved) };
        let key = state.key(id);
        if key.is_some_and(|key| key.state_revision > revision) {
            return Ok(Snapshot::Moved);
        }
        (state.first_use(id), key.map(|key| key.change.revision))
    };
    if let Some(first_use) = first_use {
        return Ok(Snapshot::Read(SinceImport::Used(first_use)));
    }
    let newest = unsigned(db.query_row("SELECT coalesce(max(sequence), 0) FROM audit_entries", [], |row| row.get(0))?)?;
    let mut sql = db.prepare(&format!("SELECT {CHECKED_COLUMNS} FROM audit_entries WHERE key_id = ?1 ORDER BY sequence DESC"))?;
    let mut rows = sql.query([id.to_string()])?;
    let mut later: Option<u64> = None;
    for _ in 0..MAX_ENTRIES {
        let Some(row) = rows.next()? else { return Err(unproven("it has no entry of the import of this key")) };
        let (entry, _) = checked_entry(row)?;
        if let Some(used) = LoggedUse::of(&entry) {
            return Ok(Snapshot::Read(SinceImport::Used(used)));
        }
        if let Some(revision) = entry.revision {
            let follows = match later {
                None => logged == Some(revision),
                // A restated state has the revision of the state before it.
                Some(later) => later.checked_sub(revision).is_some_and(|step| step <= 1),
            };
            if !follows {
                return Err(unproven(format_args!("a state change of the key is missing after entry {}", entry.sequence)));
            }
            later = Some(revision);
        }
        if is_import(&entry) {
            return Ok(Snapshot::Read(SinceImport::Unused { import: entry.sequence, newest }));
        }
    }
    Err(unproven(format_args!("more than {MAX_ENTRIES} entries are about this key")))
}

/// Checks that no entry after `after` up to `last` is missing.
pub(super) fn without_gap(db: &Connection, after: u64, last: u64) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM audit_entries WHERE sequence > ?1 AND sequence <= ?2";
    let found = unsigned(db.query_row(sql, [signed(after)?, signed(last)?], |row| row.get(0))?)?;
    match last.saturating_sub(after).saturating_sub(found) {
        0 => Ok(()),
        missing => Err(unproven(format_args!("{missing} of its entries after {after} up to {last} are missing"))),
    }
}

fn unproven(what: impl std::fmt::Display) -> StoreError {
    corrupt("audit_entries", what)
}
