//! Jobs over all keys: a rotation gives each a wrap under another wrapper key, a re-seal gives each a new data key.

use super::{KeyId, Timestamp, WrapperKeyId, ids::JobId, text::text_enum};

/// What a job does to every key, whatever its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Adds a wrap under `to`, the active wrapper key since the job began.
    Rotation {
        /// The one that was active before.
        from: WrapperKeyId,
        /// The one that is active now.
        to: WrapperKeyId,
    },
    /// Seals the private key anew, under a data key of a new generation.
    Reseal,
}

text_enum!(
    /// The two kinds of jobs.
    JobKind as "job kind" {
        /// Every key gets a wrap under another wrapper key.
        Rotation = "rotation",
        /// Every key gets a new data key.
        Reseal = "reseal",
    }
);

text_enum!(
    /// How far a job is.
    JobState as "job state" {
        /// Going on, also after a restart.
        Running = "running",
        /// Every key is done; counted in the transaction that says so.
        Succeeded = "succeeded",
        /// Every key is done but those that the errors name, which no retry would cure.
        Failed = "failed",
        /// Stopped by a call; what is done stays done.
        Aborted = "aborted",
    }
);

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub work: Work,
    /// How far it is.
    pub state: JobState,
    /// How many keys there are to do. While it runs, as of now; then as of its end.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
    /// How many were tried in vain and not done since.
    pub failed: u64,
    /// Why, for the first of them.
    pub errors: Vec<JobError>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// So many errors are told; the rest is counted.
    pub const TOLD: usize = 20;
}

/// Why a job did not do one key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JobError {
    /// Which key.
    pub key_id: KeyId,
    /// The problem code.
    pub code: String,
    /// For whoever must act.
    pub detail: String,
}

impl Work {
    /// Which kind of job this is.
    pub const fn kind(self) -> JobKind {
        match self {
            Self::Rotation { .. } => JobKind::Rotation,
            Self::Reseal => JobKind::Reseal,
        }
    }
}
