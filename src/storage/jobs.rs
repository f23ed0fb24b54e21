//! What jobs over all keys ask of a store: which keys are left, and changes that hold against everything that races them.

use crate::domain::{JobError, JobId, JobState, KeyId, SealedKey, Timestamp, Work, Wrap, WrapperKey, WrapperKeyId};

use super::KeyUpdate;

/// What a job, or the filling of a wrapper key, wants of every key that has sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRequirement {
    /// A verified wrap of its generation, not quarantined, under this wrapper key.
    WrapUnder(WrapperKeyId),
    /// To have been sealed at or after this time.
    SealedSince(Timestamp),
}

impl KeyRequirement {
    /// What a job that began at `started_at` wants.
    pub const fn by(work: Work, started_at: Timestamp) -> Self {
        match work {
            Work::Rotation { to, .. } => Self::WrapUnder(to),
            Work::Reseal => Self::SealedSince(started_at),
        }
    }
}

/// A key gets a new data key: sealed bytes and their first wrap in one, and every wrap of the generation before goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reseal {
    /// The row's new revision and tag; it keeps its marks.
    pub update: KeyUpdate,
    /// The private key, sealed under the new data key.
    pub sealed: SealedKey,
    /// When.
    pub sealed_at: Timestamp,
    /// The new data key under the active wrapper key; its generation follows that of the row.
    pub wrap: Wrap,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Which job; refused as [`crate::storage::CommitError::LostRace`] unless it runs.
    pub id: JobId,
    /// How. `Succeeded` is refused as [`crate::storage::CommitError::KeysLeft`] while one key is left.
    pub state: JobState,
    /// What kept keys from being done, as far as is known: counted, and told of the first, is what is left at the end.
    pub errors: Vec<JobError>,
    /// When.
    pub at: Timestamp,
}

/// The last step of a retirement: the wraps go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// Which wrapper key; it must be `retiring`.
    pub wrapper_key: WrapperKeyId,
    /// The wrapper keys that hold the keys from now on: each key must have a verified wrap under one of them, else
    /// [`crate::storage::CommitError::KeysLeft`].
    pub holders: Vec<WrapperKeyId>,
    /// How many wraps are dropped, as was told; another number is refused as [`crate::storage::CommitError::LostRace`].
    pub wraps: u64,
}

/// A wrapper key and what stands under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKeyUse {
    /// The wrapper key.
    pub key: WrapperKey,
    /// How many keys have a wrap under it, quarantined or not.
    pub keys: u64,
    /// When a data key was last wrapped or unwrapped under it for something in the log.
    pub last_used_at: Option<Timestamp>,
}

/// What stands between a wrapper key and its retirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependents {
    /// Wraps under it, of any generation, quarantined or not.
    pub wraps: u64,
    /// Keys that they belong to.
    pub keys: u64,
    /// Keys without a verified wrap of their generation under one of the holders.
    pub left: u64,
    /// The first of these.
    pub examples: Vec<KeyId>,
}
