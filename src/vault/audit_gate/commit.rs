//! The commit path: a result leaves the vault only as an [`AuditedResult`], which exists only after its audit entry is durable (invariant 3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    domain::{AuditEvent, Outcome, Permit},
    storage::{Change, Commit, CommitError, KeyPrecondition, NewIdempotencyRecord, Receipt},
    traces::{ActiveSpan, SpanKind, in_span},
};

use super::{AuditGate, ClientRefusal, change_log::ChangeLine};
use crate::vault::{
    VaultError, call_fields,
    detached::{commit_is_slow, confirm_at_end},
};

/// Maximum attempts after a lost compare-and-swap. Each attempt reads the store again.
const ATTEMPTS: usize = 4;

/// A result whose audit entry is durable. Only this file makes one; `api` encodes nothing else.
///
/// ```compile_fail
/// let result = canton_keyvault::vault::AuditedResult { value: 1, sequence: 1, store_revision: 1 };
/// ```
#[derive(Debug)]
pub struct AuditedResult<T> {
    value: T,
    sequence: u64,
    store_revision: u64,
}

impl<T> AuditedResult<T> {
    /// The result, for the vault itself.
    pub(in crate::vault) const fn value(&self) -> &T {
        &self.value
    }

    /// The same result with a part of its value.
    pub(in crate::vault) fn map<U>(self, part: impl FnOnce(T) -> U) -> AuditedResult<U> {
        let Self { value, sequence, store_revision } = self;
        AuditedResult { value: part(value), sequence, store_revision }
    }

    /// The result.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The sequence number of its audit entry, the last one if it has several.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The revision of the store after the commit.
    pub(in crate::vault) const fn store_revision(&self) -> u64 {
        self.store_revision
    }
}

impl<T> AuditedResult<Vec<T>> {
    /// The result of an operation that was performed once.
    ///
    /// # Errors
    /// `Internal` if there is none.
    pub(in crate::vault) fn only(self) -> Result<AuditedResult<T>, VaultError> {
        let Self { value, sequence, store_revision } = self;
        audited(value.into_iter().next(), Receipt { sequence, store_revision })
    }
}

/// The outcome of an operation, ready to be committed.
pub(in crate::vault) struct Completed<T> {
    /// The proof of authorization. The commit consumes it.
    pub permit: Permit,
    /// The result.
    pub value: T,
    /// The change of the store.
    pub change: Option<Change>,
    /// The record for a repeated request.
    pub idempotency: Option<NewIdempotencyRecord>,
    /// What must still hold at the commit.
    pub precondition: Option<KeyPrecondition>,
    /// The events of further uses of the key in the same call.
    pub further: Vec<AuditEvent>,
}

impl<T> Completed<T> {
    /// A result without a change of the store.
    pub(in crate::vault) const fn read(permit: Permit, value: T) -> Self {
        Self { permit, value, change: None, idempotency: None, precondition: None, further: Vec::new() }
    }

    /// A result with a change of the store.
    pub(in crate::vault) const fn changed(permit: Permit, value: T, change: Change) -> Self {
        Self { permit, value, change: Some(change), idempotency: None, precondition: None, further: Vec::new() }
    }
}

/// One attempt of an operation: the event as far as it was completed, and the result.
pub(in crate::vault) type Attempt<T> = (AuditEvent, Result<Completed<T>, VaultError>);

/// What became of one attempt.
enum Settled {
    Committed(Receipt),
    /// The attempt lost a compare-and-swap. The event is what a refusal would record.
    Conflict(Option<Box<AuditEvent>>),
}

/// Describes the span of a commit.
fn describe(span: &mut ActiveSpan, is_change: bool, written: &Result<Receipt, CommitError>) {
    span.flag("keyvault.audit.is_change", is_change);
    match written {
        Ok(receipt) => span.number("keyvault.audit.sequence", receipt.sequence),
        Err(CommitError::Unavailable(_)) => span.failed("unavailable"),
        // Another call changed the key. The attempt is repeated.
        Err(_) => span.failed("conflict"),
    }
}

impl<T> Completed<T> {
    /// The value, and the rest, whose code does not depend on the type of the value: it is compiled once, and not for every operation.
    fn split(self) -> (T, Completed<()>) {
        let Self { permit, value, change, idempotency, precondition, further } = self;
        (value, Completed { permit, value: (), change, idempotency, precondition, further })
    }
}

fn split<T>(result: Result<Completed<T>, VaultError>) -> (Option<T>, Result<Completed<()>, VaultError>) {
    match result.map(Completed::split) {
        Ok((value, completed)) => (Some(value), Ok(completed)),
        Err(error) => (None, Err(error)),
    }
}

/// The result of what was committed.
fn audited<T>(value: Option<T>, Receipt { sequence, store_revision }: Receipt) -> Result<AuditedResult<T>, VaultError> {
    let value = value.ok_or(VaultError::Internal("an entry without a result"))?;
    Ok(AuditedResult { value, sequence, store_revision })
}

impl AuditGate {
    /// Runs an operation and commits its result. After a lost compare-and-swap it runs the operation again, at most [`ATTEMPTS`] times in
    /// total. `attempt` gets a copy of `event` and the number of the attempt, from 0.
    ///
    /// # Errors
    /// The error of the operation, recorded as a refusal; `Conflict` after the last attempt; `AuditUnavailable` if the entry could not be
    /// made durable in time.
    pub(in crate::vault) async fn run<T, F, Fut>(&self, event: AuditEvent, mut attempt: F) -> Result<AuditedResult<T>, VaultError>
    where
        F: FnMut(AuditEvent, usize) -> Fut,
        Fut: Future<Output = Attempt<T>>,
    {
        let mut refused = None;
        for number in 0..ATTEMPTS {
            let (event, result) = attempt(event.clone(), number).await;
            let (value, completed) = split(result);
            match self.settle(event, completed).await? {
                Settled::Committed(receipt) => return audited(value, receipt),
                Settled::Conflict(event) => refused = event,
            }
        }
        self.refuse(refused.map_or(event, |refused| *refused), VaultError::Conflict).await
    }

    /// Commits the result of an operation that is not repeated, or records its refusal.
    ///
    /// # Errors
    /// As [`AuditGate::run`].
    pub(in crate::vault) async fn conclude<T>(
        &self,
        event: AuditEvent,
        result: Result<Completed<T>, VaultError>,
    ) -> Result<AuditedResult<T>, VaultError> {
        let template = event.clone();
        let (value, completed) = split(result);
        match self.settle(event, completed).await? {
            Settled::Committed(receipt) => audited(value, receipt),
            Settled::Conflict(event) => self.refuse(event.map_or(template, |event| *event), VaultError::Conflict).await,
        }
    }

    /// Concludes a read that a program repeats many times: the entry of one read covers those of the same caller in the next minute. It is durable
    /// before each of their results leaves.
    ///
    /// # Errors
    /// As [`AuditGate::run`]. Refusals have their entries like any other.
    pub(in crate::vault) async fn conclude_repeated<T>(
        &self,
        event: AuditEvent,
        result: Result<Completed<T>, VaultError>,
    ) -> Result<AuditedResult<T>, VaultError> {
        let result = match (result, self.repeated_reads.covering(&event)) {
            (Ok(Completed { permit: _, value, change: None, .. }), Some(Receipt { sequence, store_revision })) => {
                return Ok(AuditedResult { value, sequence, store_revision });
            }
            (result, _) => result,
        };
        let read = event.clone();
        let concluded = self.conclude(event, result).await?;
        let AuditedResult { sequence, store_revision, .. } = concluded;
        self.repeated_reads.wrote(&read, Receipt { sequence, store_revision });
        Ok(concluded)
    }

    /// The futures of what happens seldom are boxed, because those of all callers contain this one.
    async fn settle(&self, event: AuditEvent, result: Result<Completed<()>, VaultError>) -> Result<Settled, VaultError> {
        let completed = match result {
            Ok(completed) => completed,
            Err(VaultError::Conflict) => return Ok(Settled::Conflict(Some(Box::new(event)))),
            Err(error) => return self.refuse(event, error).await,
        };
        // Results without a change, such as signatures, are refused with the event of the call: this saves a copy on the signing path.
        let refused = completed.change.is_some().then(|| Box::new(event.clone()));
        let (operation, is_change) = (event.operation, completed.change.is_some());
        let withheld = self.sinks.delay(operation).then(|| Box::new(event.clone()));
        match self.write_completed(event, completed).await {
            Ok(receipt) => {
                let withheld = if is_change { withheld.and_then(|event| confirm_at_end(receipt.sequence, event)) } else { withheld };
                if let Some(event) = withheld {
                    Box::pin(self.confirm(receipt.sequence, *event, is_change)).await?;
                }
                Ok(Settled::Committed(receipt))
            }
            Err(CommitError::Unavailable(store)) => Err(VaultError::AuditUnavailable(store)),
            Err(error @ (CommitError::WrapperKeyExists | CommitError::JobRunning)) => match refused {
                Some(event) => self.refuse(*event, error.into()).await,
                None => Err(error.into()),
            },
            Err(
                CommitError::Stale
                | CommitError::LostRace
                | CommitError::KeyExists
                | CommitError::ActiveWrapperChanged
                | CommitError::WrapperKeyNotFilled
                | CommitError::KeysLeft(_)
                | CommitError::IdempotencyKeyTaken,
            ) => Ok(Settled::Conflict(refused)),
        }
    }

    /// Returns when every required sink has the entry of a result, which may leave then. Otherwise a second entry says that the result was withheld,
    /// because the first one has the outcome of the operation, which happened.
    ///
    /// # Errors
    /// `ResultWithheld`, or `ChangeUnconfirmed` for a change, which is in force.
    pub(in crate::vault) async fn confirm(&self, sequence: u64, event: AuditEvent, is_change: bool) -> Result<(), VaultError> {
        let confirmed = in_span("confirm entry", SpanKind::Internal, Box::pin(self.sinks.confirm(sequence)), |span, confirmed| {
            span.number("keyvault.audit.sequence", sequence);
            if confirmed.is_err() {
                span.failed("not_confirmed");
            }
        });
        let Err(sink) = confirmed.await else { return Ok(()) };
        let sink = sink.to_owned();
        let error =
            if is_change { VaultError::ChangeUnconfirmed { sink, sequence } } else { VaultError::ResultWithheld { sink, sequence } };
        let event = AuditEvent {
            outcome: Outcome::Failed,
            reason: Some(error.code().as_str().to_owned()),
            subject: Some(error.to_string()),
            change: None,
            ..event
        };
        self.record_withheld(event).await;
        Err(error)
    }

    /// Writes an entry about a call that has one already. The error of the call stays what it is if this one cannot be written.
    async fn record_withheld(&self, event: AuditEvent) {
        if !self.refusal_throttle.counted(&event)
            && let Err(error) = self.write(Commit::entry(event)).await
        {
            tracing::warn!(%error, "the entry of a withheld result could not be written");
        }
    }

    /// Writes the entry of a refused call, or counts the refusal if the principal exceeds the rate limit. Returns the error.
    ///
    /// # Errors
    /// Always: `error`, or `AuditUnavailable` if the entry could not be written.
    pub(in crate::vault) async fn refuse<T>(&self, event: AuditEvent, error: VaultError) -> Result<T, VaultError> {
        Err(Box::pin(self.record_refusal(event, error)).await)
    }

    async fn record_refusal(&self, mut event: AuditEvent, error: VaultError) -> VaultError {
        // The log line of the call has them.
        call_fields::add(event.key, event.node.as_ref());
        event.outcome = if error.is_denial() { Outcome::Denied } else { Outcome::Failed };
        event.change = None;
        event.reason = Some(error.code().as_str().to_owned());
        event.kms.request_ids.extend(error.kms_request_id().map(str::to_owned));
        // If the audit log is unavailable, a second attempt would only delay the caller.
        if matches!(error, VaultError::AuditUnavailable(_)) || self.refusal_throttle.counted(&event) {
            return error;
        }
        match self.write(Commit::entry(event)).await {
            Ok(_) => error,
            Err(unwritten) => unwritten.into(),
        }
    }

    /// Commits a result once. Consumes the permit.
    ///
    /// # Errors
    /// As [`crate::storage::KeyStore::commit`].
    pub(in crate::vault) async fn commit<T>(&self, event: AuditEvent, completed: Completed<T>) -> Result<AuditedResult<T>, CommitError> {
        let (value, completed) = completed.split();
        let Receipt { sequence, store_revision } = self.write_completed(event, completed).await?;
        Ok(AuditedResult { value, sequence, store_revision })
    }

    async fn write_completed(&self, mut event: AuditEvent, completed: Completed<()>) -> Result<Receipt, CommitError> {
        let Completed { permit, value: (), change, idempotency, precondition, mut further } = completed;
        debug_assert!(permit.operation() == event.operation, "a permit is valid for one operation only");
        for event in further.iter_mut().chain([&mut event]) {
            event.policy_revision = Arc::clone(permit.policy_revision());
        }
        self.write(Commit { change, idempotency, precondition, event, further }).await
    }

    /// Writes an entry that no caller waits for and that needs no permit.
    ///
    /// # Errors
    /// As [`crate::storage::KeyStore::commit`].
    pub(in crate::vault) async fn record(&self, event: AuditEvent) -> Result<(), CommitError> {
        self.write(Commit::entry(event)).await.map(drop)
    }

    /// Writes a change and its entry that no caller waits for and that needs no permit.
    ///
    /// # Errors
    /// As [`crate::storage::KeyStore::commit`].
    pub(in crate::vault) async fn record_change(&self, change: Change, event: AuditEvent) -> Result<(), CommitError> {
        self.write(Commit::change(change, event)).await.map(drop)
    }

    /// Records that a client was not admitted. Its entry follows with the next [`Self::write_counted_refusals`].
    pub(in crate::vault) fn client_refused(&self, refused: ClientRefusal) {
        self.refused_clients.add(self.env.now(), Arc::clone(self.policy().revision()), refused);
    }

    /// Writes one entry for each kind of refusal that was only counted, and those of refused clients, of which `is_end` writes all. Entries that cannot
    /// be written are kept for the next call.
    pub(in crate::vault) async fn write_counted_refusals(&self, is_end: bool) {
        for event in self.refused_clients.take(self.env.now(), is_end) {
            if self.record(event.clone()).await.is_err() {
                self.refused_clients.restore(event);
            }
        }
        for event in self.refusal_throttle.drain() {
            if self.record(event.clone()).await.is_err() {
                self.refusal_throttle.restore(event);
            }
        }
    }

    async fn write(&self, mut commit: Commit) -> Result<Receipt, CommitError> {
        let kms_calls = self.env.kms_calls.take();
        if let Some(calls) = &kms_calls {
            // A refusal has the id of the refused call already.
            let named = std::mem::replace(&mut commit.event.kms.request_ids, calls.texts());
            let ids = &mut commit.event.kms.request_ids;
            for id in named {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        let (began, is_change) = (Instant::now(), commit.change.is_some());
        let line = ChangeLine::of(&commit);
        let written = if is_change { Box::pin(self.write_change(commit)) } else { self.env.store.commit(commit) };
        let result = in_span("commit entry", SpanKind::Internal, written, |span, written| describe(span, is_change, written)).await;
        self.commit_seconds.record(began.elapsed().as_secs_f64());
        if let Ok(receipt) = &result {
            if let Some(calls) = kms_calls {
                calls.written();
            }
            self.sinks.written(receipt.sequence);
            if let Some(line) = line {
                line.write(receipt.sequence);
            }
        }
        // Only an unavailable store is a fault of the audit log. A refused commit is not.
        self.audit_failing.store(matches!(result, Err(CommitError::Unavailable(_))), std::sync::atomic::Ordering::Relaxed);
        result
    }

    /// Writes a change. If the store takes too long, the caller gets an answer, and the outcome is still waited for.
    async fn write_change(&self, commit: Commit) -> Result<Receipt, CommitError> {
        let mut written = std::pin::pin!(self.env.store.commit(commit));
        // The store gives up a commit that it has not begun after the same time: wait a little for that.
        let patience = self.env.store.commit_timeout() + Duration::from_millis(50);
        if let Ok(result) = tokio::time::timeout(patience, &mut written).await {
            return result;
        }
        self.audit_failing.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!("the store has not confirmed a change in time; check its disk");
        commit_is_slow();
        written.await
    }
}
