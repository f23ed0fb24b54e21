//! The one way out: nothing leaves the vault but an [`AuditedResult`], and only a durable entry makes one (invariant 3).

use std::{ops::ControlFlow, time::Instant};

use crate::{
    domain::{AuditEvent, Outcome, Permit},
    storage::{Change, Commit, CommitError, Idempotency, KeyPrecondition, Receipt},
};

use crate::vault::{Vault, VaultError};

/// A verb that lost a race is tried again so often; each attempt reads, decides and works anew.
pub(in crate::vault) const ATTEMPTS: usize = 4;

/// A result whose entry is durable. Made in this file alone; `api` encodes nothing else.
///
/// ```compile_fail
/// let answer = canton_keyvault::vault::Answer { value: 1, sequence: 1 };
/// ```
#[derive(Debug)]
pub struct AuditedResult<T> {
    value: T,
    sequence: u64,
}

impl<T> AuditedResult<T> {
    /// The result, for the vault itself.
    pub(in crate::vault) const fn value(&self) -> &T {
        &self.value
    }

    /// The result.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The place of its entry in the log.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// What a verb worked out: to be committed, and then answered.
pub(in crate::vault) struct Completed<T> {
    /// The proof that it was allowed, spent here.
    pub permit: Permit,
    /// The result.
    pub value: T,
    /// What changes in the store.
    pub change: Option<Change>,
    /// What to remember for a repeated call.
    pub idempotency: Option<Idempotency>,
    /// What must still hold.
    pub precondition: Option<KeyPrecondition>,
}

impl<T> Completed<T> {
    /// A result that changes nothing.
    pub(in crate::vault) const fn read(permit: Permit, value: T) -> Self {
        Self { permit, value, change: None, idempotency: None, precondition: None }
    }

    /// A result that comes with a change.
    pub(in crate::vault) const fn changed(permit: Permit, value: T, change: Change) -> Self {
        Self { permit, value, change: Some(change), idempotency: None, precondition: None }
    }
}

impl Vault {
    /// Commits a result and its entry and makes the answer, or records the refusal.
    ///
    /// # Errors
    /// The verb's own error, or `AuditUnavailable` if the entry could not be made durable in time.
    pub(in crate::vault) async fn conclude<T>(
        &self,
        event: AuditEvent,
        done: Result<Completed<T>, VaultError>,
    ) -> Result<AuditedResult<T>, VaultError> {
        match self.settle(event.clone(), done).await? {
            ControlFlow::Break(answer) => Ok(answer),
            ControlFlow::Continue(()) => self.refuse(event, VaultError::Conflict).await,
        }
    }

    /// As [`Vault::conclude`], but a race that another attempt can win is `Continue`, and not yet an entry.
    pub(in crate::vault) async fn settle<T>(
        &self,
        event: AuditEvent,
        done: Result<Completed<T>, VaultError>,
    ) -> Result<ControlFlow<AuditedResult<T>>, VaultError> {
        let error = match done {
            Ok(done) => match self.commit(event.clone(), done).await {
                Ok(answer) => return Ok(ControlFlow::Break(answer)),
                Err(CommitError::Unavailable(store)) => return Err(VaultError::AuditUnavailable(store)),
                Err(CommitError::WrapperKeyExists) => VaultError::WrapperKeyExists,
                Err(CommitError::JobRunning) => VaultError::JobRunning(None),
                Err(
                    CommitError::Stale
                    | CommitError::LostRace
                    | CommitError::KeyExists
                    | CommitError::ActiveWrapperChanged
                    | CommitError::WrapperKeyNotFilled
                    | CommitError::KeysLeft(_)
                    | CommitError::IdempotencyKeyTaken,
                ) => return Ok(ControlFlow::Continue(())),
            },
            Err(VaultError::Conflict) => return Ok(ControlFlow::Continue(())),
            Err(error) => error,
        };
        self.refuse(event, error).await
    }

    /// Writes the entry of a refused call, or counts it where a principal floods; then gives the error back.
    pub(in crate::vault) async fn refuse<T>(&self, mut event: AuditEvent, error: VaultError) -> Result<T, VaultError> {
        event.outcome = match error {
            VaultError::KeyNotFound(_) | VaultError::NotFound(_) | VaultError::Forbidden | VaultError::UndeclaredNode(_) => Outcome::Denied,
            _ => Outcome::Failed,
        };
        event.change = None;
        event.reason = Some(error.code().as_str().to_owned());
        event.kms.request_ids.extend(error.kms_request_id().map(str::to_owned));
        // With a log that is down already, a second attempt would only hold the caller up.
        if matches!(error, VaultError::AuditUnavailable(_)) || self.refusal_throttle.counted(&event) {
            return Err(error);
        }
        match self.write(Commit::entry(event)).await {
            Ok(_) => Err(error),
            Err(unwritten) => Err(unwritten.into()),
        }
    }

    /// Commits what a verb worked out. The permit is spent here.
    pub(in crate::vault) async fn commit<T>(&self, mut event: AuditEvent, done: Completed<T>) -> Result<AuditedResult<T>, CommitError> {
        let Completed { permit, value, change, idempotency, precondition } = done;
        debug_assert!(permit.operation() == event.operation, "a permit is spent on what it was minted for");
        event.policy_revision = permit.policy_revision().to_string();
        let key = precondition.map(|precondition| precondition.key);
        let receipt = self.write(Commit { change, idempotency, precondition, event }).await?;
        if let Some(key) = key {
            self.cache.known_unchanged(key, receipt.store_revision).await;
        }
        Ok(AuditedResult { value, sequence: receipt.sequence })
    }

    /// Hands a commit to the store, times it, and keeps the health of the log.
    pub(in crate::vault) async fn write(&self, commit: Commit) -> Result<Receipt, CommitError> {
        let began = Instant::now();
        let result = self.store.commit(commit).await;
        metrics::histogram!("keyvault_audit_commit_seconds").record(began.elapsed().as_secs_f64());
        self.health.audit(&result);
        result
    }
}
