//! One key for each edit, all in one vault. The rows are edited while it is stopped and used after its restart.

use rusqlite::{Connection, Transaction};
use serde_json::{Value, json};

use crate::support::vault::{TestVault, problem};

/// How a vault must take an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Refused and set aside at the first use, for good: the key in it is not the one that it says, or cannot be opened.
    ForGood,
    /// Refused and set aside; its seal holds, so that an administrator may enable it to where it stood, never more.
    UntilEnabled,
    /// The row cannot be parsed: refused, quarantined, and not shown.
    Unreadable,
    /// The row says another node: unknown to its own.
    Unknown,
}

/// An edit of a row and how it must be taken.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) edit: Edit,
    pub(super) taken: Taken,
    /// Steps before the edit, by the API.
    pub(super) before: &'static [&'static str],
}

pub(super) type Edit = Box<dyn Fn(&Transaction<'_>, &str, &str)>;

/// A row that was made for an edit, and a second one to exchange with.
struct Made {
    case: Case,
    id: String,
    partner: String,
}

pub(super) fn sign() -> Value {
    json!({ "algorithm": "ed25519", "message": "aGVsbG8=" })
}

pub(super) async fn new_key(vault: &TestVault) -> String {
    let client = vault.client("participant1");
    let key = client.create("/v1/keys", &json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" })).await.unwrap();
    let id = key["id"].as_str().unwrap().to_owned();
    client.post(&format!("/v1/keys/{id}/sign"), &sign()).await.unwrap();
    id
}

/// Makes the keys, stops the vault, edits the rows, starts again, and looks how each is taken.
pub(super) async fn run(cases: Vec<Case>) {
    let mut vault = TestVault::start_with(|config| config + "\n[limits]\nrefusals_per_second = 100000\n");
    let untouched = new_key(&vault).await;
    let mut made = Vec::new();
    for case in cases {
        let (id, partner) = (new_key(&vault).await, new_key(&vault).await);
        for step in case.before {
            vault.client("key-admin").post(&format!("/v1/keys/{id}/{step}"), &json!({})).await.unwrap();
        }
        made.push(Made { case, id, partner });
    }
    vault.kill();
    let mut db = vault.database();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    for Made { case, id, partner } in &made {
        let edit = db.transaction().unwrap();
        (case.edit)(&edit, id, partner);
        edit.commit().unwrap();
    }
    drop(db);
    vault.serve();
    for Made { case, id, .. } in &made {
        look(&vault, &case.name, case.taken, id).await;
    }
    vault.client("participant1").post(&format!("/v1/keys/{untouched}/sign"), &sign()).await.expect("an untouched key signs on");
    // Everything that was set aside stays so.
    vault.restart();
    for Made { case, id, .. } in made.iter().filter(|made| made.case.taken == Taken::ForGood) {
        let refused = problem(vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &sign()).await);
        assert_eq!(refused.code, "key_disabled", "{}", case.name);
    }
}

async fn look(vault: &TestVault, name: &str, taken: Taken, id: &str) {
    let (node, admin) = (vault.client("participant1"), vault.client("key-admin"));
    let path = |verb: &str| format!("/v1/keys/{id}/{verb}");
    for _ in 0..2 {
        let refused = problem(node.post(&path("sign"), &sign()).await);
        let expected = if taken == Taken::Unknown { (404, "not_found") } else { (409, "key_quarantined") };
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (expected.0, expected.1, false), "{name}: {refused:?}");
        assert!(logged(&vault.database(), "request_id", refused.request_id.as_deref().unwrap()) > 0, "{name}: no entry of the refusal");
    }
    if taken == Taken::Unknown {
        return;
    }
    assert_eq!(set_aside(&vault.database(), id), 1, "{name}: one entry says that the key was set aside");
    let listed = admin.get("/v1/keys?limit=1000&state=quarantined").await.unwrap();
    let listed = listed["items"].as_array().unwrap().iter().any(|key| key["id"] == id);
    if taken == Taken::Unreadable {
        assert!(!listed, "{name}");
        for refused in [problem(admin.get(&format!("/v1/keys/{id}")).await), problem(admin.post(&path("enable"), &json!({})).await)] {
            assert_eq!((refused.status, refused.code.as_str()), (409, "key_quarantined"), "{name}: {refused:?}");
        }
        return;
    }
    assert!(listed, "{name}: listed as quarantined");
    assert_eq!(admin.get(&format!("/v1/keys/{id}")).await.unwrap()["state"], "quarantined", "{name}");
    if taken == Taken::UntilEnabled {
        assert_eq!(admin.post(&path("disable"), &json!({})).await.unwrap()["state"], "disabled", "{name}");
        let enabled = admin.post(&path("enable"), &json!({})).await.unwrap();
        assert_eq!(enabled["state"], "active", "{name}");
        node.post(&path("sign"), &sign()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        return;
    }
    let refused = problem(admin.post(&path("enable"), &json!({})).await);
    assert!((400..500).contains(&refused.status) && !refused.retryable, "{name}: {refused:?}");
    assert_eq!(problem(node.post(&path("sign"), &sign()).await).code, "key_quarantined", "{name}: enabling resurrects nothing");
    assert_eq!(admin.post(&path("disable"), &json!({})).await.unwrap()["state"], "disabled", "{name}");
    assert_eq!(problem(node.post(&path("sign"), &sign()).await).code, "key_disabled", "{name}");
    // Enabling proves the key first, fails, and sets it aside again.
    let refused = problem(admin.post(&path("enable"), &json!({})).await);
    assert!((400..500).contains(&refused.status) && !refused.retryable, "{name}: {refused:?}");
    admin.post(&path("disable"), &json!({})).await.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// How many entries have this in that field.
fn logged(db: &Connection, field: &str, value: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM audit_entries WHERE json_extract(entry, '$.{field}') = ?1");
    db.query_row(&sql, [value], |row| row.get(0)).unwrap()
}

/// How many entries say that the key itself, not one of its wraps, was set aside.
pub(super) fn set_aside(db: &Connection, id: &str) -> u32 {
    let sql = "SELECT count(*) FROM audit_entries WHERE changed_key = ?1 AND entry ->> '$.operation' = 'keys.quarantine'";
    db.query_row(sql, [id], |row| row.get(0)).unwrap()
}
