//! The part of the store for jobs over all keys: which keys a job must process, and changes that are safe against concurrent changes.

use crate::domain::{JobError, JobId, JobState, KeyId, SealedKey, Timestamp, Work, Wrap, WrapperKey, WrapperKeyId};

use super::KeyUpdate;

/// What a job or a standby wrapper key requires of every key with sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRequirement {
    /// A verified wrap of the current generation under this wrapper key, not quarantined.
    WrapUnder(WrapperKeyId),
    /// Sealed at or after this time.
    SealedSince(Timestamp),
}

impl KeyRequirement {
    /// The requirement of a job that started at `started_at`.
    pub const fn by(work: Work, started_at: Timestamp) -> Self {
        match work {
            Work::Rotation { to, .. } => Self::WrapUnder(to),
            Work::Reseal => Self::SealedSince(started_at),
        }
    }
}

/// How many keys meet a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// All keys with sealed bytes.
    pub total: u64,
    /// Those of them that meet it.
    pub done: u64,
}

impl Coverage {
    /// The number of keys that do not meet the requirement.
    pub const fn left(self) -> u64 {
        self.total.saturating_sub(self.done)
    }
}

/// A new data key: the sealed bytes and their first wrap. All wraps of the previous generation are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reseal {
    /// The new revision and tag of the row. The lifecycle stays.
    pub update: KeyUpdate,
    /// The private key, sealed under the new data key.
    pub sealed: SealedKey,
    /// The time.
    pub sealed_at: Timestamp,
    /// The new data key under the active wrapper key. Its generation follows that of the row.
    pub wrap: Wrap,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// The job. Refused as [`crate::storage::CommitError::LostRace`] unless it runs.
    pub id: JobId,
    /// The final state. `Succeeded` is refused as [`crate::storage::CommitError::KeysLeft`] while a key does not meet the requirement.
    pub state: JobState,
    /// The known failures. Those of keys that still do not meet the requirement are counted, and the first are stored.
    pub errors: Vec<JobError>,
    /// The time.
    pub at: Timestamp,
}

/// Maximum number of wraps that one transaction deletes, so that no signature waits long for it.
pub const WRAPS_AT_ONCE: u32 = 1000;

/// The last step of a retirement: no key is opened by these wraps any more. The commit deletes the first [`WRAPS_AT_ONCE`] of them, and
/// [`crate::storage::KeyStore::delete_retired_wraps`] the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The wrapper key. Its state must be `retiring`.
    pub wrapper_key: WrapperKeyId,
    /// The wrapper keys that remain. Each key must have a verified wrap under one of them; otherwise the commit is refused as
    /// [`crate::storage::CommitError::KeysLeft`].
    pub holders: Vec<WrapperKeyId>,
    /// The number of wraps. With another number, the commit is refused as [`crate::storage::CommitError::LostRace`].
    pub wraps: u64,
}

/// A wrapper key and its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKeyUse {
    /// The wrapper key.
    pub key: WrapperKey,
    /// The number of keys with a wrap under it, quarantined or not.
    pub keys: u64,
    /// The last time an audited operation wrapped or unwrapped a data key under it.
    pub last_used_at: Option<Timestamp>,
}

/// What depends on a wrapper key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependents {
    /// The number of wraps under it, of any generation, quarantined or not.
    pub wraps: u64,
    /// The number of keys that they belong to.
    pub keys: u64,
    /// The number of keys without a verified wrap of their generation under another wrapper key.
    pub left: u64,
    /// The first of these keys.
    pub examples: Vec<KeyId>,
}
