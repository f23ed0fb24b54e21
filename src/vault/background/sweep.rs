//! One sweep over the keys that a job or a standby wrapper key still needs. Each key is processed separately: an interruption at any point
//! leaves each key's wraps intact.

use std::{
    future::ready,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Job, JobError, JobId, KeyId, WrapperKey, WrapperState},
    storage::{KeyRequirement, Lease, PageRequest, Positioned, StoreState},
    traces::{ActiveSpan, SpanKind, in_span, in_trace},
};

use super::Background;
use crate::vault::VaultError;

/// The number of keys that are read from the store at once.
const PAGE_SIZE: u32 = 100;
/// A sweep ends after this number of consecutive failures that a retry can cure, because the cause is not the keys. The next sweep continues
/// after these keys, because other keys may succeed.
const MAX_CONSECUTIVE_FAILURES: usize = 20;

/// The result of one sweep.
#[derive(Default)]
pub(super) struct SweepResult {
    /// Keys that succeeded.
    pub(super) succeeded: u64,
    /// Failures that a retry can cure.
    pub(super) retryable: u64,
    /// Failures that a retry cannot cure.
    pub(super) permanent: u64,
    /// Whether the sweep covered all keys, from the first to the last.
    pub(super) complete: bool,
}

/// The history of the sweeps of one task.
#[derive(Default)]
pub(super) struct SweepHistory {
    /// Consecutive sweeps without a success.
    pub(super) failed_sweeps: u32,
    /// Consecutive complete sweeps that had only permanent failures.
    pub(super) hopeless_sweeps: u32,
    /// The position after which the next sweep continues, if the last one ended early.
    after: u64,
}

impl SweepHistory {
    /// Adds the result of a sweep.
    pub(super) fn add(&mut self, result: &SweepResult) {
        self.failed_sweeps = if result.succeeded > 0 { 0 } else { self.failed_sweeps.saturating_add(1) };
        if result.succeeded > 0 || result.retryable > 0 {
            self.hopeless_sweeps = 0;
        } else if result.complete {
            self.hopeless_sweeps = self.hopeless_sweeps.saturating_add(1);
        }
    }
}

/// What a sweep does with each key.
#[derive(Clone, Copy)]
pub(super) enum SweepTask<'a> {
    /// Adds a wrap under the wrapper key, for a rotation.
    Rotate(&'a Job, &'a WrapperKey),
    /// Re-seals the key, for a job.
    Reseal(&'a Job),
    /// Adds a wrap under a standby wrapper key.
    FillStandby(&'a WrapperKey),
}

/// Where a sweep is.
#[derive(Default)]
struct Progress {
    /// The position after which it continues.
    after: u64,
    consecutive_failures: usize,
    result: SweepResult,
}

impl SweepTask<'_> {
    const fn requirement(self) -> KeyRequirement {
        match self {
            Self::Rotate(_, to) | Self::FillStandby(to) => KeyRequirement::WrapUnder(to.id),
            Self::Reseal(job) => KeyRequirement::SealedSince(job.started_at),
        }
    }

    /// The name of the spans of its work.
    const fn span_name(self) -> &'static str {
        match self {
            Self::Rotate(..) => "run rotation",
            Self::Reseal(_) => "run reseal",
            Self::FillStandby(_) => "fill standby",
        }
    }

    /// Says in a span which job or wrapper key the work is for.
    fn describe(self, span: &mut ActiveSpan) {
        if let Some(job) = self.job() {
            span.text("keyvault.job_id", job.to_string());
        }
        if let Self::Rotate(_, key) | Self::FillStandby(key) = self {
            span.text("keyvault.wrapper_key", key.id.to_string());
        }
    }

    const fn job(self) -> Option<JobId> {
        match self {
            Self::Rotate(job, _) | Self::Reseal(job) => Some(job.id),
            Self::FillStandby(_) => None,
        }
    }
}

impl Background {
    /// Processes the keys that do not meet the requirement of the task yet, from where the last sweep ended early.
    pub(super) async fn sweep(&self, task: SweepTask<'_>, history: &mut SweepHistory, stop: &CancellationToken) -> SweepResult {
        let after = std::mem::take(&mut history.after);
        let mut progress = Progress { after, ..Progress::default() };
        progress.result.complete = after == 0;
        loop {
            let page = PageRequest { after: progress.after, limit: PAGE_SIZE };
            let keys = match self.env.store.keys_missing(task.requirement(), page).await {
                Ok(keys) => keys,
                Err(error) => {
                    tracing::warn!(%error, "the remaining keys of a sweep could not be read");
                    progress.result.retryable += 1;
                    progress.result.complete = false;
                    return progress.result;
                }
            };
            if keys.is_empty() {
                return progress.result;
            }
            let number = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            // A trace of all keys could have millions of spans.
            let work = Box::pin(self.process_page(task, keys, &mut progress, stop));
            let ended = in_trace(self.env.tracer.as_ref(), task.span_name(), work, |span, _| {
                task.describe(span);
                span.number("keyvault.keys", number);
            });
            if ended.await {
                (history.after, progress.result.complete) = (progress.after, false);
                return progress.result;
            }
        }
    }

    /// Processes the keys of a page. Whether the sweep ends early. A key whose processing began is completed: only the start of further keys is
    /// cancelled.
    async fn process_page(
        &self,
        task: SweepTask<'_>,
        keys: Vec<Positioned<KeyId>>,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> bool {
        let ended = AtomicBool::new(false);
        let mut outcomes = stream::iter(keys)
            .take_while(|_| ready(!ended.load(Ordering::Relaxed)))
            .map(|found| async move { (found.position, found.item, self.process_key(task, found.item, stop).await) })
            .buffer_unordered(self.rate_limit.concurrency());
        while let Some((position, key, outcome)) = outcomes.next().await {
            progress.after = progress.after.max(position);
            let Some(outcome) = outcome else {
                ended.store(true, Ordering::Relaxed);
                continue;
            };
            let can_pass = outcome.as_ref().is_err_and(VaultError::retry_can_cure);
            progress.consecutive_failures = if can_pass { progress.consecutive_failures + 1 } else { 0 };
            self.record_outcome(&mut progress.result, task.job(), key, outcome);
            if progress.consecutive_failures >= MAX_CONSECUTIVE_FAILURES {
                ended.store(true, Ordering::Relaxed);
            }
        }
        drop(outcomes);
        ended.into_inner()
    }

    /// Processes one key within the rate limit. `None` if the task was cancelled meanwhile.
    async fn process_key(&self, task: SweepTask<'_>, key: KeyId, stop: &CancellationToken) -> Option<Result<(), VaultError>> {
        self.rate_limit.acquire().await;
        if stop.is_cancelled() || !self.is_wanted(task).await {
            return None;
        }
        let work = async {
            match task {
                SweepTask::Rotate(_, to) | SweepTask::FillStandby(to) => self.wrapper_keys.rewrap(key, to, task.job()).await,
                SweepTask::Reseal(job) => self.key_lifecycle.reseal_for_job(key, job).await,
            }
        };
        let work = Box::pin(self.env.kms_calls.operation_of(task.job(), work));
        let traced = in_span("process key", SpanKind::Internal, work, |span, done| {
            span.text("keyvault.key_id", key.to_string());
            if let Err(error) = done {
                span.failed(error.code().as_str());
            }
        });
        Some(traced.await)
    }

    /// Whether the task is still to be done. It is checked before every key, so that an abort or a freeze takes effect at once.
    async fn is_wanted(&self, task: SweepTask<'_>) -> bool {
        self.gate.in_service().is_ok()
            && self.holds(Lease::Sweep).await
            && match task {
                SweepTask::Rotate(job, _) | SweepTask::Reseal(job) => {
                    matches!(self.env.store.state().await, Ok(StoreState { running_job: Some(running), .. }) if running.id == job.id)
                }
                SweepTask::FillStandby(key) => self
                    .wrapper_keys
                    .registered()
                    .await
                    .is_ok_and(|keys| keys.iter().any(|current| current.id == key.id && current.state == WrapperState::Standby)),
            }
    }

    fn record_outcome(&self, result: &mut SweepResult, job: Option<JobId>, key: KeyId, outcome: Result<(), VaultError>) {
        let failure = match outcome {
            Ok(()) => {
                result.succeeded += 1;
                None
            }
            Err(error) => {
                *(if error.retry_can_cure() { &mut result.retryable } else { &mut result.permanent }) += 1;
                let reason = error.reason().map(tracing::field::display);
                tracing::warn!(%key, code = error.code().as_str(), reason, %error, "a sweep could not process this key");
                Some(JobError { key_id: key, code: error.code().as_str().to_owned(), detail: error.to_string() })
            }
        };
        if let Some(job) = job {
            self.job_tracker.record(job, key, failure);
        }
    }
}
