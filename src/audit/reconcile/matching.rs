//! Explains each call of a KMS by an entry of the audit log, a job, or the report of a command; what is left has another caller. And the reverse: which
//! call of an entry the KMS does not have.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    audit::Entry,
    domain::{JobId, KeyId, Operation, Outcome, Timestamp},
};

use super::{
    call::{ActionKind, KmsCall},
    calls::CallSet,
    outcome::{By, MissingCall, Period, Reconciled, Report, WeakerCall},
    weaker::{Attempts, LOOSE, Made, later},
    wrapper_keys::WrapperKeySet,
};

/// Attempts without a request id that are kept.
const MAX_ATTEMPTS: usize = 100_000;
/// Seconds that CloudTrail needs to deliver a record.
const DELIVERY: i64 = 900;
/// Seconds around the end of a process without an entry of its stop.
const AROUND_CRASH: i64 = 60;

/// A comparison in progress: first all calls, then the reports, then the entries in their order.
#[derive(Debug)]
pub struct Reconciliation {
    calls: CallSet,
    period: Option<(Timestamp, Timestamp)>,
    /// After this time, a record may not be delivered yet.
    delivered: Option<Timestamp>,
    vault: String,
    attempts: Vec<Attempts>,
    /// Those at the time of the call that is looked at.
    at_this_time: Vec<Attempts>,
    reports: Vec<String>,
    jobs: BTreeMap<JobId, (String, u64)>,
    /// Between these times a process ended without an entry of its stop; with the entry of the next start.
    crashes: Vec<(Timestamp, Timestamp, u64)>,
    last: Option<(Operation, Timestamp)>,
    /// Up to here, every call that gets an entry has one.
    complete: Option<Timestamp>,
    result: Reconciled,
}

impl Reconciliation {
    /// Begins with the calls of the files.
    pub fn new(calls: CallSet, period: Period, keys: &WrapperKeySet, (cloudtrail, openbao): (bool, bool)) -> Self {
        let times = calls.times;
        let from = period.from.or(times.map(|(first, _)| first));
        let to = period.to.or(times.map(|(_, last)| last));
        let delivered = period.to.or(times.map(|(_, last)| later(last, -DELIVERY)));
        let result = Reconciled {
            period: from.zip(to),
            calls: calls.slots.len() as u64,
            other_keys: calls.other_keys,
            duplicates: calls.duplicates,
            all_kms: (cloudtrail || !keys.has_aws()) && (openbao || !keys.has_openbao()) && !keys.has_unread(),
            ..Reconciled::default()
        };
        Self {
            calls,
            period: from.zip(to),
            delivered,
            vault: String::new(),
            attempts: Vec::new(),
            at_this_time: Vec::new(),
            reports: Vec::new(),
            jobs: BTreeMap::new(),
            crashes: Vec::new(),
            last: None,
            complete: None,
            result,
        }
    }

    /// The period of the files. `None` if they have no call and it was not given.
    pub const fn period(&self) -> Option<(Timestamp, Timestamp)> {
        self.period
    }

    /// The jobs with calls whose start is not among the entries.
    pub fn jobs_without_start(&self) -> BTreeSet<JobId> {
        let jobs = self.calls.slots.iter().filter_map(|slot| match slot.by {
            Some(By::Job(job, _)) => Some(job),
            _ => None,
        });
        jobs.filter(|job| !self.jobs.contains_key(job)).collect()
    }

    /// Every entry of a call before this time is among those that follow.
    pub fn entries_until(&mut self, at: Timestamp) {
        self.complete = self.complete.max(Some(later(at, -LOOSE)));
    }

    /// Adds the report of a command.
    pub fn report(&mut self, report: Report) {
        let by = By::Report(self.reports.len());
        for id in &report.kms_request_ids {
            self.explain(id, by, (report.started_at, Made::Between(report.started_at, report.finished_at)), None, &BTreeSet::new());
        }
        self.reports.push(report.name);
    }

    /// Adds the principal of a job that started before the entries that follow.
    pub fn job(&mut self, entry: &Entry) {
        if matches!(entry.operation, Operation::StartRotation | Operation::StartReseal)
            && let Some(job) = job_in(entry)
        {
            self.jobs.entry(job).or_insert((entry.principal.clone(), entry.sequence));
        }
    }

    /// Adds the next entry.
    pub fn entry(&mut self, entry: &Entry) {
        self.result.entries += 1;
        if self.vault.is_empty() {
            self.vault.clone_from(&entry.vault);
        }
        self.job(entry);
        self.process(entry);
        let is_loose = entry.operation == Operation::RecordKmsCalls;
        let made = if is_loose { Made::Before(entry.at) } else { Made::Since(entry.at) };
        let by = match job_in(entry) {
            Some(job) => By::Job(job, entry.sequence),
            None if is_loose => By::Probe(entry.sequence),
            None => By::Entry(entry.sequence),
        };
        let keys = keys_in(entry);
        for id in &entry.kms_request_ids {
            self.explain(id, by, (entry.at, made), Some(entry), &keys);
        }
    }

    /// Follows the starts and stops of the process.
    fn process(&mut self, entry: &Entry) {
        if entry.operation == Operation::Start
            && let Some((before, at)) = self.last
            && before != Operation::Stop
        {
            self.crashes.push((later(at, -LOOSE), later(entry.at, AROUND_CRASH), entry.sequence));
        }
        if matches!(entry.operation, Operation::Start | Operation::Stop) {
            self.complete = self.complete.max(Some(entry.at));
        }
        // After its stop, a process only makes the last checkpoint and sends the last entries.
        if entry.operation == Operation::Start || self.last.is_none_or(|(before, _)| before != Operation::Stop) {
            self.last = Some((entry.operation, entry.at));
        }
        self.complete = self.complete.max(Some(later(entry.at, -LOOSE)));
    }

    /// One request id of an entry or report.
    fn explain(&mut self, id: &str, by: By, (at, made): (Timestamp, Made), entry: Option<&Entry>, keys: &BTreeSet<KeyId>) {
        if let Some(attempts) = Attempts::read(id, by, made, keys.clone()) {
            if self.attempts.len() < MAX_ATTEMPTS {
                self.attempts.push(attempts);
            }
            return;
        }
        let places = self.calls.places(id);
        if places.is_empty() {
            if !self.calls.has_other(id) {
                self.missing(id, by, (at, made), entry);
            }
            return;
        }
        for place in places {
            let Some(slot) = self.calls.slots.get_mut(place).filter(|slot| slot.by.is_none()) else { continue };
            let vault = slot.call.context_value("vault");
            let other_key = slot.call.key_id().is_some_and(|key| !keys.is_empty() && !keys.contains(&key));
            if other_key || entry.zip(vault).is_some_and(|(entry, vault)| entry.vault != vault) {
                self.result.other_context.push(WeakerCall { call: slot.call.clone(), by });
            }
            // What is no canary is an operation of the vault itself, such as the refresh of an open key.
            slot.by = Some(match by {
                By::Probe(sequence) if !slot.call.is_canary_of(&self.vault) && slot.call.context.is_some() => By::Entry(sequence),
                by => by,
            });
        }
    }

    fn missing(&mut self, id: &str, by: By, (at, made): (Timestamp, Made), entry: Option<&Entry>) {
        let (earliest, latest) = match made {
            Made::Since(at) => (at, at),
            Made::Before(at) => (later(at, -LOOSE), at),
            Made::Between(from, to) => (from, to),
        };
        let Some((from, to)) = self.period else {
            self.result.outside += 1;
            return;
        };
        let call = MissingCall { request_id: id.to_owned(), by, at, operation: entry.map(|entry| entry.operation) };
        if earliest < from || earliest > to {
            self.result.outside += 1;
        } else if self.delivered.is_none_or(|delivered| latest >= delivered) {
            self.result.not_delivered.push(call);
        } else if entry.is_some_and(|entry| entry.outcome != Outcome::Ok && entry.outcome != Outcome::Intent) {
            self.result.missing_failed.push(call);
        } else {
            self.result.missing.push(call);
        }
    }

    /// The result, after the last entry.
    pub fn finish(mut self) -> Reconciled {
        let identities: BTreeSet<String> =
            self.calls.slots.iter().filter(|slot| slot.by.is_some()).map(|slot| slot.call.identity().to_owned()).collect();
        let mut result = std::mem::take(&mut self.result);
        result.by_report = self.reports.iter().map(|name| (name.clone(), 0)).collect();
        let mut slots = std::mem::take(&mut self.calls.slots);
        slots.sort_by_key(|slot| slot.call.at);
        // The first one is taken from the end.
        self.attempts.sort_by_key(|attempts| std::cmp::Reverse(attempts.from));
        for slot in slots {
            match slot.by {
                Some(by) => count(&mut result, by),
                None => self.leftover(&mut result, &identities, slot.call),
            }
        }
        for (job, calls) in &mut result.by_job {
            calls.started = self.jobs.remove(job);
        }
        result
    }

    /// What may have made a call without a known request id. Calls come in the order of their time, so that only a few attempts are compared with each.
    fn attempt(&mut self, call: &KmsCall, known: bool) -> Option<By> {
        while let Some(attempts) = self.attempts.pop_if(|next| next.from <= call.at) {
            self.at_this_time.push(attempts);
        }
        self.at_this_time.retain(|attempts| attempts.left() > 0 && attempts.to >= call.at);
        let mut may = self.at_this_time.iter_mut().filter(|attempts| known || !attempts.known_identity);
        may.find_map(|attempts| attempts.take(call).then_some(attempts.by))
    }

    /// A call whose request id no entry has.
    fn leftover(&mut self, result: &mut Reconciled, identities: &BTreeSet<String>, call: KmsCall) {
        let known = identities.contains(call.identity());
        if let Some(by) = self.attempt(&call, known) {
            return result.weaker.push(WeakerCall { call, by });
        }
        let crash = self.crashes.iter().find(|(from, to, _)| (*from..=*to).contains(&call.at)).map(|(_, _, sequence)| *sequence);
        let of_vault = call.context.is_none() || call.context_value("vault") == Some(&self.vault);
        match (crash, call.kind) {
            (_, ActionKind::Change) => result.changes.push(call),
            (Some(sequence), _) if known && of_vault => result.weaker.push(WeakerCall { call, by: By::Crash(sequence) }),
            (_, ActionKind::Read) => result.reads.push(call),
            _ if self.complete.is_none_or(|complete| latest(&call) > complete) => result.too_new.push(call),
            _ if call.is_canary_of(&self.vault) => result.canaries.push(call),
            _ => result.unknown.push(call),
        }
    }
}

/// Counts a call that something explains.
fn count(result: &mut Reconciled, by: By) {
    match by {
        By::Entry(_) | By::Crash(_) => result.by_entry += 1,
        By::Probe(_) => result.by_probe += 1,
        By::Job(job, _) => result.by_job.entry(job).or_default().calls += 1,
        By::Report(index) => {
            if let Some((_, calls)) = result.by_report.get_mut(index) {
                *calls += 1;
            }
        }
    }
}

/// The latest time of a call. CloudTrail has whole seconds.
fn latest(call: &KmsCall) -> Timestamp {
    if call.at.micros().rem_euclid(1_000_000) == 0 { later(call.at, 1) } else { call.at }
}

/// The job that an entry names.
fn job_in(entry: &Entry) -> Option<JobId> {
    words(entry).find_map(|word| word.parse().ok())
}

/// The keys that an entry is about.
fn keys_in(entry: &Entry) -> BTreeSet<KeyId> {
    let named = words(entry).filter_map(|word| word.parse().ok());
    let keys: BTreeSet<KeyId> = entry.key_id.into_iter().chain(entry.successor).collect();
    // Without a key of its own, an entry is about no key in particular.
    if keys.is_empty() { keys } else { keys.into_iter().chain(named).collect() }
}

fn words(entry: &Entry) -> impl Iterator<Item = &str> {
    let subject = entry.subject.as_deref().unwrap_or_default();
    subject.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
}

#[cfg(test)]
mod tests;
