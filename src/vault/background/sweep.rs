//! One pass through the keys that are left, each by itself: whatever is cut off where leaves every key with the wraps it had.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Job, JobError, JobId, KeyId, WrapperKey, WrapperState},
    storage::{KeyRequirement, Page},
    vault::{Vault, VaultError},
};

/// Keys that are looked up at once.
const PAGE: u32 = 100;
/// After so many failures in a row that may pass a pass ends: it is not the keys. The next one goes on behind them, since others
/// may be better off.
const IN_A_ROW: usize = 20;

/// What came of a pass.
#[derive(Default)]
pub(super) struct SweepResult {
    pub(super) done: u64,
    /// Failures that time may cure.
    pub(super) passing: u64,
    /// Failures that it does not.
    pub(super) lasting: u64,
    /// Whether it went from the first key to the last.
    pub(super) whole: bool,
}

/// How the passes of an errand went so far.
#[derive(Default)]
pub(super) struct SweepHistory {
    /// Passes in a row in which no key could be done.
    pub(super) fruitless: u32,
    /// Those of them in a row that leave no hope.
    pub(super) hopeless: u32,
    /// Where the next pass goes on, if the one before gave up.
    after: u64,
}

impl SweepHistory {
    /// Notes how the newest pass went.
    pub(super) fn note(&mut self, result_counts: &SweepResult) {
        self.fruitless = if result_counts.done > 0 { 0 } else { self.fruitless.saturating_add(1) };
        if result_counts.done > 0 || result_counts.passing > 0 {
            self.hopeless = 0;
        } else if result_counts.whole {
            self.hopeless = self.hopeless.saturating_add(1);
        }
    }
}

/// What a pass does, and for whom.
#[derive(Clone, Copy)]
pub(super) enum SweepTask<'a> {
    /// Adds wraps under the wrapper key, for a rotation.
    Rotate(&'a Job, &'a WrapperKey),
    /// Seals anew, for a job.
    Reseal(&'a Job),
    /// Adds wraps under a standby wrapper key.
    Fill(&'a WrapperKey),
}

impl SweepTask<'_> {
    const fn wanted(self) -> KeyRequirement {
        match self {
            Self::Rotate(_, to) | Self::Fill(to) => KeyRequirement::WrapUnder(to.id),
            Self::Reseal(job) => KeyRequirement::SealedSince(job.started_at),
        }
    }

    const fn job(self) -> Option<JobId> {
        match self {
            Self::Rotate(job, _) | Self::Reseal(job) => Some(job.id),
            Self::Fill(_) => None,
        }
    }
}

impl Vault {
    /// Through the keys that are left, from where the pass before gave up, if it did.
    pub(super) async fn pass(self: &Arc<Self>, task: SweepTask<'_>, history: &mut SweepHistory, stop: &CancellationToken) -> SweepResult {
        let mut after = std::mem::take(&mut history.after);
        let (mut result_counts, mut in_a_row) = (SweepResult { whole: after == 0, ..SweepResult::default() }, 0);
        loop {
            let left = match self.store.left(task.wanted(), Page { after, limit: PAGE }).await {
                Ok(left) => left,
                Err(error) => {
                    tracing::warn!(%error, "the keys that are left could not be looked up");
                    result_counts.passing += 1;
                    result_counts.whole = false;
                    return result_counts;
                }
            };
            if left.is_empty() {
                return result_counts;
            }
            // What was begun is finished: nothing is cut off in the middle.
            let over = AtomicBool::new(false);
            let mut results = stream::iter(left)
                .take_while(|_| ready(!over.load(Ordering::Relaxed)))
                .map(|found| async move { (found.position, found.item, self.one(task, found.item, stop).await) })
                .buffer_unordered(self.job_rate_limit.concurrency());
            while let Some((position, key, result)) = results.next().await {
                after = after.max(position);
                let Some(result) = result else {
                    over.store(true, Ordering::Relaxed);
                    continue;
                };
                in_a_row = if result.as_ref().is_err_and(VaultError::may_pass) { in_a_row + 1 } else { 0 };
                self.note(&mut result_counts, task.job(), key, result);
                if in_a_row >= IN_A_ROW {
                    over.store(true, Ordering::Relaxed);
                }
            }
            drop(results);
            if over.into_inner() {
                (history.after, result_counts.whole) = (after, false);
                return result_counts;
            }
        }
    }

    /// One key, at the beat; `None` if nobody wants it any more.
    async fn one(self: &Arc<Self>, task: SweepTask<'_>, key: KeyId, stop: &CancellationToken) -> Option<Result<(), VaultError>> {
        self.job_rate_limit.next().await;
        if stop.is_cancelled() || !self.is_wanted(task).await {
            return None;
        }
        Some(match task {
            SweepTask::Rotate(_, to) | SweepTask::Fill(to) => self.rewrap(key, to).await,
            SweepTask::Reseal(job) => self.reseal_for_job(key, job.started_at).await,
        })
    }

    /// Whether there is still somebody who wants it; asked before every key, so that an abort or a freeze is one at once.
    async fn is_wanted(&self, task: SweepTask<'_>) -> bool {
        self.in_service().is_ok()
            && match task {
                SweepTask::Rotate(job, _) | SweepTask::Reseal(job) => {
                    matches!(self.store.running_job().await, Ok(Some(running)) if running.id == job.id)
                }
                SweepTask::Fill(key) => self
                    .wrapper_keys()
                    .await
                    .is_ok_and(|keys| keys.iter().any(|now| now.id == key.id && now.state == WrapperState::Standby)),
            }
    }

    fn note(&self, result_counts: &mut SweepResult, job: Option<JobId>, key: KeyId, result: Result<(), VaultError>) {
        let failure = match result {
            Ok(()) => {
                result_counts.done += 1;
                None
            }
            Err(error) => {
                *(if error.may_pass() { &mut result_counts.passing } else { &mut result_counts.lasting }) += 1;
                tracing::warn!(%key, %error, "work over all keys could not do this one");
                Some(JobError { key_id: key, code: error.code().as_str().to_owned(), detail: error.to_string() })
            }
        };
        if let Some(job) = job {
            self.progress.note(job, key, failure);
        }
    }
}
