//! `verify-backup` counts every row, names its KMS calls, and refuses a file that is no backup within its time limit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use canton_keyvault::audit::leaf_hash;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    vault::TestVault,
};

/// A backup of a stopped vault with six keys, and their ids in the order of their creation.
async fn backup_of_six_keys() -> (TestVault, PathBuf, Vec<String>) {
    let mut vault = TestVault::start();
    let mut ids = Vec::new();
    for _ in 0..6 {
        let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
        ids.push(vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    vault.terminate();
    let copy = vault.path("copy.db");
    assert!(vault.command(&["backup", "copy.db"]).output().unwrap().status.success());
    (vault, copy, ids)
}

/// The exit code, the report, and the error.
fn verify(vault: &TestVault, more: &[&str]) -> (bool, Value, String) {
    let arguments = [&["verify-backup", "copy.db", "--output", "json"], more].concat();
    let Output { status, stdout, stderr } = vault.command(&arguments).output().unwrap();
    (status.success(), serde_json::from_slice(&stdout).unwrap_or(Value::Null), String::from_utf8_lossy(&stderr).into_owned())
}

fn edit(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
}

#[tokio::test]
async fn every_row_that_cannot_be_read_counts_as_a_failure() {
    let (vault, copy, ids) = backup_of_six_keys().await;
    let sound = vault.path("sound.db");
    fs::rename(&copy, &sound).unwrap();
    for (damage, code) in [
        ("UPDATE keys SET spec = 'ec-p999' WHERE position IN (2, 5)", "key_quarantined"),
        ("UPDATE keys SET node = CAST(x'ff' AS TEXT) WHERE position IN (2, 5)", "key_quarantined"),
        ("UPDATE keys SET lifecycle = 'nonsense' WHERE position IN (2, 5)", "key_quarantined"),
        // The row says that there is nothing to open, and the log says that there is.
        ("UPDATE keys SET lifecycle = 'destroyed pending-deletion', sealed = NULL WHERE position IN (2, 5)", "key_quarantined"),
        ("DELETE FROM wraps WHERE key IN (SELECT key FROM keys WHERE position IN (2, 5))", "key_quarantined"),
        ("DELETE FROM keys WHERE position IN (2, 5)", "not_found"),
    ] {
        fs::copy(&sound, &copy).unwrap();
        edit(&copy, &damage.replace("SELECT key FROM keys", "SELECT id FROM keys"));
        let (ok, report, error) = verify(&vault, &[]);
        assert!(!ok && error.contains("not every key"), "{damage}: {report} {error}");
        let failed: Vec<&str> = report["failed"].as_array().unwrap().iter().map(|key| key["key_id"].as_str().unwrap()).collect();
        let mut expected = [ids[1].as_str(), ids[4].as_str()];
        expected.sort_unstable();
        let mut found = failed.clone();
        found.sort_unstable();
        assert_eq!(found, expected, "{damage}: {report}");
        assert_eq!((&report["keys"], &report["opened"], &report["complete"]), (&json!(6), &json!(4), &json!(true)), "{damage}: {report}");
        assert!(report["failed"].as_array().unwrap().iter().all(|key| key["code"] == code), "{damage}: {report}");
    }
    // A row without a readable id is a failure, and so is the key that the log knows and that has no row now.
    fs::copy(&sound, &copy).unwrap();
    edit(&copy, "UPDATE keys SET id = 'nonsense' WHERE position = 2");
    let (ok, report, _) = verify(&vault, &[]);
    assert_eq!((ok, &report["opened"], report["failed"].as_array().unwrap().len()), (false, &json!(5), 2), "{report}");
    assert!(report["failed"][0]["key_id"].is_null() && report["failed"][1]["key_id"] == *ids[1], "{report}");
}

#[tokio::test]
async fn the_report_identifies_the_backup_and_its_kms_calls() {
    let mut aws = AwsVault::start(Setup::default()).await;
    let ids = [aws.key().await, aws.key().await, aws.key().await];
    aws.vault.terminate();
    assert!(aws.vault.command(&["backup", "copy.db"]).output().unwrap().status.success());
    let bytes = fs::read(aws.vault.path("copy.db")).unwrap();
    let before = ids.each_ref().map(|id| aws.count(id, "Decrypt"));
    let (ok, report, error) = verify(&aws.vault, &[]);
    assert!(ok, "{report} {error}");
    assert_eq!((&report["keys"], &report["opened"], &report["failed"]), (&json!(3), &json!(3), &json!([])), "{report}");
    assert_eq!(report["sha256"], base16ct::lower::encode_string(&Sha256::digest(&bytes)));
    assert_eq!(report["bytes"], bytes.len());
    let newest = "SELECT sequence, entry, (SELECT store_revision FROM meta) FROM audit_entries ORDER BY sequence DESC LIMIT 1";
    let (sequence, entry, revision): (i64, Vec<u8>, i64) = Connection::open(aws.vault.path("copy.db"))
        .unwrap()
        .query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let leaf = base16ct::lower::encode_string(&leaf_hash(&entry));
    assert_eq!(
        report["log"],
        json!({ "sequence": sequence, "leaf": leaf, "store_revision": revision, "compared": "complete", "difference": null })
    );

    // Each Decrypt of the verification is in the report, and no other.
    let mut decrypts: Vec<String> = Vec::new();
    for (id, before) in ids.iter().zip(before) {
        let calls = aws.kms_calls(id).into_iter().filter(|call| call["action"] == "Decrypt").skip(before);
        decrypts.extend(calls.map(|call| call["request_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(decrypts.len(), 3);
    assert_eq!(report["kms_request_ids"], json!(decrypts));
    let text = aws.vault.command(&["verify-backup", "copy.db"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(&leaf) && text.contains(report["sha256"].as_str().unwrap()), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("KMS request ")).count(), 3, "{text}");

    // A call that is refused is a call too.
    aws.kms.fault(json!({ "mode": "denied", "only": "Decrypt", "key": aws.arn.rsplit('/').next().unwrap() })).await;
    let (ok, report, _) = verify(&aws.vault, &[]);
    assert!(
        !ok && report["failed"][0]["code"] == "wrapper_denied" && !report["kms_request_ids"].as_array().unwrap().is_empty(),
        "{report}"
    );
    // A KMS that is slow does not hold up the command for longer than its time limit, and the report has what was done.
    aws.kms.fault(json!({ "mode": "none", "key": aws.arn.rsplit('/').next().unwrap() })).await;
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 30_000, "only": "Decrypt", "key": aws.arn.rsplit('/').next().unwrap() })).await;
    let began = Instant::now();
    let (ok, report, error) = verify(&aws.vault, &["--timeout", "2s"]);
    assert!(!ok && error.contains("did not end within 2s") && began.elapsed() < Duration::from_secs(20), "{error}");
    assert_eq!((&report["complete"], &report["keys"]), (&json!(false), &json!(3)), "{report}");
}

#[tokio::test]
async fn a_file_that_is_no_backup_ends_in_a_clear_error() {
    let (vault, copy, _) = backup_of_six_keys().await;
    let sound = vault.path("sound.db");
    fs::rename(&copy, &sound).unwrap();
    // A view that counts for ever, and a column that is computed for ever.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";
    let slow = "length(hex(zeroblob(400000000))) + length(hex(zeroblob(400000001))) + length(hex(zeroblob(400000002)))";
    let many = (0..200).map(|number| format!("CREATE TABLE t{number} (a);")).collect::<Vec<_>>().concat();
    let history = "DROP TABLE refinery_schema_history; CREATE";
    let cases: &[(&str, String)] = &[
        ("trigger silent", "CREATE TRIGGER silent BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(IGNORE); END".into()),
        ("view v", format!("CREATE VIEW v AS {endless} max(i) FROM n")),
        ("refinery_schema_history", format!("{history} VIEW refinery_schema_history AS {endless} i AS version FROM n")),
        (
            "refinery_schema_history",
            format!("{history} TABLE refinery_schema_history (a, version AS ({slow})); INSERT INTO refinery_schema_history VALUES (1)"),
        ),
        ("view meta", format!("DROP TABLE meta; CREATE VIEW meta AS {endless} i AS vault FROM n")),
        ("table more", "CREATE TABLE more (a)".into()),
        ("tables, indexes", many),
        ("missing or was changed", "DELETE FROM audit_entries WHERE sequence = 2".into()),
        ("not a key vault's database", "PRAGMA application_id = 1".into()),
    ];
    let refused = |what: &str, case: &str| {
        let began = Instant::now();
        let (ok, report, error) = verify(&vault, &[]);
        assert!(!ok && report.is_null() && error.contains(what) && error.contains("copy.db"), "{case}: {report} {error}");
        assert!(!error.contains(".verify-"), "the error is about the backup, not about its private copy: {error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{case}: {:?}", began.elapsed());
        fs::remove_file(&copy).unwrap();
    };
    for (what, sql) in cases {
        fs::copy(&sound, &copy).unwrap();
        edit(&copy, sql);
        refused(what, sql);
    }
    fs::write(&copy, "no database at all, but long enough").unwrap();
    refused("not a key vault's database", "text");
    fs::write(&copy, "").unwrap();
    refused("not a key vault's database", "empty");
    fs::write(&copy, &fs::read(&sound).unwrap()[..20_000]).unwrap();
    refused("malformed", "cut off");
    rustix::fs::mkfifoat(rustix::fs::CWD, &copy, rustix::fs::Mode::RUSR).unwrap();
    refused("not a regular file", "pipe");
    std::os::unix::fs::symlink("/dev/zero", &copy).unwrap();
    refused("not a regular file", "device");
    fs::copy(&sound, &copy).unwrap();
    fs::write(vault.path("copy.db-wal"), "x").unwrap();
    refused("copy.db-wal", "a write-ahead log beside it");
    let left: Vec<_> = fs::read_dir(vault.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".verify-")), "{left:?}");
}
