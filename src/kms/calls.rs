//! The request ids of all calls of a KMS until an audit entry has them. No call is forgotten: what no entry of an operation took becomes an entry of its own.
//!
//! A provider announces each request before it is sent ([`KmsCalls::begin`]). Its id belongs to the operation that runs ([`KmsCalls::operation`]), and
//! the next entry of that operation takes it ([`KmsCalls::take`]). A call outside of an operation, or whose operation ended without an entry, is loose.
//! The number of ids that wait is bounded; beyond it only their number is kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::{JobId, UNIDENTIFIED_KMS_CALLS};

tokio::task_local! {
    /// The calls of the running operation that no entry has yet.
    static OPERATION: Mutex<CallList>;
}

/// The kind of calls of which only the number was kept.
const OVERFLOW: &str = "other:calls";
/// The ids that wait in one list.
const MAX_WAITING: usize = 4096;
/// The kinds of unidentified calls in one list. There are a few for each region and wrapper key.
const MAX_KINDS: usize = 256;
/// The ids in one entry of loose calls.
const MAX_IN_ENTRY: usize = 256;
/// How long loose calls wait for their entry. CloudTrail needs as long.
const MAX_WAIT: Duration = Duration::from_mins(15);
/// The jobs whose loose calls are kept apart. One runs at a time.
const MAX_JOBS: usize = 16;

/// The calls of a KMS that no entry has yet.
#[derive(Default)]
pub struct KmsCalls {
    loose: Mutex<Loose>,
    /// Every call, if a command reports them itself.
    kept: Mutex<Option<Vec<String>>>,
}

#[derive(Default)]
struct Loose {
    /// By the job that made them; `None` for the vault itself.
    by_job: BTreeMap<Option<JobId>, CallList>,
    since: Option<Instant>,
}

#[derive(Default)]
struct CallList {
    ids: Vec<String>,
    /// The number by action and place.
    unidentified: BTreeMap<String, u64>,
}

impl CallList {
    fn len(&self) -> usize {
        self.ids.len() + self.unidentified.len()
    }

    fn push(&mut self, id: Option<String>, kind: &str) {
        match id {
            Some(id) if self.ids.len() < MAX_WAITING => self.ids.push(id),
            _ => self.count(kind, 1),
        }
    }

    fn count(&mut self, kind: &str, number: u64) {
        let known = self.unidentified.len() < MAX_KINDS || self.unidentified.contains_key(kind);
        let counted = self.unidentified.entry(if known { kind } else { OVERFLOW }.to_owned()).or_default();
        *counted = counted.saturating_add(number);
    }

    fn add(&mut self, other: Self) {
        for id in other.ids {
            self.push(Some(id), OVERFLOW);
        }
        for (kind, number) in other.unidentified {
            self.count(&kind, number);
        }
    }

    /// As the entry has them.
    fn texts(&self) -> Vec<String> {
        let unidentified = self.unidentified.iter().map(|(kind, number)| format!("{UNIDENTIFIED_KMS_CALLS}{number}:{kind}"));
        self.ids.iter().cloned().chain(unidentified).collect()
    }
}

impl KmsCalls {
    /// Runs an operation, which has entries of its own. Calls that none of them took are loose at its end, also if it is cancelled.
    pub fn operation<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        self.operation_of(None, work)
    }

    /// The same, as a part of a job.
    pub fn operation_of<F: Future>(self: &Arc<Self>, job: Option<JobId>, work: F) -> impl Future<Output = F::Output> {
        let work = async move {
            let _rest = Rest { job, calls: self };
            work.await
        };
        OPERATION.scope(Mutex::default(), work)
    }

    /// The calls of the running operation that no entry has yet. `None` if there are none.
    pub fn take(self: &Arc<Self>) -> Option<TakenCalls> {
        let list = OPERATION.try_with(|list| std::mem::take(&mut *locked(list))).ok()?;
        (list.len() > 0).then(|| TakenCalls { list, job: None, calls: Arc::clone(self) })
    }

    /// Loose calls for one entry, of one job or of none. `None` until they are due, unless `now` is set.
    pub fn take_loose(self: &Arc<Self>, now: bool) -> Option<TakenCalls> {
        let mut loose = locked(&self.loose);
        let waiting: usize = loose.by_job.values().map(CallList::len).sum();
        let due = now || waiting >= MAX_IN_ENTRY || loose.since.is_some_and(|since| since.elapsed() >= MAX_WAIT);
        if !due {
            return None;
        }
        let (job, mut all) = loose.by_job.pop_first()?;
        let rest = all.ids.split_off(all.ids.len().min(MAX_IN_ENTRY));
        if !rest.is_empty() {
            loose.by_job.insert(job, CallList { ids: rest, unidentified: BTreeMap::new() });
        }
        if loose.by_job.is_empty() {
            loose.since = None;
        }
        Some(TakenCalls { list: all, job, calls: Arc::clone(self) })
    }

    /// Keeps every call from now on, for a command that reports them itself.
    pub fn keep_all(&self) {
        locked(&self.kept).get_or_insert_default();
    }

    /// The calls since [`KmsCalls::keep_all`] or the last call of this function.
    pub fn take_kept(&self) -> Vec<String> {
        locked(&self.kept).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Announces a request before it is sent. Until the answer is known, it counts as one without an id.
    pub(super) fn begin(self: &Arc<Self>, action: &str, place: &str) -> SentCall {
        SentCall { calls: Arc::clone(self), kind: Some(format!("{action}:{place}")) }
    }

    fn record(&self, id: Option<String>, kind: &str) {
        if let Some(kept) = &mut *locked(&self.kept) {
            kept.push(id.clone().unwrap_or_else(|| format!("{UNIDENTIFIED_KMS_CALLS}1:{kind}")));
        }
        let in_operation = OPERATION.try_with(|list| locked(list).push(id.clone(), kind));
        if in_operation.is_err() {
            let mut loose = locked(&self.loose);
            loose.by_job.entry(None).or_default().push(id, kind);
            loose.since.get_or_insert_with(Instant::now);
        }
    }

    fn add_loose(&self, job: Option<JobId>, list: CallList) {
        if list.len() == 0 {
            return;
        }
        let mut loose = locked(&self.loose);
        let job = if loose.by_job.len() < MAX_JOBS { job } else { None };
        loose.by_job.entry(job).or_default().add(list);
        loose.since.get_or_insert_with(Instant::now);
    }
}

/// Makes the rest of the running operation loose.
struct Rest<'a> {
    job: Option<JobId>,
    calls: &'a KmsCalls,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        // The future of an operation is dropped inside of its scope too.
        if let Ok(list) = OPERATION.try_with(|list| std::mem::take(&mut *locked(list))) {
            self.calls.add_loose(self.job, list);
        }
    }
}

/// Calls on their way to an entry. If the entry is not written, they wait again.
pub struct TakenCalls {
    list: CallList,
    job: Option<JobId>,
    calls: Arc<KmsCalls>,
}

impl TakenCalls {
    /// The request ids, and the calls without one as `unidentified:…`.
    pub fn texts(&self) -> Vec<String> {
        self.list.texts()
    }

    /// The job that made them, of loose calls.
    pub const fn job(&self) -> Option<JobId> {
        self.job
    }

    /// The entry is durable.
    pub fn written(mut self) {
        self.list = CallList::default();
    }
}

impl Drop for TakenCalls {
    fn drop(&mut self) {
        let list = std::mem::take(&mut self.list);
        if list.len() == 0 {
            return;
        }
        let mut list = Some(list);
        let _ = OPERATION.try_with(|operation| {
            if let Some(list) = list.take() {
                locked(operation).add(list);
            }
        });
        if let Some(list) = list {
            self.calls.add_loose(self.job, list);
        }
    }
}

/// A request that may have reached the KMS. If it is dropped without an answer, it is recorded without an id.
pub(super) struct SentCall {
    calls: Arc<KmsCalls>,
    /// `None` once it is recorded.
    kind: Option<String>,
}

impl SentCall {
    /// The KMS answered, with this request id if there is one.
    pub(super) fn answered(mut self, id: Option<&str>) {
        if let Some(kind) = self.kind.take() {
            self.calls.record(id.filter(|id| !id.is_empty()).map(str::to_owned), &kind);
        }
    }

    /// The request did not reach the KMS, or the KMS keeps no record of it.
    #[cfg(any(feature = "aws-kms", test))]
    pub(super) fn leaves_no_record(mut self) {
        self.kind = None;
    }
}

impl Drop for SentCall {
    fn drop(&mut self) {
        if let Some(kind) = self.kind.take() {
            self.calls.record(None, &kind);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(calls: &Arc<KmsCalls>, id: &str) {
        calls.begin("Decrypt", "eu-central-1").answered(Some(id));
    }

    fn loose(calls: &Arc<KmsCalls>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(taken) = calls.take_loose(true) {
            all.extend(taken.texts());
            taken.written();
        }
        all
    }

    #[tokio::test]
    async fn the_entry_of_an_operation_has_its_calls_and_no_other() {
        let calls = Arc::new(KmsCalls::default());
        answered(&calls, "probe");
        let entry = calls.operation(async {
            answered(&calls, "one");
            drop(calls.begin("Decrypt", "eu-west-1"));
            calls.begin("Decrypt", "eu-west-1").leaves_no_record();
            drop(calls.begin("Decrypt", "eu-west-1"));
            let taken = calls.take().unwrap();
            let texts = taken.texts();
            taken.written();
            assert!(calls.take().is_none(), "they have their entry");
            texts
        });
        assert_eq!(entry.await, ["one", "unidentified:2:Decrypt:eu-west-1"]);
        assert_eq!(loose(&calls), ["probe"]);
    }

    #[tokio::test]
    async fn what_has_no_entry_is_loose() {
        let calls = Arc::new(KmsCalls::default());
        let job: JobId = "job-00000000000a".parse().unwrap();
        calls.operation_of(Some(job), async { answered(&calls, "no entry") }).await;
        // The entry could not be written.
        calls
            .operation(async {
                answered(&calls, "not written");
                drop(calls.take());
                assert_eq!(calls.take().unwrap().texts(), ["not written"], "the next entry takes them");
            })
            .await;
        // The caller is gone in the middle of a call.
        let cancelled = calls.operation(async {
            answered(&calls, "before");
            let _sent = calls.begin("Encrypt", "eu-central-1");
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), cancelled).await.is_err());
        assert!(calls.take_loose(false).is_none(), "they are not due");
        let taken = calls.take_loose(true).unwrap();
        assert_eq!(
            (taken.texts(), taken.job()),
            (vec!["not written".into(), "before".into(), "unidentified:1:Encrypt:eu-central-1".into()], None)
        );
        drop(taken);
        assert_eq!(loose(&calls).len(), 4, "an entry that was not written loses none");
    }

    #[test]
    fn the_number_of_ids_in_memory_and_in_an_entry_is_bounded() {
        let calls = Arc::new(KmsCalls::default());
        for number in 0..MAX_WAITING + 10 {
            answered(&calls, &number.to_string());
        }
        let first = calls.take_loose(false).unwrap();
        assert_eq!(first.texts().len(), MAX_IN_ENTRY + 1);
        assert_eq!(first.texts().last().unwrap(), "unidentified:10:Decrypt:eu-central-1");
        first.written();
        assert_eq!(loose(&calls).len(), MAX_WAITING - MAX_IN_ENTRY);
        for number in 0..MAX_KINDS + 10 {
            drop(calls.begin("Decrypt", &number.to_string()));
        }
        assert_eq!(loose(&calls).last().unwrap(), "unidentified:10:other:calls");
    }

    #[test]
    fn a_command_keeps_all_calls() {
        let calls = Arc::new(KmsCalls::default());
        answered(&calls, "before");
        calls.keep_all();
        answered(&calls, "one");
        drop(calls.begin("update", "transit/decrypt/k"));
        assert_eq!(calls.take_kept(), ["one", "unidentified:1:update:transit/decrypt/k"]);
        assert!(calls.take_kept().is_empty());
    }
}
