//! A real log that the binary made, with three checkpoints, and what the tests need to know of it.

use std::fs;

use canton_keyvault::audit::leaf_hash;
use rusqlite::{Connection, params};
use serde_json::json;

use crate::support::{api::Caller, vault::TestVault};

/// Where the interesting entries are.
pub(super) struct Facts {
    /// The sizes of the first and the second checkpoint.
    pub(super) first: u64,
    pub(super) second: u64,
    /// The number of entries, which the last checkpoint covers.
    pub(super) size: u64,
    /// A signature between the first and the second checkpoint.
    pub(super) used: u64,
    /// A state change between them, and not the last one.
    pub(super) changed: u64,
}

/// A vault that ended in order. Its verifier keys are in the file `keys`.
pub(super) struct Log {
    pub(super) vault: TestVault,
    pub(super) facts: Facts,
}

impl Log {
    /// More than 1024 entries, so that the tree has stored hashes, and a block its summary.
    pub(super) async fn make() -> Self {
        let mut vault = TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\n"));
        let [auditor, node] = ["auditor", "participant1"].map(|who| Caller::new(&vault, who));
        let checkpoint = async || auditor.post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap();
        let first = checkpoint().await;
        let key = node.signing_key("participant1").await;
        node.sign(&key).await.success();
        node.sign(&key).await.success();
        node.signing_key("participant1").await;
        let second = checkpoint().await;
        let batch = json!({ "algorithm": "ed25519", "messages": vec![json!({ "message": "QQ==" }); 64] });
        for _ in 0..16 {
            node.post(&format!("/v1/keys/{key}/sign-batch"), &batch).await.success();
        }
        vault.digested().await;
        let exported = auditor_command(&vault, &["audit", "export", "--out", "export.ndjson"]).output().unwrap();
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let keys = auditor.get("/v1/audit/verifier-keys").await.success();
        let keys = keys["items"].as_array().unwrap().iter().map(|item| item["verifier_key"].as_str().unwrap());
        fs::write(vault.path("keys"), keys.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(vault.terminate());
        let db = vault.database();
        let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
        let facts = Facts {
            first,
            second,
            size: number("SELECT max(sequence) FROM audit_entries"),
            used: number("SELECT min(sequence) FROM audit_log WHERE operation = 'keys.sign'"),
            changed: number("SELECT min(sequence) FROM audit_log WHERE operation = 'keys.create'"),
        };
        drop(db);
        Self { vault, facts }
    }
}

impl Facts {
    /// The lines of an export of the log, which the command line wrote while the vault ran.
    pub(super) fn export(vault: &TestVault) -> Vec<Vec<u8>> {
        fs::read(vault.path("export.ndjson")).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}

/// A command of the auditor.
pub(super) fn auditor_command(vault: &TestVault, arguments: &[&str]) -> std::process::Command {
    let options = vault.options("auditor");
    let mut command = vault.command(arguments);
    command.arg("--url").arg(&options.url).arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    command
}

/// The stored bytes of an entry.
pub(super) fn entry(db: &Connection, sequence: u64) -> Vec<u8> {
    db.query_row("SELECT entry FROM audit_entries WHERE sequence = ?1", [sequence.cast_signed()], |row| row.get(0)).unwrap()
}

/// Replaces the bytes of an entry, with their hash.
pub(super) fn set_entry(db: &Connection, sequence: u64, bytes: &[u8]) {
    let sql = "UPDATE audit_entries SET entry = ?2, leaf = ?3 WHERE sequence = ?1";
    assert_eq!(db.execute(sql, params![sequence.cast_signed(), bytes, leaf_hash(bytes)]).unwrap(), 1);
}
