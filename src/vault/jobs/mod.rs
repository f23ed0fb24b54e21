//! Jobs over all keys, as callers start, show and abort them: rotations of the wrapper key, and re-seals. `background` processes them.

mod abort;
mod list;
mod start_reseal;
mod start_rotation;

use crate::domain::{Job, JobId, JobKind, JobState, Operation, Work};

use super::{Vault, VaultError};

/// The audit operations of the calls about jobs of one kind.
struct JobOperations {
    list: Operation,
    show: Operation,
    abort: Operation,
}

const fn operations(kind: JobKind) -> JobOperations {
    use Operation as O;
    match kind {
        JobKind::Rotation => JobOperations { list: O::ListRotations, show: O::ShowRotation, abort: O::AbortRotation },
        JobKind::Reseal => JobOperations { list: O::ListReseals, show: O::ShowReseal, abort: O::AbortReseal },
    }
}

impl Vault {
    /// Refuses to start a job while another one runs.
    async fn check_no_running_job(&self) -> Result<(), VaultError> {
        self.env.store.state().await?.running_job.map_or(Ok(()), |job| Err(VaultError::JobRunning(Some(job.id))))
    }

    fn new_job(&self, work: Work) -> Result<Job, VaultError> {
        Ok(Job {
            id: JobId::from_random(self.env.random_bytes()?),
            work,
            state: JobState::Running,
            total: 0,
            done: 0,
            failed: 0,
            errors: Vec::new(),
            started_at: self.env.now(),
            finished_at: None,
        })
    }

    /// One job of a kind, with the failures that this process knows.
    async fn job(&self, kind: JobKind, id: JobId) -> Result<Job, VaultError> {
        let found = self.env.store.job(id).await?.filter(|job| job.work.kind() == kind);
        let mut job = found.ok_or(VaultError::NotFound("such job"))?;
        self.job_tracker.complete(&mut job);
        Ok(job)
    }
}
