//! The result of a comparison: numbers first, then each list that is not empty. The exit code says whether everything is explained.

use std::io::Write as _;

use serde_json::{Value, json, value::RawValue};

use crate::{
    audit::reconcile::{By, KmsCall, Listed, MissingCall, Reconciled, WeakerCall},
    cli::{
        Failure, Format,
        output::{ListPrinter, print_to, printable},
        table::{Column, column},
    },
};

/// The columns of calls, and of those that something explains. They are evidence: no value is shortened at any width of the output.
const CALL: &[Column] = &[
    column("at"),
    column("action"),
    column("place"),
    column("principal"),
    column("source"),
    column("key"),
    column("error"),
    column("about"),
];
const EXPLAINED: &[Column] = &[
    column("by"),
    column("at"),
    column("action"),
    column("place"),
    column("principal"),
    column("source"),
    column("key"),
    column("error"),
    column("about"),
];
/// The columns of calls that are not in the files.
const MISSING: &[Column] = &[column("at"), column("request_id"), column("by"), column("operation")];

/// Prints the result.
///
/// # Errors
/// [`Failure::NotReconciled`], after the result was printed.
pub(super) fn report(found: &Reconciled, wrapper_keys: usize, format: Format) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => print_to(&mut out, format, &document(found, wrapper_keys))?,
        Format::Text => {
            for line in summary(found, wrapper_keys) {
                writeln!(out, "{}", printable(&line))?;
            }
            for (title, columns, items) in sections(found) {
                writeln!(out, "\n{title}")?;
                let raw: Vec<Box<RawValue>> = items.iter().filter_map(|item| serde_json::value::to_raw_value(item).ok()).collect();
                let raw: Vec<&RawValue> = raw.iter().map(AsRef::as_ref).collect();
                let mut list = ListPrinter::new(&mut out, format, columns, usize::MAX);
                list.items(&raw)?;
                list.end(None)?;
            }
            out.flush()?;
        }
    }
    if found.is_good() {
        return Ok(());
    }
    let Reconciled { unknown, other_context, missing, .. } = found;
    let missing = if found.all_kms { missing.total } else { 0 };
    Err(Failure::NotReconciled(format!(
        "{} calls of a wrapper key have no entry, {} have the entry of another key, and {missing} calls of entries are not in the files",
        unknown.total, other_context.total
    )))
}

/// The numbers, one on each line.
fn summary(found: &Reconciled, wrapper_keys: usize) -> Vec<String> {
    let Reconciled { period, calls, other_keys, duplicates, entries, by_entry, by_probe, by_report, by_job, .. } = found;
    let period = period.map_or_else(|| "-".to_owned(), |(from, to)| format!("{from} to {to}"));
    let jobs: u64 = by_job.values().map(|job| job.calls).sum();
    let reports: u64 = by_report.iter().map(|(_, calls)| calls).sum();
    let mut lines = vec![
        format!("period:             {period}"),
        format!("calls of the KMS:   {calls} of {wrapper_keys} wrapper keys; {other_keys} of other keys; {duplicates} records twice"),
        format!("entries:            {entries}"),
        format!("by request id:      {by_entry} in entries, {by_probe} probes, {jobs} of jobs, {reports} in reports"),
        format!("by context only:    {} (weaker: their request ids are not known)", found.weaker.total),
        format!("unknown:            {}", found.unknown.total),
        format!("of another key:     {}", found.other_context.total),
        format!("missing:            {}", found.missing.total),
        format!("missing, failed:    {} (a KMS does not record every refused call)", found.missing_failed.total),
        format!("not yet delivered:  {}; {} outside of the period", found.not_delivered.total, found.outside),
        format!("not yet in entries: {}", found.too_new.total),
    ];
    if !found.all_kms {
        lines.push("NOTE: a wrapper key is in a KMS without files here. A missing call may be one of it".to_owned());
    }
    for (job, calls) in by_job {
        let started = calls.started.as_ref().map_or_else(|| "an entry before".to_owned(), |(who, entry)| format!("{who}, entry {entry}"));
        lines.push(format!("{job}: {} calls, started by {started}", calls.calls));
    }
    for (report, calls) in by_report {
        lines.push(format!("{report}: {calls} calls"));
    }
    lines
}

type Section = (String, &'static [Column], Vec<Value>);

/// The lists that are not empty, with their titles.
fn sections(found: &Reconciled) -> Vec<Section> {
    let calls = |title: &str, list: &Listed<KmsCall>| section(title, CALL, list, call);
    let explained = |title: &str, list: &Listed<WeakerCall>| section(title, EXPLAINED, list, weaker);
    let missing_calls = |title: &str, list: &Listed<MissingCall>| section(title, MISSING, list, missing);
    [
        calls("UNKNOWN CALLS: uses of a wrapper key that no entry explains", &found.unknown),
        explained("CALLS OF ANOTHER KEY: the entry with the request id is about another key or vault", &found.other_context),
        missing_calls("MISSING CALLS: entries have their request ids, and the files do not", &found.missing),
        missing_calls("MISSING CALLS of operations that failed", &found.missing_failed),
        missing_calls("NOT YET DELIVERED, or after the end of the files", &found.not_delivered),
        calls("NOT YET IN ENTRIES: too new to decide. Repeat the comparison with later entries", &found.too_new),
        explained("BY CONTEXT AND TIME ONLY: an attempt of the vault without a known request id", &found.weaker),
        calls("CHANGES of a wrapper key in the KMS that did not come from the vault", &found.changes),
        calls("CANARIES without an entry: of check without --report. They hold no key", &found.canaries),
        calls("READS of attributes by others", &found.reads),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn section<T>(title: &str, columns: &'static [Column], list: &Listed<T>, item: fn(&T) -> Value) -> Option<Section> {
    let more = if list.total > list.items.len() as u64 { format!(", the first {}", list.items.len()) } else { String::new() };
    (list.total > 0).then(|| (format!("{title} ({}{more})", list.total), columns, list.items.iter().map(item).collect()))
}

fn call(call: &KmsCall) -> Value {
    let pair = |name: &str| call.context_value(name).map(|value| format!("{name}={value}"));
    let all = || call.context.iter().flat_map(|pairs| pairs.iter().map(|(name, value)| format!("{name}={value}"))).collect::<Vec<_>>();
    // The key or canary in a table; a context of another form is shown whole.
    let about = pair("key_id").or_else(|| pair("canary")).unwrap_or_else(|| all().join(" "));
    json!({
        "at": call.at, "action": &*call.action, "place": &*call.place, "principal": &*call.principal, "source": &*call.source,
        "key": call.keys.iter().map(|key| &**key).collect::<Vec<_>>().join(" "), "error": call.error.as_deref(), "about": about,
        "context": call.context.as_deref(),
    })
}

fn weaker(WeakerCall { call: of, by }: &WeakerCall) -> Value {
    let mut document = call(of);
    if let Value::Object(fields) = &mut document {
        fields.insert("by".to_owned(), explanation(*by).into());
    }
    document
}

fn missing(MissingCall { request_id, by, at, operation }: &MissingCall) -> Value {
    json!({ "at": at, "request_id": request_id, "by": explanation(*by), "operation": operation })
}

fn explanation(by: By) -> String {
    match by {
        By::Entry(sequence) | By::Probe(sequence) => format!("entry {sequence}"),
        By::Job(job, sequence) => format!("{job}, entry {sequence}"),
        By::Report(index) => format!("report {}", index + 1),
        By::Crash(sequence) => format!("the process that ended before entry {sequence}"),
    }
}

/// Everything, for programs.
fn document(found: &Reconciled, wrapper_keys: usize) -> Value {
    fn list<T>(list: &Listed<T>, item: fn(&T) -> Value) -> Value {
        json!({ "total": list.total, "items": list.items.iter().map(item).collect::<Vec<_>>() })
    }
    let jobs = found.by_job.iter().map(|(job, calls)| {
        let (principal, entry) = calls.started.as_ref().map(|(principal, entry)| (principal, entry)).unzip();
        json!({ "job": job.to_string(), "principal": principal, "entry": entry, "calls": calls.calls })
    });
    let reports = found.by_report.iter().map(|(report, calls)| json!({ "report": report, "calls": calls }));
    json!({
        "reconciled": found.is_good(),
        "from": found.period.map(|(from, _)| from), "to": found.period.map(|(_, to)| to),
        "wrapper_keys": wrapper_keys, "calls": found.calls, "other_keys": found.other_keys, "duplicates": found.duplicates,
        "entries": found.entries, "every_kms": found.all_kms, "outside": found.outside,
        "by_request_id": {
            "entries": found.by_entry, "probes": found.by_probe, "jobs": jobs.collect::<Vec<_>>(), "reports": reports.collect::<Vec<_>>(),
        },
        "by_context": list(&found.weaker, weaker),
        "unknown": list(&found.unknown, call),
        "of_another_key": list(&found.other_context, weaker),
        "missing": list(&found.missing, missing),
        "missing_failed": list(&found.missing_failed, missing),
        "not_yet_delivered": list(&found.not_delivered, missing),
        "not_yet_in_entries": list(&found.too_new, call),
        "changes": list(&found.changes, call),
        "canaries": list(&found.canaries, call),
        "reads": list(&found.reads, call),
    })
}
