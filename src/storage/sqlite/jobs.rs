//! Jobs over all keys in SQL: which keys a job must process, and the checks of the start, end, re-seal and retirement in their
//! transactions.

use rusqlite::{Connection, Row, ToSql, params, params_from_iter};

use super::{
    CommitError, Coverage, Dependents, KeyRequirement, PageRequest, Positioned, StoreError,
    apply::{active_wrapper_key, execute, exists, update_key},
    error::{corrupt, signed},
    rows::{self, unsigned},
};
use crate::{
    domain::{Job, JobId, JobKind, JobState, KeyId, SealedKey, Timestamp, Work, WrapperKeyId},
    storage::{JobEnd, Reseal, Retirement, WRAPS_AT_ONCE},
};

/// Keys that can meet a requirement: all except destroyed ones.
const ALL: &str = "sealed IS NOT NULL";
/// Where a wrap is looked for: SQLite would choose the unique index, which lacks what [`GOOD_WRAP`] asks for, and read the row of each wrap.
const WRAPS: &str = "wraps INDEXED BY wraps_by_wrapper_key";
/// A wrap of the current generation that is not quarantined.
const GOOD_WRAP: &str =
    "wraps.key = keys.id AND wraps.generation = keys.generation AND wraps.verified_at IS NOT NULL AND wraps.quarantined = 0";
const COLUMNS: &str = "position, id, kind, from_key, to_key, state, total, done, failed, errors, started_at, finished_at";

/// The condition for a key that does not meet the requirement, and its parameter.
fn is_left(wanted: KeyRequirement) -> (String, Box<dyn ToSql>) {
    match wanted {
        KeyRequirement::WrapUnder(wrapper_key) => {
            let sql = format!("{ALL} AND NOT EXISTS (SELECT 1 FROM {WRAPS} WHERE {GOOD_WRAP} AND wraps.wrapper_key = ?1)");
            (sql, Box::new(wrapper_key.to_string()))
        }
        KeyRequirement::SealedSince(then) => (format!("{ALL} AND sealed_at < ?1"), Box::new(then.micros())),
    }
}

/// Keys that do not meet the requirement, in the order of their creation.
pub(super) fn keys_missing(db: &Connection, wanted: KeyRequirement, page: PageRequest) -> Result<Vec<Positioned<KeyId>>, StoreError> {
    let (is_left, about) = is_left(wanted);
    let mut sql = db.prepare_cached(&format!("SELECT position, id FROM keys WHERE {is_left} AND position > ?2 ORDER BY position"))?;
    let mut rows = sql.query(params![about, signed(page.after)?])?;
    let mut keys = Vec::new();
    // No LIMIT, because an omitted row must not make the page look like the last one.
    while keys.len() < page.limit as usize {
        let Some(row) = rows.next()? else { break };
        match row.get::<_, String>(1)?.parse() {
            Ok(item) => keys.push(Positioned { position: unsigned(row.get(0)?)?, item }),
            Err(error) => tracing::error!(%error, "a job skips a key, because its row cannot be read"),
        }
    }
    Ok(keys)
}

fn count(db: &Connection, condition: &str, values: impl rusqlite::Params) -> Result<u64, StoreError> {
    unsigned(db.prepare_cached(&format!("SELECT count(*) FROM keys WHERE {condition}"))?.query_row(values, |row| row.get(0))?)
}

/// How many keys meet a requirement.
pub(super) fn coverage(db: &Connection, wanted: KeyRequirement) -> Result<Coverage, StoreError> {
    let (is_left, about) = is_left(wanted);
    let (total, left) = (count(db, ALL, [])?, count(db, &is_left, [about])?);
    Ok(Coverage { total, done: total.saturating_sub(left) })
}

/// What would be lost if the wraps under a wrapper key were deleted.
pub(super) fn dependents(db: &Connection, wrapper_key: WrapperKeyId, holders: &[WrapperKeyId]) -> Result<Dependents, StoreError> {
    let under = "SELECT count(*), count(DISTINCT key) FROM wraps WHERE wrapper_key = ?1";
    let (wraps, keys) = db.prepare_cached(under)?.query_row([wrapper_key.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let left = not_held(holders);
    let holders = || params_from_iter(holders.iter().map(ToString::to_string));
    let mut sql = db.prepare(&format!("SELECT id FROM keys WHERE {left} ORDER BY position LIMIT {EXAMPLES}"))?;
    let examples = sql.query_map(holders(), |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(Dependents {
        wraps: unsigned(wraps)?,
        keys: unsigned(keys)?,
        left: count(db, &left, holders())?,
        examples: examples.iter().filter_map(|id| id.parse().ok()).collect(),
    })
}

/// The condition for a key without a verified wrap of its generation under this number of holders.
fn not_held(holders: &[WrapperKeyId]) -> String {
    let places = vec!["?"; holders.len()].join(", ");
    format!("{ALL} AND NOT EXISTS (SELECT 1 FROM {WRAPS} WHERE {GOOD_WRAP} AND wraps.wrapper_key IN ({places}))")
}

/// A page of jobs. A running job has its current progress.
pub(super) fn jobs(db: &Connection, kind: JobKind, page: PageRequest) -> Result<Vec<Positioned<Job>>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE kind = ?1 AND position > ?2 ORDER BY position LIMIT ?3");
    let mut sql = db.prepare_cached(&sql)?;
    let mut rows = sql.query(params![kind.as_str(), signed(page.after)?, page.limit])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(Positioned { position: unsigned(row.get("position")?)?, item: with_numbers(db, read(row)?)? });
    }
    Ok(jobs)
}

/// One job. A running job has its current progress.
pub(super) fn job(db: &Connection, id: JobId) -> Result<Option<Job>, StoreError> {
    let found = first(db, &format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"), [id.to_string()])?;
    found.map(|job| with_numbers(db, job)).transpose()
}

/// The running job, without its progress.
pub(super) fn running(db: &Connection) -> Result<Option<Job>, StoreError> {
    first(db, &format!("SELECT {COLUMNS} FROM jobs WHERE state = 'running'"), [])
}

fn first(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Option<Job>, StoreError> {
    let mut sql = db.prepare_cached(sql)?;
    let mut rows = sql.query(values)?;
    rows.next()?.map(read).transpose()
}

fn with_numbers(db: &Connection, mut job: Job) -> Result<Job, StoreError> {
    if job.state == JobState::Running {
        Coverage { total: job.total, done: job.done } = coverage(db, KeyRequirement::by(job.work, job.started_at))?;
    }
    Ok(job)
}

fn read(row: &Row<'_>) -> Result<Job, StoreError> {
    let unreadable = |what: &dyn std::fmt::Display| corrupt("jobs", what);
    let text = |column: &str| row.get::<_, String>(column);
    let wrapper_key = |column: &str| -> Result<WrapperKeyId, StoreError> { text(column)?.parse().map_err(|error| unreadable(&error)) };
    let number = |column: &str| unsigned(row.get(column)?);
    Ok(Job {
        id: text("id")?.parse().map_err(|error| unreadable(&error))?,
        work: match text("kind")?.parse().map_err(|error| unreadable(&error))? {
            JobKind::Rotation => Work::Rotation { from: wrapper_key("from_key")?, to: wrapper_key("to_key")? },
            JobKind::Reseal => Work::Reseal,
        },
        state: text("state")?.parse().map_err(|error| unreadable(&error))?,
        total: number("total")?,
        done: number("done")?,
        failed: number("failed")?,
        errors: serde_json::from_str(&text("errors")?).map_err(|error| unreadable(&error))?,
        started_at: Timestamp::from_micros(row.get("started_at")?),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(Timestamp::from_micros),
    })
}

/// Starts a job. A rotation also makes another wrapper key active.
pub(super) fn start(db: &Connection, job: &Job) -> Result<(), CommitError> {
    if running(db)?.is_some() {
        return Err(CommitError::JobRunning);
    }
    let (mut from_key, mut to_key) = (None, None);
    if let Work::Rotation { from, to } = job.work {
        let (from, to) = (from.to_string(), to.to_string());
        let active = active_wrapper_key(db)?;
        // A rotation to the active wrapper key processes the keys that an earlier rotation left.
        if active.as_ref() != Some(&to) {
            if active.as_ref() != Some(&from) {
                return Err(CommitError::ActiveWrapperChanged);
            }
            execute(db, "UPDATE wrapper_keys SET state = 'draining' WHERE id = ?1", [&from])?;
            let sql = "UPDATE wrapper_keys SET state = 'active' WHERE id = ?1 AND state IN ('standby', 'draining', 'retiring')";
            if execute(db, sql, [&to])? == 0 {
                return Err(CommitError::WrapperKeyNotFilled);
            }
        }
        (from_key, to_key) = (Some(from), Some(to));
    }
    let sql = "INSERT INTO jobs (id, kind, from_key, to_key, started_at, state, total, done, failed, errors)
               VALUES (?1, ?2, ?3, ?4, ?5, 'running', 0, 0, 0, '[]')";
    execute(db, sql, params![job.id.to_string(), job.work.kind().as_str(), from_key, to_key, job.started_at.micros()])?;
    Ok(())
}

/// Ends a job with its progress. A success requires that no key is left.
pub(super) fn end(db: &Connection, end: &JobEnd) -> Result<(), CommitError> {
    let JobEnd { id, state, errors, at } = end;
    let Some(job) = running(db)?.filter(|job| job.id == *id) else { return Err(CommitError::LostRace) };
    let wanted = KeyRequirement::by(job.work, job.started_at);
    let found = coverage(db, wanted)?;
    let (Coverage { total, done }, left) = (found, found.left());
    if *state == JobState::Succeeded && left > 0 {
        return Err(CommitError::KeysLeft(left));
    }
    let (is_left, about) = is_left(wanted);
    let is_left = format!("SELECT 1 FROM keys WHERE {is_left} AND keys.id = ?2");
    let mut failures = Vec::new();
    for error in errors {
        // A key that another operation completed meanwhile is not a failure.
        if exists(db, &is_left, params![about, error.key_id.to_string()])? {
            failures.push(error);
        }
    }
    let failed = if *state == JobState::Failed { left } else { failures.len() as u64 };
    failures.truncate(Job::TOLD);
    let errors = serde_json::to_string(&failures).map_err(|error| StoreError::Failed(error.to_string()))?;
    let sql = "UPDATE jobs SET state = ?2, total = ?3, done = ?4, failed = ?5, errors = ?6, finished_at = ?7 WHERE id = ?1";
    execute(db, sql, params![id.to_string(), state.as_str(), signed(total)?, signed(done)?, signed(failed)?, errors, at.micros()])?;
    Ok(())
}

/// Stores new sealed bytes, a new row tag and a new first wrap. The wraps of the previous generation are deleted in the same transaction.
pub(super) fn reseal(db: &Connection, reseal: &Reseal) -> Result<(), CommitError> {
    let Reseal { update, sealed, sealed_at, wrap } = reseal;
    let id = update.key.to_string();
    if active_wrapper_key(db)? != Some(wrap.wrapper_key.to_string()) {
        return Err(CommitError::ActiveWrapperChanged);
    }
    update_key(db, update)?;
    let sql = "UPDATE keys SET generation = ?2, sealed = ?3, sealed_at = ?4 WHERE id = ?1 AND generation = ?2 - 1 AND sealed IS NOT NULL";
    if execute(db, sql, params![id, wrap.generation, SealedKey::as_bytes(sealed), sealed_at.micros()])? == 0 {
        return Err(CommitError::LostRace);
    }
    execute(db, "DELETE FROM wraps WHERE key = ?1", [&id])?;
    Ok(rows::insert_wrap(db, &id, wrap)?)
}

/// The way back from a rotation is its former wrapper key, so that none is retired before it ends.
fn no_rotation(db: &Connection) -> Result<(), CommitError> {
    match running(db)? {
        Some(Job { work: Work::Rotation { .. }, .. }) => Err(CommitError::JobRunning),
        _ => Ok(()),
    }
}

/// From standby or draining to retiring.
pub(super) fn begin_retirement(db: &Connection, wrapper_key: WrapperKeyId) -> Result<(), CommitError> {
    no_rotation(db)?;
    let sql = "UPDATE wrapper_keys SET state = 'retiring' WHERE id = ?1 AND state IN ('standby', 'draining')";
    if execute(db, sql, [wrapper_key.to_string()])? == 0 { Err(CommitError::LostRace) } else { Ok(()) }
}

/// Makes a retiring wrapper key a retired one and deletes the first wraps under it, if every key has a verified wrap under another one.
pub(super) fn retire(db: &Connection, retirement: &Retirement) -> Result<(), CommitError> {
    no_rotation(db)?;
    let Retirement { wrapper_key, holders, wraps } = retirement;
    let id = wrapper_key.to_string();
    if holders.contains(wrapper_key) || !exists(db, "SELECT 1 FROM wrapper_keys WHERE id = ?1 AND state = 'retiring'", [&id])? {
        return Err(CommitError::LostRace);
    }
    // A wrapper key that is itself being retired does not count.
    let lasting = "SELECT id FROM wrapper_keys WHERE state IN ('active', 'standby', 'draining')";
    let lasting = db.prepare_cached(lasting).and_then(|mut sql| sql.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>());
    let lasting = lasting.map_err(StoreError::from)?;
    if !holders.iter().all(|holder| lasting.contains(&holder.to_string())) {
        return Err(CommitError::LostRace);
    }
    let left = count(db, &not_held(holders), params_from_iter(holders.iter().map(ToString::to_string)))?;
    if left > 0 {
        return Err(CommitError::KeysLeft(left));
    }
    if wraps_under(db, &id)? != *wraps {
        return Err(CommitError::LostRace);
    }
    delete_wraps(db, &id)?;
    execute(db, "UPDATE wrapper_keys SET state = 'retired' WHERE id = ?1", [&id])?;
    Ok(())
}

fn wraps_under(db: &Connection, wrapper_key: &str) -> Result<u64, StoreError> {
    unsigned(db.prepare_cached("SELECT count(*) FROM wraps WHERE wrapper_key = ?1")?.query_row([wrapper_key], |row| row.get(0))?)
}

/// Deletes the first wraps under a wrapper key.
fn delete_wraps(db: &Connection, wrapper_key: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM wraps WHERE position IN (SELECT position FROM wraps WHERE wrapper_key = ?1 LIMIT ?2)";
    execute(db, sql, params![wrapper_key, WRAPS_AT_ONCE]).map(drop)
}

/// The first of these wrapper keys with a wrap under it.
pub(super) fn first_with_wraps(db: &Connection, wrapper_keys: &[WrapperKeyId]) -> Result<Option<WrapperKeyId>, StoreError> {
    let mut sql = db.prepare_cached("SELECT 1 FROM wraps WHERE wrapper_key = ?1 LIMIT 1")?;
    for id in wrapper_keys {
        if sql.exists([id.to_string()])? {
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// Deletes the first wraps under a retired wrapper key.
pub(super) fn delete_retired_wraps(db: &Connection, wrapper_key: WrapperKeyId) -> Result<(), StoreError> {
    delete_wraps(db, &wrapper_key.to_string())
}

/// Maximum number of keys that are named.
const EXAMPLES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sqlite::open::migrated_in_memory;

    /// How SQLite runs a count of the keys for which this holds.
    fn plan(db: &Connection, condition: &str, values: impl rusqlite::Params) -> Vec<String> {
        let mut sql = db.prepare(&format!("EXPLAIN QUERY PLAN SELECT count(*) FROM keys WHERE {condition}")).unwrap();
        sql.query_map(values, |row| row.get("detail")).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_count_over_all_keys_reads_indexes_alone() {
        let db = migrated_in_memory();
        let wrapper_key = WrapperKeyId::from_random([1; 6]);
        let (covered, covered_by) = is_left(KeyRequirement::WrapUnder(wrapper_key));
        let (resealed, resealed_by) = is_left(KeyRequirement::SealedSince(Timestamp::from_micros(1)));
        let plans = [
            plan(&db, ALL, []),
            plan(&db, &covered, [covered_by]),
            plan(&db, &resealed, [resealed_by]),
            plan(&db, &not_held(&[wrapper_key, WrapperKeyId::from_random([2; 6])]), ["1", "2"]),
        ];
        for plan in plans {
            assert!(plan.iter().any(|step| step.starts_with("SCAN keys USING") && step.ends_with("INDEX keys_present")), "{plan:?}");
            let wraps: Vec<_> = plan.iter().filter(|step| step.contains("wraps")).collect();
            assert!(wraps.iter().all(|step| step.contains("USING COVERING INDEX wraps_by_wrapper_key")), "{wraps:?}");
        }
    }
}
