//! Work over all keys: the job that runs, resumed after a restart, and the filling of standby wrapper keys.
//!
//! A pass goes through the keys that are left and does each by itself; the store says when none is left. What fails is tried again by
//! the next pass: for as long as time may cure it, and a few times where it may not. Whatever is cut off where leaves every key with
//! the wraps it had.

use std::{
    collections::HashMap,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{Mutex, watch},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{AuditEvent, Job, JobError, JobId, JobKind, JobState, KeyId, Operation, Work, WrapperKey, WrapperKeyId, WrapperState},
    storage::{Change, CommitError, JobEnd, Page, Wanted},
    vault::{Vault, VaultError, commit::Done},
};

/// `[jobs]`: how fast work over all keys goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// At most so many keys a second; each costs two or three calls of the KMS. Default 50.
    pub keys_per_second: u32,
    /// At most so many keys at the same time. Default 4.
    pub concurrency: usize,
    /// After a pass in which no key could be done the next waits so long, and longer each time, up to 30 times as long. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub retry_pause: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self { keys_per_second: 50, concurrency: 4, retry_pause: Duration::from_secs(1) }
    }
}

/// How often somebody looks for a job or for keys without a standby wrap, if no bell rings.
const LOOK: Duration = Duration::from_secs(5);
/// Keys that are looked up at once.
const PAGE: u32 = 100;
/// After so many failures in a row that may pass a pass ends: it is not the keys. The next one goes on behind them, since others
/// may be better off.
const IN_A_ROW: usize = 20;
/// A job fails after so many passes in a row that tried every key that is left, each in vain, for reasons that time does not cure.
const PATIENCE: u32 = 4;

/// The beat that all work over all keys keeps together.
pub(in crate::vault) struct Beat {
    ticks: Mutex<Interval>,
    concurrency: usize,
    pause: Duration,
}

impl Beat {
    pub(in crate::vault) fn new(config: &JobsConfig) -> Self {
        let mut ticks = interval(Duration::from_secs(1) / config.keys_per_second.clamp(1, 1_000_000));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks: Mutex::new(ticks), concurrency: config.concurrency.max(1), pause: config.retry_pause }
    }

    fn pause(&self, fruitless: u32) -> Duration {
        self.pause.saturating_mul(1 << fruitless.min(5)).min(self.pause.saturating_mul(30))
    }
}

/// What came of a pass.
#[derive(Default)]
struct Tally {
    done: u64,
    /// Failures that time may cure.
    passing: u64,
    /// Failures that it does not.
    lasting: u64,
    /// Whether it went from the first key to the last.
    whole: bool,
}

/// How the passes of an errand went so far.
#[derive(Default)]
struct Course {
    /// Passes in a row in which no key could be done.
    fruitless: u32,
    /// Those of them in a row that leave no hope.
    hopeless: u32,
    /// Where the next pass goes on, if the one before gave up.
    after: u64,
}

impl Course {
    fn note(&mut self, tally: &Tally) {
        self.fruitless = if tally.done > 0 { 0 } else { self.fruitless.saturating_add(1) };
        if tally.done > 0 || tally.passing > 0 {
            self.hopeless = 0;
        } else if tally.whole {
            self.hopeless = self.hopeless.saturating_add(1);
        }
    }
}

/// What a pass does, and for whom.
#[derive(Clone, Copy)]
enum Errand<'a> {
    /// Adds wraps under the wrapper key, for a rotation.
    Rotate(&'a Job, &'a WrapperKey),
    /// Seals anew, for a job.
    Reseal(&'a Job),
    /// Adds wraps under a standby wrapper key.
    Fill(&'a WrapperKey),
}

impl Errand<'_> {
    const fn wanted(self) -> Wanted {
        match self {
            Self::Rotate(_, to) | Self::Fill(to) => Wanted::WrapUnder(to.id),
            Self::Reseal(job) => Wanted::SealedSince(job.started_at),
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
    /// Works on the job that runs, whenever one does.
    pub(in crate::vault) async fn work_on_jobs(self: Arc<Self>, stop: CancellationToken) {
        let (mut bell, mut wait) = (self.job_bell.subscribe(), Duration::ZERO);
        let (mut course, mut of) = (Course::default(), None);
        while next_look(&stop, &mut bell, wait).await {
            let job = match self.store.running_job().await {
                Ok(Some(job)) if self.in_service().is_ok() => job,
                _ => {
                    wait = LOOK;
                    continue;
                }
            };
            if of.replace(job.id) != Some(job.id) {
                course = Course::default();
            }
            let tally = self.pass_of(&job, &mut course, &stop).await;
            if stop.is_cancelled() {
                return;
            }
            course.note(&tally);
            if tally.whole {
                self.progress.end_pass(job.id);
            }
            wait = if course.fruitless == 0 { Duration::ZERO } else { self.beat.pause(course.fruitless) };
            match self.end_job(&job, course.hopeless >= PATIENCE).await {
                Ok(()) => wait = LOOK,
                Err(CommitError::KeysLeft(_) | CommitError::LostRace) => {}
                Err(error) => tracing::warn!(job = %job.id, %error, "the end of a job could not be recorded; this is tried again"),
            }
        }
    }

    async fn pass_of(self: &Arc<Self>, job: &Job, course: &mut Course, stop: &CancellationToken) -> Tally {
        let Work::Rotation { to, .. } = job.work else { return self.pass(Errand::Reseal(job), course, stop).await };
        let Ok(keys) = self.wrapper_keys().await else { return Tally { passing: 1, ..Tally::default() } };
        match keys.iter().find(|key| key.id == to) {
            Some(to) => self.pass(Errand::Rotate(job, to), course, stop).await,
            None => Tally { lasting: 1, whole: true, ..Tally::default() },
        }
    }

    /// Through the keys that are left, from where the pass before gave up, if it did.
    async fn pass(self: &Arc<Self>, errand: Errand<'_>, course: &mut Course, stop: &CancellationToken) -> Tally {
        let mut after = std::mem::take(&mut course.after);
        let (mut tally, mut in_a_row) = (Tally { whole: after == 0, ..Tally::default() }, 0);
        loop {
            let left = match self.store.left(errand.wanted(), Page { after, limit: PAGE }).await {
                Ok(left) => left,
                Err(error) => {
                    tracing::warn!(%error, "the keys that are left could not be looked up");
                    tally.passing += 1;
                    tally.whole = false;
                    return tally;
                }
            };
            if left.is_empty() {
                return tally;
            }
            // What was begun is finished: nothing is cut off in the middle.
            let over = AtomicBool::new(false);
            let mut results = stream::iter(left)
                .take_while(|_| ready(!over.load(Ordering::Relaxed)))
                .map(|found| async move { (found.position, found.item, self.one(errand, found.item, stop).await) })
                .buffer_unordered(self.beat.concurrency);
            while let Some((position, key, result)) = results.next().await {
                after = after.max(position);
                let Some(result) = result else {
                    over.store(true, Ordering::Relaxed);
                    continue;
                };
                in_a_row = if result.as_ref().is_err_and(VaultError::may_pass) { in_a_row + 1 } else { 0 };
                self.note(&mut tally, errand.job(), key, result);
                if in_a_row >= IN_A_ROW {
                    over.store(true, Ordering::Relaxed);
                }
            }
            drop(results);
            if over.into_inner() {
                (course.after, tally.whole) = (after, false);
                return tally;
            }
        }
    }

    /// One key, at the beat; `None` if nobody wants it any more.
    async fn one(self: &Arc<Self>, errand: Errand<'_>, key: KeyId, stop: &CancellationToken) -> Option<Result<(), VaultError>> {
        self.beat.ticks.lock().await.tick().await;
        if stop.is_cancelled() || !self.is_wanted(errand).await {
            return None;
        }
        Some(match errand {
            Errand::Rotate(_, to) | Errand::Fill(to) => self.rewrap(key, to).await,
            Errand::Reseal(job) => self.reseal_for_job(key, job.started_at).await,
        })
    }

    /// Whether there is still somebody who wants it; asked before every key, so that an abort or a freeze is one at once.
    async fn is_wanted(&self, errand: Errand<'_>) -> bool {
        self.in_service().is_ok()
            && match errand {
                Errand::Rotate(job, _) | Errand::Reseal(job) => {
                    matches!(self.store.running_job().await, Ok(Some(running)) if running.id == job.id)
                }
                Errand::Fill(key) => self
                    .wrapper_keys()
                    .await
                    .is_ok_and(|keys| keys.iter().any(|now| now.id == key.id && now.state == WrapperState::Standby)),
            }
    }

    fn note(&self, tally: &mut Tally, job: Option<JobId>, key: KeyId, result: Result<(), VaultError>) {
        let failure = match result {
            Ok(()) => {
                tally.done += 1;
                None
            }
            Err(error) => {
                *(if error.may_pass() { &mut tally.passing } else { &mut tally.lasting }) += 1;
                tracing::warn!(%key, %error, "work over all keys could not do this one");
                Some(JobError { key_id: key, code: error.code().as_str().to_owned(), detail: error.to_string() })
            }
        };
        if let Some(job) = job {
            self.progress.note(job, key, failure);
        }
    }

    /// Ends a job: as succeeded if no key is left, as failed if that is hopeless. Looks before it asks the writer to count, whom all wait for.
    async fn end_job(&self, job: &Job, hopeless: bool) -> Result<(), CommitError> {
        let is_left = !self.store.left(Wanted::by(job.work, job.started_at), Page { after: 0, limit: 1 }).await?.is_empty();
        let ended = if is_left { Err(CommitError::KeysLeft(1)) } else { self.write_end(job, JobState::Succeeded, Vec::new()).await };
        match ended {
            Err(CommitError::KeysLeft(_)) if hopeless => self.write_end(job, JobState::Failed, self.progress.failures(job.id)).await,
            ended => ended,
        }
    }

    async fn write_end(&self, job: &Job, state: JobState, errors: Vec<JobError>) -> Result<(), CommitError> {
        let operation = match job.work.kind() {
            JobKind::Rotation => Operation::EndRotation,
            JobKind::Reseal => Operation::EndReseal,
        };
        let permit = self.policy().permit_system(operation, None);
        let event = AuditEvent { subject: Some(format!("{} {state}", job.id)), ..self.system_event(operation) };
        let end = JobEnd { id: job.id, state, errors, at: (self.clock)() };
        self.commit(event, Done::changed(permit, (), Change::EndJob(end))).await?;
        tracing::info!(job = %job.id, %state, "a job over all keys ended");
        Ok(())
    }

    /// Keeps standby wrapper keys filled: every key gets a wrap under each.
    pub(in crate::vault) async fn fill_standbys(self: Arc<Self>, stop: CancellationToken) {
        let mut courses: HashMap<WrapperKeyId, (Course, Instant)> = HashMap::new();
        let mut filled_at = HashMap::new();
        let (mut bell, mut wait) = (self.job_bell.subscribe(), Duration::ZERO);
        while next_look(&stop, &mut bell, wait).await {
            wait = LOOK;
            let Ok(keys) = self.wrapper_keys().await else { continue };
            for key in keys.iter().filter(|key| key.state == WrapperState::Standby) {
                let (revision, now) = (self.store.revision(), Instant::now());
                let (course, rests_until) = courses.entry(key.id).or_insert_with(|| (Course::default(), now));
                if now < *rests_until || filled_at.get(&key.id) == Some(&revision) {
                    continue;
                }
                let tally = self.pass(Errand::Fill(key), course, &stop).await;
                course.note(&tally);
                if tally.passing + tally.lasting > 0 {
                    *rests_until = now + self.beat.pause(course.fruitless.saturating_add(2));
                } else if tally.whole {
                    // What came meanwhile moved the revision on, and is found at the next look.
                    filled_at.insert(key.id, revision);
                }
            }
        }
    }
}

/// Waits for the bell, which may have rung meanwhile, or the time; `false` once the work is to end.
async fn next_look(stop: &CancellationToken, bell: &mut watch::Receiver<()>, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        rung = bell.changed() => rung.is_ok(),
        () = tokio::time::sleep(wait) => true,
    }
}
