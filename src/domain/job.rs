//! Jobs over all keys: a rotation adds a wrap under another wrapper key to each key, a re-seal gives each key a new data key.

use super::{KeyId, Timestamp, WrapperKeyId, ids::JobId, text::text_enum};

/// The work that a job does for every key, in any state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Adds a wrap under `to`, which is active since the start of the job.
    Rotation {
        /// The wrapper key that was active before.
        from: WrapperKeyId,
        /// The wrapper key that is active now.
        to: WrapperKeyId,
    },
    /// Re-seals the private key under a data key of a new generation.
    Reseal,
}

text_enum!(
    /// The kind of a job.
    JobKind as "job kind" {
        /// Every key gets a wrap under another wrapper key.
        Rotation = "rotation",
        /// Every key gets a new data key.
        Reseal = "reseal",
    }
);

text_enum!(
    /// The state of a job.
    JobState as "job state" {
        /// The job runs. A restart resumes it.
        Running = "running",
        /// All keys are done. The transaction that sets this state counts them.
        Succeeded = "succeeded",
        /// All keys are done except those named in the errors, which a retry cannot cure.
        Failed = "failed",
        /// A call aborted the job. Keys that are done stay done.
        Aborted = "aborted",
    }
);

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The work.
    pub work: Work,
    /// The state.
    pub state: JobState,
    /// The number of keys to process: the current number while the job runs, then the number at its end.
    pub total: u64,
    /// The number of keys that are done.
    pub done: u64,
    /// The number of keys that failed and are not done.
    pub failed: u64,
    /// The first errors.
    pub errors: Vec<JobError>,
    /// When the job started.
    pub started_at: Timestamp,
    /// When the job ended.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// Maximum number of errors in a job. Further errors are counted only.
    pub const TOLD: usize = 20;
}

/// Why a job could not process one key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JobError {
    /// The key.
    pub key_id: KeyId,
    /// The problem code.
    pub code: String,
    /// The text of the error.
    pub detail: String,
}

impl Work {
    /// The kind of the job.
    pub const fn kind(self) -> JobKind {
        match self {
            Self::Rotation { .. } => JobKind::Rotation,
            Self::Reseal => JobKind::Reseal,
        }
    }
}
