//! Removes entries of the audit log that were archived. State changes stay, and so do the leaf hashes of all entries: every checkpoint and every proof
//! stays valid, and the removal is itself a state change in the log.

use std::time::Duration;

use crate::{
    audit::{
        Entry, leaf_hash,
        merkle::{Hash, verify_inclusion},
    },
    domain::{AuditEvent, Operation, Timestamp},
    storage::{Change, TreeQuery},
};

use super::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// What may be removed.
#[derive(Debug, Clone)]
pub struct EntryRemoval {
    /// The first entry of the archive.
    pub first: u64,
    /// Its last entry: the number of entries of a checkpoint.
    pub size: u64,
    /// The root of the tree over the first `size` entries, as the verification of the archive computed it.
    pub root: Hash,
    /// Only entries before this time. Entries that are younger than `[audit] minimum_retention` stay in any case.
    pub before: Option<Timestamp>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedEntries {
    /// The entries up to this one are removed, except state changes. A background task frees their space.
    pub removed_through: u64,
}

/// Entries of a block.
const BLOCK: u64 = 1024;

/// The newest entries, which are never removed: a start reads and hashes up to as many.
const NEWEST: u64 = 256;

impl Vault {
    /// Removes the entries before a time that an archive has, in whole blocks of 1024.
    ///
    /// # Errors
    /// `Forbidden`; `InvalidRequest` if the archive is not of this log, lacks its beginning, or is longer than its newest checkpoint; `NothingToRemove` if no block is old enough, or
    /// a sink does not have it yet; `Conflict`, `StorageUnavailable`, `AuditUnavailable`.
    pub async fn remove_entries(&self, call: &CallContext, removal: EntryRemoval) -> Result<AuditedResult<RemovedEntries>, VaultError> {
        let event = self.gate.event(call, Operation::RemoveEntries);
        let mut recorded = event.clone();
        let result = Box::pin(self.try_remove(&mut recorded, removal)).await;
        Box::pin(self.gate.conclude(recorded, result)).await
    }

    async fn try_remove(&self, event: &mut AuditEvent, removal: EntryRemoval) -> Result<Completed<RemovedEntries>, VaultError> {
        let permit = self.gate.permit_vault(event)?;
        let EntryRemoval { first, size, root, before } = removal;
        let store = &self.env.store;
        let signed = store.newest_checkpoint(&self.log_origin().await?).await?.map_or(0, |checkpoint| checkpoint.size);
        if size > signed {
            return Err(VaultError::InvalidRequest(format!("size: the newest checkpoint of this log covers {signed} entries")));
        }
        if store.tree(TreeQuery::Root { size }).await?.first() != Some(&root) {
            return Err(VaultError::InvalidRequest("root: the archive has other entries than this log".into()));
        }
        let removed = store.removed_through();
        if first > removed.saturating_add(1) {
            let missing = format!("first: the archive lacks the entries {} to {}", removed.saturating_add(1), first - 1);
            return Err(VaultError::InvalidRequest(missing));
        }
        let (limit, limited_by) = self.removable(size);
        let youngest = self.env.now().minus(self.minimum_retention);
        let before = before.map_or(youngest, |before| before.min(youngest));
        let Some(through) = self.last_block_before((removed, limit), before, (size, &root)).await? else {
            let because = limited_by.unwrap_or_else(|| format!("is from before {before}, in the archive, and not removed yet"));
            return Err(VaultError::NothingToRemove(format!("no whole block of 1024 entries {because}")));
        };
        event.digest = store.tree(TreeQuery::Root { size: through }).await?.first().copied();
        event.subject = Some(format!("entries up to {through}, except state changes"));
        Ok(Completed::changed(permit, RemovedEntries { removed_through: through }, Change::RemoveEntries { through }))
    }

    /// The last entry that may be removed as far as its place says, and the sink that has not more.
    fn removable(&self, size: u64) -> (u64, Option<String>) {
        let mut limit = (size.min(self.env.store.log_head().size.saturating_sub(NEWEST)), None);
        for (name, confirmed) in self.gate.sinks().confirmed() {
            if confirmed < limit.0 {
                limit = (confirmed, Some(format!("was confirmed by the audit sink {name}, which has {confirmed} entries")));
            }
        }
        limit
    }

    /// The last entry of the newest complete block after `removed` that ends before a time and before `limit`. `None` if all such blocks are removed.
    ///
    /// The time of an entry decides only if the entry is one of those of the archive: an edited one must not make the block look older.
    async fn last_block_before(
        &self,
        (removed, limit): (u64, u64),
        before: Timestamp,
        (size, root): (u64, &Hash),
    ) -> Result<Option<u64>, VaultError> {
        // Blocks from `low` on are not removed. Those below `end` are complete and allowed.
        let mut found = None;
        let (mut low, mut end) = (removed.saturating_add(1) / BLOCK, limit.saturating_add(1) / BLOCK);
        while low < end {
            let middle = low + (end - low) / 2;
            let last = middle * BLOCK + BLOCK - 1;
            let leaf = last.saturating_sub(1);
            let bytes = self.env.store.entry_bytes(leaf, 1).await?;
            let proof = self.env.store.tree(TreeQuery::Inclusion { leaf, size }).await?;
            let entry = bytes.first().filter(|bytes| verify_inclusion(&proof, leaf, leaf_hash(bytes), size, root));
            let entry = entry.and_then(|bytes| Entry::decode(bytes).ok());
            let entry =
                entry.ok_or_else(|| VaultError::InvalidRequest(format!("root: entry {last} of the log is not the one of the archive")))?;
            if entry.at < before {
                (found, low) = (Some(last), middle + 1);
            } else {
                end = middle;
            }
        }
        Ok(found)
    }

    /// The entries up to this one were removed, except state changes. 0 if none were.
    pub fn removed_through(&self) -> u64 {
        self.env.store.removed_through()
    }

    /// Refuses what needs the bytes of removed entries.
    ///
    /// # Errors
    /// `EntriesRemoved`.
    pub(super) fn not_removed(&self, after: u64) -> Result<(), VaultError> {
        let removed = self.env.store.removed_through();
        if after < removed { Err(VaultError::EntriesRemoved(removed)) } else { Ok(()) }
    }
}

/// The default of `[audit] minimum_retention`.
pub const MINIMUM_RETENTION: Duration = Duration::from_hours(90 * 24);
