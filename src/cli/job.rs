//! Jobs over all keys, as a client sees them: start, show, list, wait, abort. The job runs in the vault, whether a client waits or not.
//! Waiting continues through outages of the vault.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Failure,
    connection::Remote,
    output::ListArgs,
    progress::{Counts, Progress},
    table::{Column, column, optional},
};
use crate::client::{Call, ClientError};
use crate::domain::{JobError, JobId, JobState, Timestamp};

const COLUMNS: &[Column] =
    &[column("id"), column("state"), column("total"), column("done"), column("failed"), column("started_at"), optional("finished_at")];

/// One kind of job.
pub(super) struct Jobs {
    /// The name.
    pub(super) name: &'static str,
    /// The path in the API.
    pub(super) path: &'static str,
    /// The command that shows one.
    pub(super) show: &'static str,
    /// The command that aborts one.
    pub(super) abort: &'static str,
}

/// Every key gets a wrap under another wrapper key.
pub(super) const ROTATIONS: Jobs =
    Jobs { name: "rotation", path: "/v1/wrapper-keys/rotations", show: "wrapper rotation show", abort: "wrapper rotation abort" };

/// Every key gets a new data key.
pub(super) const RESEALS: Jobs =
    Jobs { name: "re-seal", path: "/v1/keys/reseals", show: "keys reseal-job show", abort: "keys reseal-job abort" };

/// Whether to wait for a job.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WaitArgs {
    /// Wait for the end, with progress on standard error. Ctrl-C ends the waiting, not the job. The exit code is 0 only if the job
    /// succeeded
    #[arg(long)]
    wait: bool,
}

/// The job to show.
#[derive(Debug, Args)]
pub struct ShowJobArgs {
    /// Id of the job, job-…; if absent, the running one, or else the newest
    job: Option<JobId>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The job to abort.
#[derive(Debug, Args)]
pub struct AbortJobArgs {
    /// Id of the job, job-…; if absent, the running one
    job: Option<JobId>,
}

/// The fields of a job that a client uses.
#[derive(Debug, Deserialize)]
struct JobView {
    id: JobId,
    state: JobState,
    total: u64,
    done: u64,
    failed: u64,
    #[serde(default)]
    errors: Vec<JobError>,
    started_at: Timestamp,
}

impl Jobs {
    /// Starts a job, and prints it: as it starts, or with waiting as it ends.
    pub(super) async fn start(&self, body: &Value, wait: WaitArgs, remote: &Remote) -> Result<(), Failure> {
        let job = remote.client.post(self.path, body).await?;
        self.print(job, wait, remote).await
    }

    /// Lists all jobs of the kind, oldest first.
    pub(super) async fn list(&self, page: &ListArgs, remote: &Remote) -> Result<(), Failure> {
        remote.print_list(COLUMNS, page, || Call::get(self.path)).await
    }

    /// Prints a job.
    pub(super) async fn show(&self, args: &ShowJobArgs, remote: &Remote) -> Result<(), Failure> {
        let job = match args.job {
            Some(id) => remote.client.get(&self.of(id)).await?,
            None => self.newest(remote).await?.ok_or_else(|| Failure::Unexpected(format!("no {} was ever started", self.name)))?,
        };
        self.print(job, args.wait, remote).await
    }

    /// Aborts a job, and prints it. What it did stays.
    pub(super) async fn abort(&self, args: &AbortJobArgs, remote: &Remote) -> Result<(), Failure> {
        let id = match args.job {
            Some(id) => id,
            None => match self.newest(remote).await?.map(|job| JobView::read(&job)).transpose()? {
                Some(job) if job.state == JobState::Running => job.id,
                _ => return Err(Failure::Unexpected(format!("no {} is running", self.name))),
            },
        };
        remote.print(&remote.client.post(&format!("{}/abort", self.of(id)), &json!({})).await?)
    }

    fn of(&self, id: JobId) -> String {
        format!("{}/{id}", self.path)
    }

    /// The running job, or else the newest.
    async fn newest(&self, remote: &Remote) -> Result<Option<Value>, Failure> {
        let (mut newest, mut cursor) = (None, None);
        loop {
            let call = Call::get(self.path).query_if("cursor", cursor.as_ref());
            let page: Page = remote.client.success(call).await?.parse()?;
            for value in page.items {
                let job = JobView::read(&value)?;
                let rank = (job.state == JobState::Running, job.started_at);
                if newest.as_ref().is_none_or(|(best, _)| rank >= *best) {
                    newest = Some((rank, value));
                }
            }
            if page.next_cursor.is_none() || page.next_cursor == cursor {
                return Ok(newest.map(|(_, job)| job));
            }
            cursor = page.next_cursor;
        }
    }

    async fn print(&self, job: Value, wait: WaitArgs, remote: &Remote) -> Result<(), Failure> {
        if !wait.wait {
            return remote.print(&job);
        }
        let id = JobView::read(&job)?.id;
        let last = tokio::select! {
            last = self.last(job, remote) => last?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                let Self { name, show, abort, .. } = self;
                return Err(Failure::Interrupted(format!(
                    "no longer waiting; the {name} {id} goes on in the vault. To wait again: canton-keyvault {show} {id} --wait; \
                     to stop it: canton-keyvault {abort} {id}"
                )));
            }
        };
        remote.print(&last)?;
        self.verdict(&JobView::read(&last)?)
    }

    /// The job after its end. While the vault cannot answer, it reports that and continues to wait.
    async fn last(&self, mut job: Value, remote: &Remote) -> Result<Value, Failure> {
        let (began, mut away, mut told) = (Instant::now(), false, BTreeSet::new());
        let mut progress = Progress::new(self.name);
        loop {
            let seen = JobView::read(&job)?;
            progress.show(Counts { done: seen.done, failed: seen.failed, total: seen.total }, Instant::now());
            if seen.state != JobState::Running {
                return Ok(job);
            }
            // One error of each kind, early enough to fix it: the job tries again.
            for JobError { key_id, code, detail } in seen.errors.iter().filter(|error| told.insert(error.code.clone())) {
                progress.note(&format!("cannot do {key_id} as yet: {code}: {detail}"));
            }
            job = loop {
                tokio::time::sleep(pause(began.elapsed())).await;
                match remote.client.get(&self.of(seen.id)).await {
                    Ok(job) => break job,
                    Err(error) if !passes(&error) => return Err(error.into()),
                    Err(error) if !away => {
                        away = true;
                        progress.note(&format!("still waiting, although the vault does not answer: {}", error.brief()));
                    }
                    Err(_) => {}
                }
            };
            if std::mem::take(&mut away) {
                progress.note("the vault answers again");
            }
        }
    }

    fn verdict(&self, job: &JobView) -> Result<(), Failure> {
        let (name, JobView { id, total, done, failed, errors, .. }) = (self.name, job);
        let (code, mut detail) = match job.state {
            JobState::Succeeded | JobState::Running => return Ok(()),
            JobState::Failed => ("job_failed", format!("the {name} {id} failed: {failed} of {total} keys could not be done")),
            JobState::Aborted => ("job_aborted", format!("the {name} {id} was aborted: {done} of {total} keys are done, and stay so")),
        };
        for JobError { key_id, code, detail: why } in errors {
            let _ = write!(detail, "\n  {key_id}: {code}: {why}");
        }
        let unnamed = failed.saturating_sub(u64::try_from(errors.len()).unwrap_or(u64::MAX));
        if unnamed > 0 && !errors.is_empty() {
            let _ = write!(detail, "\n  and {unnamed} more");
        }
        Err(Failure::Job { code, detail })
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

impl JobView {
    fn read(value: &Value) -> Result<Self, ClientError> {
        Self::deserialize(value).map_err(|error| ClientError::Unreadable { status: 200, reason: format!("not a job: {error}") })
    }
}

/// The pause before the next request: short at first, for small vaults; then a second; later up to ten, because each request adds an entry
/// to the log.
fn pause(waited: Duration) -> Duration {
    let soon = (waited / 2).clamp(Duration::from_millis(200), Duration::from_secs(1));
    soon.max(waited / 60).min(Duration::from_secs(10))
}

/// Whether waiting can continue after it: the vault is down, restarts, or reports a retryable error.
fn passes(error: &ClientError) -> bool {
    match error.decisive() {
        ClientError::CannotConnect { .. } | ClientError::NoAnswer { .. } => true,
        ClientError::Problem(problem) => problem.retryable,
        // The answers of a proxy in front of a vault that is down.
        ClientError::Unreadable { status, .. } => *status >= 500,
        ClientError::Usage(_) | ClientError::NoneDid(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Problem;

    fn problem(status: u16, retryable: bool) -> ClientError {
        let body = json!({ "code": "c", "retryable": retryable }).to_string();
        ClientError::Problem(Box::new(Problem::decode(status, body.as_bytes()).unwrap()))
    }

    #[test]
    fn the_polling_interval_grows() {
        for (waited, expected) in [(0, 200), (600, 300), (2_000, 1_000), (59_000, 1_000), (300_000, 5_000), (3_600_000, 10_000)] {
            assert_eq!(pause(Duration::from_millis(waited)), Duration::from_millis(expected));
        }
    }

    #[test]
    fn waiting_outlasts_what_passes_and_nothing_else() {
        let (url, reason) = (String::new(), String::new());
        for (error, expected) in [
            (ClientError::CannotConnect { url: url.clone(), reason: reason.clone() }, true),
            (ClientError::NoAnswer { url, reason: reason.clone() }, true),
            (problem(503, true), true),
            (problem(429, true), true),
            (problem(404, false), false),
            (problem(500, false), false),
            (ClientError::Unreadable { status: 502, reason: reason.clone() }, true),
            (ClientError::Unreadable { status: 200, reason }, false),
        ] {
            assert_eq!(passes(&error), expected, "{error}");
        }
    }

    fn ended(state: &str, errors: &Value) -> (&'static str, String) {
        let job = json!({ "id": "job-001122334455", "kind": "rotation", "from": "wk-000000000000", "to": "wk-111111111111", "state": state,
            "total": 30, "done": 27, "failed": 3, "errors": errors, "started_at": "2026-01-31T12:00:00Z", "finished_at": null });
        match ROTATIONS.verdict(&JobView::read(&job).unwrap()) {
            Err(Failure::Job { code, detail }) => (code, detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_that_did_not_succeed_says_why() {
        let errors = json!([{ "key_id": "sym-00112233445566778899aabbccddeeff", "code": "wrapper_denied", "detail": "no" }]);
        let told = "the rotation job-001122334455 failed: 3 of 30 keys could not be done\n  \
                    sym-00112233445566778899aabbccddeeff: wrapper_denied: no\n  and 2 more";
        assert_eq!(ended("failed", &errors), ("job_failed", told.into()));
        let told = "the rotation job-001122334455 was aborted: 27 of 30 keys are done, and stay so";
        assert_eq!(ended("aborted", &json!([])), ("job_aborted", told.into()));
    }
}
