//! The invariants after any kill: of the stored log, of the rows, and of every key through the API.

use std::collections::{HashMap, HashSet};

use canton_keyvault::audit::{Entry, leaf_hash};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::vault::TestVault;

use super::load::{Worker, sign};

/// Reads the log on from where it was read before.
#[derive(Default)]
pub(crate) struct Auditor {
    pub(crate) entries: i64,
    /// Of each key, what its newest state change says: revision and marks.
    newest: HashMap<String, (i64, String)>,
}

impl Auditor {
    /// Faults of the log and the rows, and answers without an entry.
    pub(crate) fn log_faults(&mut self, db: &Connection, workers: &mut [Worker]) -> Vec<String> {
        let first = self.entries;
        let mut faults = self.store_faults(db);
        let mut sql = db.prepare("SELECT entry FROM audit_entries WHERE sequence > ?1").unwrap();
        let entries = sql.query_map([first], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        let logged: HashSet<String> = entries.filter_map(|bytes| Entry::decode(&bytes.unwrap()).unwrap().request_id).collect();
        for worker in workers {
            let without = worker.answered.drain(..).filter(|id| !logged.contains(id));
            faults.extend(without.map(|id| format!("the answer {id} has no entry")));
        }
        faults
    }

    /// Gaps, wrong leaves, and rows that are not what the log says.
    pub(crate) fn store_faults(&mut self, db: &Connection) -> Vec<String> {
        let mut faults = Vec::new();
        let mut sql = db.prepare("SELECT sequence, entry, leaf FROM audit_entries WHERE sequence > ?1 ORDER BY sequence").unwrap();
        let mut rows = sql.query([self.entries]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (sequence, bytes, leaf): (i64, Vec<u8>, [u8; 32]) = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
            self.entries += 1;
            let entry = Entry::decode(&bytes).unwrap();
            if leaf_hash(&bytes) != leaf || i64::try_from(entry.sequence) != Ok(sequence) {
                faults.push(format!("entry {sequence} is not what its place and leaf say"));
            }
            if let (Some(key), Some(change)) = (entry.key_id, entry.state_change().unwrap()) {
                let to = i64::try_from(change.revision).unwrap();
                let (from, _) = self.newest.insert(key.to_string(), (to, change.lifecycle.to_string())).unwrap_or_default();
                if to != from + 1 {
                    faults.push(format!("entry {sequence} takes {key} from revision {from} to {to}"));
                }
            }
        }
        let (count, last): (i64, i64) = db
            .query_row("SELECT count(*), coalesce(max(sequence), 0) FROM audit_entries", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        if count != last {
            faults.push(format!("a gap: {count} entries, the last is number {last}"));
        }
        faults.extend(self.row_faults(db));
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if check != "ok" {
            faults.push(check);
        }
        faults
    }

    fn row_faults(&self, db: &Connection) -> Vec<String> {
        let mut faults = Vec::new();
        let mut sql = db
            .prepare(
                "SELECT id, revision, lifecycle, row_tag IS NULL AND lifecycle = 'active'
                 OR (state = 'destroyed') != (sealed IS NULL)
                 OR (state = 'destroyed') = EXISTS (SELECT 1 FROM wraps WHERE key = id AND wraps.generation = keys.generation AND NOT quarantined)
                 OR successor IS NOT NULL AND NOT EXISTS (SELECT 1 FROM keys AS next WHERE next.id = keys.successor AND next.predecessor = keys.id)
                 OR predecessor IS NOT NULL AND NOT EXISTS (SELECT 1 FROM keys AS old WHERE old.id = keys.predecessor AND old.successor = keys.id)
                 FROM keys",
            )
            .unwrap();
        let mut rows = sql.query([]).unwrap();
        let mut seen = 0;
        while let Some(row) = rows.next().unwrap() {
            seen += 1;
            let (id, revision, lifecycle, half): (String, i64, String, bool) =
                (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap());
            let logged = self.newest.get(&id);
            if logged != Some(&(revision, lifecycle.clone())) {
                faults.push(format!("{id}: its row says {revision} {lifecycle}, the log {logged:?}"));
            }
            if half {
                faults.push(format!("{id}: half a row: no seal, wrap, tag or link"));
            }
        }
        if seen != self.newest.len() {
            faults.push(format!("{seen} keys, but the log knows {}: one is lost", self.newest.len()));
        }
        faults
    }
}

/// Faults that `audit verify` finds: in entries, hashes and the tree, in stored checkpoints, and against the checkpoints that were seen after the kills
/// before.
pub(crate) async fn verify_log(vault: &TestVault, seen: &mut Vec<String>) -> Vec<String> {
    let auditor = vault.client("auditor");
    let made = auditor.post("/v1/audit/checkpoints", &json!({})).await.unwrap();
    let keys = auditor.get("/v1/audit/verifier-keys").await.unwrap();
    std::fs::write(vault.path("verifier-key"), keys["items"][0]["verifier_key"].as_str().unwrap()).unwrap();
    let mut command = vault.command(&["audit", "verify", "--database", "keyvault.db", "--verifier-key", "verifier-key"]);
    // The first one, and the newest ones.
    let known = seen.iter().take(1).chain(seen.iter().skip(1).rev().take(3));
    let output = command.args(known.flat_map(|file| ["--checkpoint", file])).output().unwrap();
    let file = format!("checkpoint-{}", seen.len());
    std::fs::write(vault.path(&file), made["note"].as_str().unwrap()).unwrap();
    seen.push(file);
    if output.status.success() { Vec::new() } else { vec![String::from_utf8_lossy(&output.stderr).into_owned()] }
}

/// Faults seen through the API: of the keys touched since the last look, or of all; then every worker knows what its keys are.
pub(crate) async fn look_after(vault: &TestVault, workers: &mut [Worker], all: bool) -> Vec<String> {
    let admin = vault.client("key-admin");
    let mut faults = Vec::new();
    for worker in workers {
        let node = vault.client(worker.node);
        for (id, owned) in worker.keys.iter_mut().filter(|(_, owned)| all || owned.touched) {
            let key = match admin.get(&format!("/v1/keys/{id}")).await {
                Ok(key) => key,
                Err(error) => {
                    faults.push(format!("{id} is lost: {error}"));
                    continue;
                }
            };
            let is = |known: super::load::Known| key["state"] == known.state() && key.get("successor").is_some() == known.rotated;
            let Some(now) = [Some(owned.known), owned.maybe].into_iter().flatten().find(|known| is(*known)) else {
                faults.push(format!("{id} is {}, and must be {:?} or {:?}", key["state"], owned.known, owned.maybe));
                continue;
            };
            (owned.known, owned.maybe, owned.touched) = (now, None, false);
            let signed = node.post(&format!("/v1/keys/{id}/sign"), &sign(owned.algorithm)).await;
            match (now.state(), signed) {
                ("active", Err(error)) => faults.push(format!("{id} does not open: {error}")),
                ("active", Ok(_)) | (_, Err(_)) => {}
                (state, Ok(_)) => faults.push(format!("{id} is {state} and signs")),
            }
            if let Some(successor) = key.get("successor").and_then(Value::as_str) {
                // Perhaps no client got the response. The change must be complete all the same.
                if let Err(error) = admin.get(&format!("/v1/keys/{successor}")).await {
                    faults.push(format!("{successor}, successor of {id}: {error}"));
                }
            }
        }
    }
    faults
}
