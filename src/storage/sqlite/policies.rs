//! What was in force at a time: the texts of policies, each under its digest, and the states of keys.

use rusqlite::{Connection, OptionalExtension as _};

use super::{StoreError, apply, error::corrupt};
use crate::{
    audit::Entry,
    domain::{KeyId, Lifecycle, Timestamp},
};

/// Stores a text, unless it is there.
pub(super) fn store(db: &Connection, digest: &str, text: &str) -> Result<(), StoreError> {
    apply::execute(db, "INSERT OR IGNORE INTO policies (digest, text) VALUES (?1, ?2)", [digest, text]).map(drop)
}

/// The text with this digest.
pub(super) fn text(db: &Connection, digest: &str) -> Result<Option<String>, StoreError> {
    Ok(db.query_row("SELECT text FROM policies WHERE digest = ?1", [digest], |row| row.get(0)).optional()?)
}

/// The lifecycle of a key after its newest state change up to a time. Walks its state changes from the newest one.
pub(super) fn key_state_at(db: &Connection, id: KeyId, at: Timestamp) -> Result<Option<Lifecycle>, StoreError> {
    let sql = "SELECT sequence, entry, state_revision FROM audit_entries INDEXED BY audit_entries_changes
               WHERE state_revision IS NOT NULL AND +changed_key = ?1 UNION ALL
               SELECT sequence, entry, state_revision FROM other_entries INDEXED BY other_entries_changes
               WHERE state_revision IS NOT NULL AND +changed_key = ?1 ORDER BY state_revision DESC";
    let mut sql = db.prepare_cached(sql)?;
    let mut rows = sql.query([id.to_string()])?;
    while let Some(row) = rows.next()? {
        let sequence: i64 = row.get(0)?;
        let unreadable = |why: &dyn std::fmt::Display| corrupt("audit_entries", format_args!("entry {sequence}: {why}"));
        let entry = Entry::decode(row.get_ref(1)?.as_blob().unwrap_or_default()).map_err(|error| unreadable(&error))?;
        let change = entry.state_change().map_err(|error| unreadable(&error))?.filter(|_| entry.key_id == Some(id));
        let change = change.ok_or_else(|| unreadable(&"its columns disagree with its bytes"))?;
        if entry.at <= at {
            return Ok(Some(change.lifecycle));
        }
    }
    Ok(None)
}
