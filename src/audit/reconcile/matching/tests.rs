//! What explains a call, and what does not.

use serde_json::{Value, json};

use super::*;
use crate::{
    audit::{Source, StatePosition, reconcile::read_cloudtrail},
    domain::{AuditEvent, Principal},
};

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/k";
const VAULT_ROLE: &str = "arn:aws:sts::111122223333:assumed-role/keyvault/i-1";
const KEY: KeyId = KeyId::Symmetric([1; 16]);
const OTHER: KeyId = KeyId::Symmetric([2; 16]);
const JOB: &str = "job-00000000000a";

/// Seconds after the beginning of the files.
fn at(seconds: i64) -> Timestamp {
    later(Timestamp::parse("2026-01-01T00:00:00Z").unwrap(), seconds)
}

/// A record of the vault about a key.
fn record(id: &str, seconds: i64, key: KeyId) -> Value {
    json!({ "eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "eventTime": at(seconds), "awsRegion": "eu-central-1", "requestID": id,
        "eventID": format!("event of {id}"), "userIdentity": { "arn": VAULT_ROLE }, "resources": [{ "ARN": ARN }],
        "requestParameters": { "encryptionContext": { "vault": "v", "key_id": key.to_string() } } })
}

fn with(mut record: Value, pointer: &str, value: Value) -> Value {
    *record.pointer_mut(pointer).unwrap() = value;
    record
}

fn canary(id: &str, seconds: i64) -> Value {
    with(record(id, seconds, KEY), "/requestParameters/encryptionContext", json!({ "vault": "v", "canary": "wk-000000000001" }))
}

/// A comparison of records of two days.
fn begin(records: &[Value]) -> Reconciliation {
    let (mut keys, mut calls) = (WrapperKeySet::default(), CallSet::new(100));
    keys.add(ARN).unwrap();
    read_cloudtrail(json!({ "Records": records }).to_string().as_bytes(), &keys, &mut calls).unwrap();
    let mut begun = Reconciliation::new(calls, Period { from: Some(at(0)), to: Some(at(172_800)) }, &keys, (true, false));
    begun.entries_until(at(200_000));
    begun
}

/// An entry, changed by `edit`.
fn entry(sequence: u64, seconds: i64, operation: Operation, ids: &[&str], edit: impl FnOnce(&mut AuditEvent)) -> Entry {
    let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
    let mut event = AuditEvent::new(at(seconds), Principal { name: "dns:p".into(), certificate: None }, operation, "p".into());
    event.kms.request_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    edit(&mut event);
    Entry::new(sequence, &source, &event, StatePosition::unchanged(1))
}

fn sign(sequence: u64, seconds: i64, ids: &[&str]) -> Entry {
    entry(sequence, seconds, Operation::Sign, ids, |event| event.key = Some(KEY))
}

fn finish(mut begun: Reconciliation, entries: &[Entry]) -> Reconciled {
    for entry in entries {
        begun.entry(entry);
    }
    begun.finish()
}

#[test]
fn a_request_id_is_explained_by_its_entry_probe_job_or_report() {
    let mut begun = begin(&[record("a", 10, KEY), canary("b", 20), record("c", 30, KEY), record("d", 40, KEY), record("e", 50, OTHER)]);
    let ids = vec!["d".to_owned()];
    begun.report(Report { name: "r".into(), started_at: at(39), finished_at: at(41), kms_request_ids: ids });
    let loose = entry(3, 60, Operation::RecordKmsCalls, &["b", "e"], |_| {});
    let started =
        entry(1, 1, Operation::StartRotation, &[], |event| event.subject = Some(format!("wk-000000000001 to wk-000000000002, {JOB}")));
    let rewrapped = entry(4, 30, Operation::RewrapKey, &["c"], |event| {
        (event.key, event.subject) = (Some(KEY), Some(format!("{JOB}: wk-000000000001 to wk-000000000002")));
    });
    let found = finish(begun, &[started, sign(2, 9, &["a"]), loose, rewrapped]);
    assert!(found.is_good(), "{found:#?}");
    assert_eq!((found.by_entry, found.by_probe, &*found.by_report), (2, 1, &[("r".to_owned(), 1)][..]), "a refresh of a key is no probe");
    let job = &found.by_job[&JOB.parse().unwrap()];
    assert_eq!((job.calls, &job.started), (1, &Some(("dns:p".to_owned(), 1))));
}

#[test]
fn what_nothing_explains_is_unknown_whoever_made_it() {
    let mallory = json!("arn:aws:iam::111122223333:user/mallory");
    let foreign = with(record("b", 20, KEY), "/userIdentity/arn", mallory.clone());
    let unnamed = with(canary("c", 30), "/requestParameters/encryptionContext", json!({ "vault": "other", "canary": "x" }));
    let changed = with(with(record("d", 40, KEY), "/eventName", json!("PutKeyPolicy")), "/userIdentity/arn", mallory);
    let read = with(record("e", 50, KEY), "/eventName", json!("DescribeKey"));
    let data_key = with(record("g", 50, KEY), "/eventName", json!("GenerateDataKey"));
    let begun = begin(&[record("a", 10, KEY), foreign, unnamed, changed, read, canary("f", 60), data_key]);
    let found = finish(begun, &[sign(1, 9, &["a"])]);
    let unknown: Vec<&str> = found.unknown.items.iter().map(|call| &*call.action).collect();
    assert_eq!(unknown, ["Decrypt", "Decrypt", "GenerateDataKey"]);
    assert_eq!((found.changes.total, found.reads.total, found.canaries.total, found.by_entry), (1, 1, 1, 1));
    assert!(!found.is_good());
}

#[test]
fn the_entry_of_another_key_or_vault_explains_nothing() {
    let other_vault = with(record("b", 20, KEY), "/requestParameters/encryptionContext/vault", json!("staging"));
    let found = finish(begin(&[record("a", 10, OTHER), other_vault]), &[sign(1, 9, &["a"]), sign(2, 19, &["b"])]);
    assert_eq!((found.other_context.total, found.unknown.total, found.is_good()), (2, 0, false));
    // A successor and the keys in the subject are keys of the entry.
    let rotated = entry(1, 9, Operation::RotateKey, &["a"], |event| (event.key, event.subject) = (Some(KEY), Some(OTHER.to_string())));
    assert!(finish(begin(&[record("a", 10, OTHER)]), &[rotated]).is_good());
}

#[test]
fn a_call_without_a_request_id_explains_one_call_of_a_known_identity() {
    let mallory = with(record("c", 22, KEY), "/userIdentity/arn", json!("mallory"));
    let begun = begin(&[record("a", 10, KEY), record("b", 20, KEY), record("d", 23, KEY), mallory]);
    let found = finish(begun, &[sign(1, 9, &["a", "unidentified:1:Decrypt:eu-central-1"])]);
    assert_eq!((found.weaker.total, found.weaker.items[0].by), (1, By::Entry(1)));
    assert_eq!(found.unknown.total, 2, "one attempt explains one call, and none of somebody else");
    // A report may have an identity of its own.
    let mut begun = begin(&[record("b", 20, KEY)]);
    let ids = vec!["unidentified:1:Decrypt:eu-central-1".to_owned()];
    begun.report(Report { name: "r".into(), started_at: at(19), finished_at: at(21), kms_request_ids: ids });
    assert_eq!(finish(begun, &[]).weaker.total, 1);
}

#[test]
fn the_end_of_a_process_without_its_stop_explains_calls_of_that_time() {
    let (start, stop) = (
        |sequence, seconds| entry(sequence, seconds, Operation::Start, &[], |_| {}),
        |sequence, seconds| entry(sequence, seconds, Operation::Stop, &[], |_| {}),
    );
    let records = [record("a", 10, KEY), canary("b", 20), canary("c", 5000)];
    let found = finish(begin(&records), &[start(1, 0), sign(2, 9, &["a"]), start(3, 100), stop(4, 200)]);
    assert_eq!((found.weaker.total, found.weaker.items[0].by, found.canaries.total), (1, By::Crash(3), 1), "{found:#?}");
    let opened = entry(4, 91, Operation::OpenCheckpointKey, &[], |_| {});
    let found = finish(begin(&records), &[start(1, 0), sign(2, 9, &["a"]), stop(3, 90), opened, start(5, 100), stop(6, 200)]);
    assert_eq!((found.weaker.total, found.canaries.total), (0, 2), "it stopped");
}

#[test]
fn a_call_of_an_entry_that_the_files_lack_is_missing() {
    let failed = |sequence, seconds| entry(sequence, seconds, Operation::Sign, &["f"], |event| event.outcome = Outcome::Failed);
    let loose = |sequence, seconds| entry(sequence, seconds, Operation::RecordKmsCalls, &["l"], |_| {});
    let entries = [
        sign(1, -100, &["before"]),
        loose(2, 500),
        sign(3, 1000, &["missing"]),
        failed(4, 1000),
        loose(5, 2000),
        sign(6, 180_000, &["after"]),
    ];
    let found = finish(begin(&[record("a", 10, KEY)]), &entries);
    let missing: Vec<_> = found.missing.items.iter().map(|call| (&*call.request_id, call.by)).collect();
    assert_eq!(missing, [("missing", By::Entry(3)), ("l", By::Probe(5))]);
    assert_eq!(
        (found.missing_failed.total, found.outside, found.is_good()),
        (1, 3, false),
        "loose calls of entry 2 may be older than the files"
    );
    // Without a stated end, the last quarter of an hour may not be delivered yet.
    let (mut keys, mut calls) = (WrapperKeySet::default(), CallSet::new(10));
    keys.add(ARN).unwrap();
    keys.add("openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:transit:k:1").unwrap();
    read_cloudtrail(format!("{}{}", record("a", 0, KEY), record("b", 3600, KEY)).as_bytes(), &keys, &mut calls).unwrap();
    let begun = Reconciliation::new(calls, Period::default(), &keys, (true, false));
    let found = finish(begun, &[sign(1, 0, &["a"]), sign(2, 2000, &["missing"]), sign(3, 3000, &["late"]), sign(4, 3600, &["b"])]);
    assert_eq!((found.missing.total, found.not_delivered.total), (1, 1));
    assert!(found.is_good() && !found.all_kms, "it may be a call of OpenBao");
}

#[test]
fn a_call_at_the_end_of_the_entries_is_not_decided() {
    let (mut keys, mut calls) = (WrapperKeySet::default(), CallSet::new(10));
    keys.add(ARN).unwrap();
    let records = [record("a", 0, KEY), record("b", 2000, KEY), record("c", 2900, KEY)];
    read_cloudtrail(json!(records).to_string().as_bytes(), &keys, &mut calls).unwrap();
    let found = finish(Reconciliation::new(calls, Period::default(), &keys, (true, false)), &[sign(1, 0, &["a"]), sign(2, 3000, &[])]);
    assert_eq!((found.unknown.total, found.too_new.total), (1, 1), "the entries of loose calls come up to 15 minutes later");
}
