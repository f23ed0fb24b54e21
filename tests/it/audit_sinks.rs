//! Sinks of the audit log, of the binary: each kind end to end, kill -9, sinks that hang or fail, and what required sinks hold back.

mod file;
mod http;
pub(crate) mod receiver;
mod required;
mod syslog;

use std::path::Path;

use canton_keyvault::client::ClientError;
use serde_json::{Value, json};

use crate::support::{
    aws_vault::ops,
    vault::{TestVault, until},
};

/// A vault with these sections more.
fn vault_with(sections: &str) -> TestVault {
    TestVault::start_with(|config| config + sections)
}

async fn new_key(vault: &TestVault) -> String {
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sign(vault: &TestVault, id: &str) -> Result<Value, ClientError> {
    let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
    vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &body).await
}

/// The stored bytes of every entry, the first one first.
pub(crate) fn stored(database: &rusqlite::Connection) -> Vec<String> {
    let mut sql = database.prepare("SELECT entry FROM audit_entries ORDER BY sequence").unwrap();
    let rows = sql.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    rows.map(|entry| String::from_utf8(entry.unwrap()).unwrap()).collect()
}

fn sequence(line: &str) -> usize {
    usize::try_from(serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap()).unwrap()
}

/// The newest stored entry of an operation.
fn newest_of(vault: &TestVault, operation: &str) -> Option<Value> {
    let mut entries = stored(&vault.database()).into_iter().map(|entry| serde_json::from_str::<Value>(&entry).unwrap());
    entries.rfind(|entry| entry["operation"] == operation)
}

/// Checks what a sink got: each line is a stored entry, byte for byte, in order from `first` without a gap. Some may be there again, after which the
/// order goes on from there. Returns the number of the newest one.
pub(crate) fn check_in_order<'a>(lines: impl IntoIterator<Item = &'a str>, stored: &[String], first: usize) -> usize {
    let mut newest = first - 1;
    let mut previous = newest;
    for line in lines {
        let number = sequence(line);
        assert_eq!(line, stored[number - 1], "not as stored");
        assert!(number == previous + 1 || (number <= newest && number >= first), "{number} after {previous}, newest {newest}");
        newest = newest.max(number);
        previous = number;
    }
    newest
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

async fn ready(vault: &TestVault) -> (u16, Value) {
    let (status, text) = ops(vault, "/readyz").await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn until_ready(vault: &TestVault) {
    until("the vault is ready", || async { ready(vault).await.0 == 200 }).await;
}

/// The value of a metric of the sink `a`.
async fn metric(vault: &TestVault, name: &str) -> Option<f64> {
    let text = ops(vault, "/metrics").await.1;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{sink=\"a\"}} ")));
    line.map(|value| value.parse().unwrap())
}
