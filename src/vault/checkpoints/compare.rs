//! Compares the store with checkpoints: whether it contains, unchanged, all that was there when they were signed.

use crate::{
    audit::{Checkpoint, SignedNote},
    domain::{KeyId, NodeName, VaultId},
    storage::{KeyFilter, KeyStore, PageRequest, TreeQuery},
};

use super::{origin, signing_key::verifier_key};
use crate::vault::VaultError;

/// How the store disagrees with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    /// The store is older than the checkpoint.
    #[error(
        "the store has {found} audit entries, and a checkpoint was signed over {signed}: the store is an older copy, or entries were deleted"
    )]
    Older {
        /// The incarnation of the checkpoint.
        incarnation: u64,
        /// The number of entries in the checkpoint.
        signed: u64,
        /// The number of entries in the store.
        found: u64,
    },
    /// The store has another history than the checkpoint.
    #[error(
        "the first {signed} audit entries are not those that a checkpoint was signed over: the store is another copy, or entries were changed"
    )]
    Forked {
        /// The incarnation of the checkpoint.
        incarnation: u64,
        /// The number of entries in the checkpoint.
        signed: u64,
    },
    /// The checkpoint belongs to a later incarnation of the log.
    #[error("the newest checkpoint is of the log {signed}, and the store has {found}: the store is an older copy")]
    OlderIncarnation {
        /// The incarnation of the checkpoint.
        incarnation: u64,
        /// The origin in the checkpoint.
        signed: String,
        /// The origin of the store.
        found: String,
    },
    /// The store says that an operator began a later incarnation, and that start published no checkpoint of it. Whoever can write to the store can
    /// write such an entry.
    #[error(
        "the store has the log {found}, and the newest checkpoint is of {signed}: the start that began the new log did not end, or it was not yours"
    )]
    LaterIncarnation {
        /// The incarnation of the store.
        incarnation: u64,
        /// The origin in the checkpoint.
        signed: String,
        /// The origin of the store.
        found: String,
    },
    /// The checkpoint is of another vault or instance, or is signed by none of the keys in the store.
    #[error("the newest checkpoint is not of this store: {0}")]
    Foreign(String),
}

impl Rollback {
    /// The incarnation of the checkpoint. A new one must be later.
    pub(super) const fn incarnation(&self) -> u64 {
        match self {
            Self::Older { incarnation, .. }
            | Self::Forked { incarnation, .. }
            | Self::OlderIncarnation { incarnation, .. }
            | Self::LaterIncarnation { incarnation, .. } => *incarnation,
            Self::Foreign(_) => 0,
        }
    }
}

/// Compares the store with its own newest checkpoint and with one that is kept outside of it. The time is logarithmic in the number of entries.
///
/// # Errors
/// The errors of the store. `Ok(Some(…))` says how they disagree.
pub async fn compare(store: &dyn KeyStore, vault: &VaultId, instance: &str, outside: Option<&str>) -> Result<Option<Rollback>, VaultError> {
    let found = origin(vault.as_str(), instance, store.state().await?.incarnation);
    let own = store.newest_checkpoint(&found).await?.map(|stored| stored.note);
    for note in [own.as_deref(), outside].into_iter().flatten() {
        if let Some(rollback) = compare_with(store, &found, note).await? {
            return Ok(Some(rollback));
        }
    }
    Ok(None)
}

async fn compare_with(store: &dyn KeyStore, found: &str, note: &str) -> Result<Option<Rollback>, VaultError> {
    let foreign = |what: &dyn std::fmt::Display| Ok(Some(Rollback::Foreign(what.to_string())));
    let note = match SignedNote::parse(note.as_bytes()) {
        Ok(note) => note,
        Err(error) => return foreign(&error),
    };
    let checkpoint = match Checkpoint::parse(note.text()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return foreign(&error),
    };
    let (Some((log, incarnation)), Some((of_store, current))) = (checkpoint.origin.rsplit_once('/'), found.rsplit_once('/')) else {
        return foreign(&format_args!("it names the log {}", checkpoint.origin));
    };
    let (Ok(incarnation), Ok(current)) = (incarnation.parse::<u64>(), current.parse::<u64>()) else {
        return foreign(&format_args!("it names the log {}", checkpoint.origin));
    };
    if log != of_store {
        return foreign(&format_args!("it is of {log}, and this is {of_store}"));
    }
    if incarnation > current {
        return Ok(Some(Rollback::OlderIncarnation { incarnation, signed: checkpoint.origin, found: found.to_owned() }));
    }
    if incarnation < current {
        return Ok(Some(Rollback::LaterIncarnation { incarnation: current, signed: checkpoint.origin, found: found.to_owned() }));
    }
    let head = store.log_head();
    if checkpoint.size > head.size || checkpoint.state_revision > head.state_revision {
        return Ok(Some(Rollback::Older { incarnation, signed: checkpoint.size, found: head.size }));
    }
    if !signed_by_a_key_of(store, &note, &checkpoint.origin).await? {
        return foreign(&"no key in the store signed it");
    }
    let root = store.tree(TreeQuery::Root { size: checkpoint.size }).await?;
    Ok((root != [checkpoint.root]).then_some(Rollback::Forked { incarnation, signed: checkpoint.size }))
}

/// Whether a checkpoint key that the chain of state changes knows signed the note.
async fn signed_by_a_key_of(store: &dyn KeyStore, note: &SignedNote, origin: &str) -> Result<bool, VaultError> {
    Ok(checkpoint_keys(store).await?.iter().any(|(_, record)| verifier_key(record, origin).is_ok_and(|key| note.verify(&key).is_ok())))
}

/// The keys that sign or signed checkpoints, oldest first, as far as the chain of state changes knows them.
pub(super) async fn checkpoint_keys(store: &dyn KeyStore) -> Result<Vec<(KeyId, crate::domain::KeyRecord)>, VaultError> {
    let filter = KeyFilter { node: Some(NodeName::vault()), ..KeyFilter::all() };
    let mut known = Vec::new();
    for key in store.keys(&filter, PageRequest { after: 0, limit: 1000 }).await? {
        let id = key.item.attributes.id;
        if store.key(id).await?.is_some_and(|stored| stored.logged_state.is_some()) {
            known.push((id, key.item));
        }
    }
    Ok(known)
}
