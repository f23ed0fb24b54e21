//! Jobs over all keys in SQL: which keys a job must process, and the checks of the start, end, re-seal and retirement in their
//! transactions.

use tokio_postgres::Row;

use super::{
    CommitError, Coverage, Dependents, KeyRequirement, PageRequest, Positioned, StoreError,
    apply::{active_wrapper_key, update_key},
    connect::{Db, execute, exists, number, optional, rows},
    error::{corrupt, signed, unsigned},
    rows::{Columns, insert_wrap},
};
use crate::{
    domain::{Job, JobId, JobKind, JobState, KeyId, SealedKey, Timestamp, Work, WrapperKeyId},
    storage::{JobEnd, Reseal, Retirement, WRAPS_AT_ONCE},
};

/// Keys that can meet a requirement: all except destroyed ones.
const ALL: &str = "sealed IS NOT NULL";
/// A wrap of the current generation that is not quarantined.
const GOOD_WRAP: &str =
    "wraps.key = keys.id AND wraps.generation = keys.generation AND wraps.verified_at IS NOT NULL AND NOT wraps.quarantined";
const COLUMNS: &str = "position, id, kind, from_key, to_key, state, total, done, failed, errors, started_at, finished_at";

/// The condition for a key that does not meet the requirement: `$1` is the wrapper key, `$2` a time.
fn is_left(wanted: KeyRequirement) -> (String, String, i64) {
    let unused = "$1::text IS NOT NULL AND $2::bigint IS NOT NULL";
    match wanted {
        KeyRequirement::WrapUnder(wrapper_key) => {
            let sql = format!("{unused} AND {ALL} AND NOT EXISTS (SELECT 1 FROM wraps WHERE {GOOD_WRAP} AND wraps.wrapper_key = $1)");
            (sql, wrapper_key.to_string(), 0)
        }
        KeyRequirement::SealedSince(then) => (format!("{unused} AND {ALL} AND sealed_at < $2"), String::new(), then.micros()),
    }
}

/// Keys that do not meet the requirement, in the order of their creation.
pub(super) async fn keys_missing(db: &Db, wanted: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError> {
    let (is_left, wrapper_key, time) = is_left(wanted);
    let sql = format!("SELECT position, id FROM keys WHERE {is_left} AND position > $3 ORDER BY position LIMIT $4");
    let (mut after, mut keys) = (signed(page.after)?, Vec::new());
    let limit = page.limit as usize;
    // An omitted row must not make the page look like the last one.
    while keys.len() < limit {
        let missing = i64::try_from(limit - keys.len()).unwrap_or(i64::MAX);
        let found = rows(db, &sql, &[&wrapper_key, &time, &after, &missing]).await?;
        let Some(last) = found.last() else { break };
        after = last.try_get(0)?;
        for row in &found {
            match row.try_get::<_, &str>(1)?.parse() {
                Ok(item) => keys.push(Positioned { position: unsigned(row.try_get(0)?)?, item }),
                Err(error) => tracing::error!(%error, "a job skips a key, because its row cannot be read"),
            }
        }
    }
    Ok(keys)
}

/// How many keys meet a requirement.
pub(super) async fn coverage(db: &Db, wanted: KeyRequirement) -> Result<Coverage, StoreError> {
    let (is_left, wrapper_key, time) = is_left(wanted);
    let sql = format!("SELECT (SELECT count(*) FROM keys WHERE {ALL}), (SELECT count(*) FROM keys WHERE {is_left})");
    let row = optional(db, &sql, &[&wrapper_key, &time]).await?.ok_or_else(|| corrupt("keys", "a count has no answer"))?;
    let (total, left) = (unsigned(row.try_get(0)?)?, unsigned(row.try_get(1)?)?);
    Ok(Coverage { total, done: total.saturating_sub(left) })
}

/// The condition for a key without a verified wrap of its generation under the wrapper keys `$1`.
fn not_held() -> String {
    format!("{ALL} AND NOT EXISTS (SELECT 1 FROM wraps WHERE {GOOD_WRAP} AND wraps.wrapper_key = ANY($1::text[]))")
}

fn texts(ids: &[WrapperKeyId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// What would be lost if the wraps under a wrapper key were deleted.
pub(super) async fn dependents(db: &Db, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError> {
    let (under, holders, left) = (wrapper_key.to_string(), texts(holders), not_held());
    let wraps = number(db, "SELECT count(*) FROM wraps WHERE wrapper_key = $1", &[&under]).await?;
    let keys = number(db, "SELECT count(DISTINCT key) FROM wraps WHERE wrapper_key = $1", &[&under]).await?;
    let examples = rows(db, &format!("SELECT id FROM keys WHERE {left} ORDER BY position LIMIT {EXAMPLES}"), &[&holders]).await?;
    let examples = examples.iter().filter_map(|row| row.try_get::<_, &str>(0).ok()?.parse().ok()).collect();
    Ok(Dependents { wraps, keys, left: number(db, &format!("SELECT count(*) FROM keys WHERE {left}"), &[&holders]).await?, examples })
}

/// A page of jobs. A running job has its current progress.
pub(super) async fn jobs(db: &Db, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE kind = $1 AND position > $2 ORDER BY position LIMIT $3");
    let mut jobs = Vec::new();
    for row in rows(db, &sql, &[&kind.as_str(), &signed(page.after)?, &i64::from(page.limit)]).await? {
        jobs.push(Positioned { position: unsigned(row.try_get("position")?)?, item: with_numbers(db, read(&row)?).await? });
    }
    Ok(jobs)
}

/// One job. A running job has its current progress.
pub(super) async fn job(db: &Db, id: JobId) -> Result<Option<Job>, StoreError> {
    match optional(db, &format!("SELECT {COLUMNS} FROM jobs WHERE id = $1"), &[&id.to_string()]).await? {
        Some(row) => with_numbers(db, read(&row)?).await.map(Some),
        None => Ok(None),
    }
}

/// The running job, without its progress.
pub(super) async fn running(db: &Db) -> Result<Option<Job>, StoreError> {
    optional(db, &format!("SELECT {COLUMNS} FROM jobs WHERE state = 'running'"), &[]).await?.map(|row| read(&row)).transpose()
}

async fn with_numbers(db: &Db, mut job: Job) -> Result<Job, StoreError> {
    if job.state == JobState::Running {
        Coverage { total: job.total, done: job.done } = coverage(db, KeyRequirement::by(job.work, job.started_at)).await?;
    }
    Ok(job)
}

fn read(row: &Row) -> Result<Job, StoreError> {
    let columns = Columns::of("jobs", row);
    Ok(Job {
        id: columns.text("id")?,
        work: match columns.text("kind")? {
            JobKind::Rotation => Work::Rotation { from: columns.text("from_key")?, to: columns.text("to_key")? },
            JobKind::Reseal => Work::Reseal,
        },
        state: columns.text("state")?,
        total: columns.number("total")?,
        done: columns.number("done")?,
        failed: columns.number("failed")?,
        errors: serde_json::from_str(columns.value("errors")?).map_err(|error| columns.corrupt("errors", &error))?,
        started_at: columns.time("started_at")?,
        finished_at: columns.value::<Option<i64>>("finished_at")?.map(Timestamp::from_micros),
    })
}

/// Starts a job. A rotation also makes another wrapper key active.
pub(super) async fn start(db: &Db, job: &Job) -> Result<(), CommitError> {
    if running(db).await?.is_some() {
        return Err(CommitError::JobRunning);
    }
    let (mut from_key, mut to_key) = (None, None);
    if let Work::Rotation { from, to } = job.work {
        let (from, to) = (from.to_string(), to.to_string());
        let active = active_wrapper_key(db).await?;
        // A rotation to the active wrapper key processes the keys that an earlier rotation left.
        if active.as_ref() != Some(&to) {
            if active.as_ref() != Some(&from) {
                return Err(CommitError::ActiveWrapperChanged);
            }
            execute(db, "UPDATE wrapper_keys SET state = 'draining' WHERE id = $1", &[&from]).await?;
            let sql = "UPDATE wrapper_keys SET state = 'active' WHERE id = $1 AND state IN ('standby', 'draining', 'retiring')";
            if execute(db, sql, &[&to]).await? == 0 {
                return Err(CommitError::WrapperKeyNotFilled);
            }
        }
        (from_key, to_key) = (Some(from), Some(to));
    }
    let sql = "INSERT INTO jobs (id, kind, from_key, to_key, started_at, state, total, done, failed, errors)
               VALUES ($1, $2, $3, $4, $5, 'running', 0, 0, 0, '[]')";
    execute(db, sql, &[&job.id.to_string(), &job.work.kind().as_str(), &from_key, &to_key, &job.started_at.micros()]).await?;
    Ok(())
}

/// Ends a job with its progress. A success requires that no key is left.
pub(super) async fn end(db: &Db, end: &JobEnd) -> Result<(), CommitError> {
    let JobEnd { id, state, errors, at } = end;
    let Some(job) = running(db).await?.filter(|job| job.id == *id) else { return Err(CommitError::LostRace) };
    let wanted = KeyRequirement::by(job.work, job.started_at);
    let found = coverage(db, wanted).await?;
    let (Coverage { total, done }, left) = (found, found.left());
    if *state == JobState::Succeeded && left > 0 {
        return Err(CommitError::KeysLeft(left));
    }
    let (is_left, wrapper_key, time) = is_left(wanted);
    let is_left = format!("SELECT 1 FROM keys WHERE {is_left} AND keys.id = $3");
    let mut failures = Vec::new();
    for error in errors {
        // A key that another operation completed meanwhile is not a failure.
        if exists(db, &is_left, &[&wrapper_key, &time, &error.key_id.to_string()]).await? {
            failures.push(error);
        }
    }
    let failed = if *state == JobState::Failed { left } else { failures.len() as u64 };
    failures.truncate(Job::TOLD);
    let errors = serde_json::to_string(&failures).map_err(|error| StoreError::Failed(error.to_string()))?;
    let sql = "UPDATE jobs SET state = $2, total = $3, done = $4, failed = $5, errors = $6, finished_at = $7 WHERE id = $1";
    let (total, done, failed) = (signed(total)?, signed(done)?, signed(failed)?);
    execute(db, sql, &[&id.to_string(), &state.as_str(), &total, &done, &failed, &errors, &at.micros()]).await?;
    Ok(())
}

/// Stores new sealed bytes, a new row tag and a new first wrap. The wraps of the previous generation are deleted in the same transaction.
pub(super) async fn reseal(db: &Db, reseal: &Reseal) -> Result<(), CommitError> {
    let Reseal { update, sealed, sealed_at, wrap } = reseal;
    let id = update.key.to_string();
    if active_wrapper_key(db).await? != Some(wrap.wrapper_key.to_string()) {
        return Err(CommitError::ActiveWrapperChanged);
    }
    update_key(db, update).await?;
    let sql = "UPDATE keys SET generation = $2::bigint, sealed = $3, sealed_at = $4 WHERE id = $1 AND generation = $2::bigint - 1 AND sealed IS NOT NULL";
    let values: super::connect::Values<'_> = &[&id, &i64::from(wrap.generation), &SealedKey::as_bytes(sealed), &sealed_at.micros()];
    if execute(db, sql, values).await? == 0 {
        return Err(CommitError::LostRace);
    }
    execute(db, "DELETE FROM wraps WHERE key = $1", &[&id]).await?;
    Ok(insert_wrap(db, &id, wrap).await?)
}

/// The way back from a rotation is its former wrapper key, so that none is retired before it ends.
async fn no_rotation(db: &Db) -> Result<(), CommitError> {
    match running(db).await? {
        Some(Job { work: Work::Rotation { .. }, .. }) => Err(CommitError::JobRunning),
        _ => Ok(()),
    }
}

/// From standby or draining to retiring.
pub(super) async fn begin_retirement(db: &Db, wrapper_key: WrapperKeyId) -> Result<(), CommitError> {
    no_rotation(db).await?;
    let sql = "UPDATE wrapper_keys SET state = 'retiring' WHERE id = $1 AND state IN ('standby', 'draining')";
    if execute(db, sql, &[&wrapper_key.to_string()]).await? == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}

/// Makes a retiring wrapper key a retired one and deletes the first wraps under it, if every key has a verified wrap under another one.
pub(super) async fn retire(db: &Db, retirement: &Retirement) -> Result<(), CommitError> {
    no_rotation(db).await?;
    let Retirement { wrapper_key, holders, wraps } = retirement;
    let id = wrapper_key.to_string();
    if holders.contains(wrapper_key) || !exists(db, "SELECT 1 FROM wrapper_keys WHERE id = $1 AND state = 'retiring'", &[&id]).await? {
        return Err(CommitError::LostRace);
    }
    // A wrapper key that is itself being retired does not count.
    let lasting = rows(db, "SELECT id FROM wrapper_keys WHERE state IN ('active', 'standby', 'draining')", &[]).await?;
    let lasting: Vec<&str> = lasting.iter().filter_map(|row| row.try_get(0).ok()).collect();
    let holders = texts(holders);
    if !holders.iter().all(|holder| lasting.contains(&holder.as_str())) {
        return Err(CommitError::LostRace);
    }
    let left = number(db, &format!("SELECT count(*) FROM keys WHERE {}", not_held()), &[&holders]).await?;
    if left > 0 {
        return Err(CommitError::KeysLeft(left));
    }
    if number(db, "SELECT count(*) FROM wraps WHERE wrapper_key = $1", &[&id]).await? != *wraps {
        return Err(CommitError::LostRace);
    }
    delete_retired_wraps(db, std::slice::from_ref(wrapper_key)).await?;
    execute(db, "UPDATE wrapper_keys SET state = 'retired' WHERE id = $1", &[&id]).await?;
    Ok(())
}

/// Deletes the first wraps under retired wrapper keys. Returns whether there were any.
pub(super) async fn delete_retired_wraps(db: &Db, wrapper_keys: &[WrapperKeyId]) -> Result<bool, StoreError> {
    let sql = "DELETE FROM wraps WHERE position IN (SELECT position FROM wraps WHERE wrapper_key = ANY($1::text[]) LIMIT $2)";
    Ok(execute(db, sql, &[&texts(wrapper_keys), &i64::from(WRAPS_AT_ONCE)]).await? > 0)
}

/// Maximum number of keys that are named.
const EXAMPLES: u32 = 10;
