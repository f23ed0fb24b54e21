//! What a store that several processes share knows of them: who is alive, which background tasks are whose, and whether the store can be reached.

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Change, Commit, StoreError};
use crate::domain::{KeyId, Timestamp};

/// A store that several processes share, each with a log of its own. A process that dies loses its leases after
/// [`LEASE_SECONDS`], and another one takes them.
#[async_trait]
pub trait Replication: Send + Sync {
    /// The newest revision of the store that this process has read. It follows changes by other processes within a second.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether this process runs a background task now. Takes the lease if no other process has it. An error of the store is `false`.
    async fn holds(&self, lease: Lease) -> bool;

    /// The processes that ever wrote to the store, as they were a second ago or less.
    fn replicas(&self) -> Vec<Replica>;

    /// The revision of a key, from memory: as new as [`Replication::changes`]. `None` if the log does not know the key.
    async fn key_revision(&self, id: KeyId) -> Option<u64>;

    /// The settings of the database with which a confirmed commit can be lost, each as a sentence.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    async fn unsafe_settings(&self) -> Result<Vec<String>, StoreError>;

    /// The clock of the database.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    async fn clock(&self) -> Result<Timestamp, StoreError>;

    /// Why the store could not be read for more than a second. `None` if it can be used.
    fn fault(&self) -> Option<StoreError>;
}

/// A process over a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The instance: the name of its log.
    pub instance: String,
    /// The version of its program. `None` if only an earlier program wrote this log.
    pub version: Option<String>,
    /// When it was last alive, by the clock of the database. `None` if it never was.
    pub seen_at: Option<Timestamp>,
    /// Whether it was alive within [`LEASE_SECONDS`].
    pub live: bool,
    /// The background tasks that it has the lease of.
    pub leases: Vec<Lease>,
}

/// How long a process counts as alive, and keeps its leases, after its last sign of life, by the clock of the database.
pub const LEASE_SECONDS: u32 = 10;

/// The background tasks of which one runs over a shared store at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lease {
    /// Wraps and re-seals over all keys: jobs, and wraps under standby wrapper keys.
    Sweep,
    /// The destruction of keys whose deletion is due.
    Destruction,
}

impl Lease {
    /// Every lease.
    pub const ALL: [Self; 2] = [Self::Sweep, Self::Destruction];

    /// The name in the store and in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Destruction => "destruction",
        }
    }

    /// The lease that a commit needs: the one of the background task that makes it. A commit for a caller needs none.
    pub fn needed_for(commit: &Commit) -> Option<Self> {
        let of_task = commit.event.principal.is_system();
        match commit.change.as_ref().filter(|_| of_task)? {
            Change::AddWrap { .. } | Change::Reseal(_) | Change::EndJob(_) => Some(Self::Sweep),
            Change::UpdateKey(update) if update.to.lifecycle.is_destroyed() => Some(Self::Destruction),
            _ => None,
        }
    }
}
