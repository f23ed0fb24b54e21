//! Checkpoints of the audit log: who gets them, what they state, who signs them, and how the signing key is rotated.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::audit::{
    Checkpoint, KeyRotation, SignedNote, VerifierKey, leaf_hash,
    merkle::{Frontier, Hash, verify_consistency, verify_inclusion},
};
use serde_json::{Value, json};

use crate::support::{
    api::Caller,
    jobs,
    vault::{TestVault, until},
};

/// The checkpoint in an answer, after its signature was verified.
fn verified(answer: &Value, key: &VerifierKey) -> Checkpoint {
    let note = SignedNote::parse(answer["note"].as_str().unwrap().as_bytes()).unwrap();
    note.verify(key).unwrap();
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    assert_eq!((answer["origin"].as_str(), answer["size"].as_u64()), (Some(checkpoint.origin.as_str()), Some(checkpoint.size)));
    checkpoint
}

/// The verifier keys, oldest first, with their state.
async fn verifier_keys(caller: &Caller) -> Vec<(VerifierKey, String)> {
    let keys = caller.get("/v1/audit/verifier-keys").await.success();
    let key = |item: &Value| (item["verifier_key"].as_str().unwrap().parse().unwrap(), item["state"].as_str().unwrap().to_owned());
    keys["items"].as_array().unwrap().iter().map(key).collect()
}

fn hash(value: &Value) -> Hash {
    STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

/// The leaf hashes of the first entries, at most 1000, from the bytes that an auditor gets.
async fn leaves(auditor: &Caller, size: u64) -> Vec<Hash> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        items: Vec<&'a serde_json::value::RawValue>,
    }
    let page = auditor.get(&format!("/v1/audit/entries?limit={size}")).await;
    let Page { items } = serde_json::from_str(&page.text).unwrap();
    let of_entry = |entry: &&serde_json::value::RawValue| {
        let (stored, leaf) = entry.get().rsplit_once(",\"leaf\":").unwrap();
        let computed = leaf_hash(format!("{stored}}}").as_bytes());
        assert_eq!(leaf, format!("\"{}\"}}", STANDARD.encode(computed)));
        computed
    };
    let leaves: Vec<Hash> = items.iter().map(of_entry).collect();
    assert_eq!(leaves.len() as u64, size);
    leaves
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(*leaf, |_| {});
    }
    frontier.root()
}

#[tokio::test]
async fn a_checkpoint_covers_the_call_that_asked_for_it() {
    let vault = TestVault::start();
    let [auditor, node] = ["auditor", "participant1"].map(|who| Caller::new(&vault, who));
    auditor.get("/v1/audit/checkpoint").await.refused(404, "not_found");
    let key = node.signing_key("participant1").await;
    node.sign(&key).await.success();
    let answer = auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    let keys = verifier_keys(&auditor).await;
    let [(verifier, state)] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(state, "active");
    let checkpoint = verified(&answer, verifier);
    assert_eq!(checkpoint.origin, "dev/main/1");
    let log = auditor.log("").await;
    let of_call = log.iter().find(|entry| entry["operation"] == "audit.make-checkpoint").unwrap();
    assert!(of_call["sequence"].as_u64().unwrap() <= checkpoint.size, "{of_call}");
    assert_eq!(checkpoint.root, root(&leaves(&auditor, checkpoint.size).await));
    let mut covered = log.iter().take(usize::try_from(checkpoint.size).unwrap());
    let newest_change = covered.rfind(|entry| !entry["previous"].is_null()).unwrap();
    assert_eq!(newest_change["state_revision"].as_u64(), Some(checkpoint.state_revision));
    assert_eq!(hash(&newest_change["leaf"]), checkpoint.state_head);
    assert_eq!(verified(&auditor.get("/v1/audit/checkpoint").await.success(), verifier), checkpoint);
}

#[tokio::test]
async fn proofs_verify_and_wrong_questions_are_refused() {
    let vault = TestVault::start();
    let auditor = Caller::new(&vault, "auditor");
    for _ in 0..20 {
        auditor.get("/v1/audit/entries?limit=1").await.success();
    }
    let size = auditor.post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap();
    let leaves = leaves(&auditor, size).await;
    let at = |count: u64| root(&leaves[..usize::try_from(count).unwrap()]);
    for sequence in [1, 7, size] {
        let proof = auditor.get(&format!("/v1/audit/proofs/inclusion?sequence={sequence}")).await.success();
        let leaf = hash(&proof["leaf"]);
        assert_eq!((hash(&proof["root"]), proof["size"].as_u64()), (at(size), Some(size)));
        assert_eq!(leaf, leaves[usize::try_from(sequence).unwrap() - 1]);
        assert!(verify_inclusion(&hashes(&proof["proof"]), sequence - 1, leaf, size, &at(size)), "{sequence}");
    }
    for from in [1, 8, 13, size] {
        let proof = auditor.get(&format!("/v1/audit/proofs/consistency?from={from}&size={size}")).await.success();
        assert!(verify_consistency(&hashes(&proof["proof"]), from, &at(from), size, &hash(&proof["root"])), "{from}");
    }
    for wrong in ["inclusion?sequence=0", "inclusion?sequence=9&size=8", "inclusion?sequence=1&size=1000000", "consistency?from=9&size=8"] {
        auditor.get(&format!("/v1/audit/proofs/{wrong}")).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn checkpoints_follow_the_interval_the_freeze_and_the_end() {
    let mut vault = TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1s\"\n"));
    let auditor = Caller::new(&vault, "auditor");
    until("a checkpoint at an interval", async || auditor.get("/v1/audit/checkpoint").await.status == 200).await;
    let key_admin = Caller::new(&vault, "key-admin");
    key_admin.post("/v1/freeze", &json!({})).await.success();
    let frozen = auditor.log("&operation=vault.freeze").await[0]["sequence"].as_u64().unwrap();
    until("a checkpoint while frozen", async || auditor.get("/v1/audit/checkpoint").await.success()["size"].as_u64().unwrap() >= frozen)
        .await;
    assert!(vault.terminate());
    let db = vault.database();
    let size: i64 = db.query_row("SELECT max(size) FROM audit_checkpoints", [], |row| row.get(0)).unwrap();
    let entries: i64 = db.query_row("SELECT max(sequence) FROM audit_entries", [], |row| row.get(0)).unwrap();
    assert_eq!(size, entries, "the last checkpoint covers the entry of the stop");
}

#[tokio::test]
async fn a_rotated_key_is_followed_from_the_old_one() {
    let vault = TestVault::start();
    let [auditor, admin] = ["auditor", "wrapper-admin"].map(|who| Caller::new(&vault, who));
    auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    let old = verifier_keys(&auditor).await.remove(0).0;
    auditor.post("/v1/audit/verifier-keys", &json!({})).await.refused(403, "forbidden");
    let new: VerifierKey =
        admin.post("/v1/audit/verifier-keys", &json!({})).await.success()["verifier_key"].as_str().unwrap().parse().unwrap();
    assert_eq!(verifier_keys(&admin).await, [(old.clone(), "superseded".into()), (new.clone(), "active".into())]);
    let entries = auditor.log("&operation=audit.rotate-checkpoint-key&outcome=ok").await;
    let [created, ended] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(KeyRotation::verify(created["note"].as_str().unwrap()), Ok(KeyRotation { old: old.clone(), new: new.clone() }));
    assert_eq!((&ended["state"], &ended["successor"]), (&json!("superseded"), &created["key_id"]));
    let answer = auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    verified(&answer, &new);
    let note = SignedNote::parse(answer["note"].as_str().unwrap().as_bytes()).unwrap();
    assert!(note.verify(&old).is_err(), "the old key signs nothing more");
}

#[tokio::test]
async fn nobody_uses_or_changes_the_signing_key() {
    let vault = TestVault::start();
    let [auditor, admin, node] = ["auditor", "key-admin", "participant1"].map(|who| Caller::new(&vault, who));
    auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    let created = auditor.log("&operation=audit.create-checkpoint-key").await.remove(0);
    let id = created["key_id"].as_str().unwrap();
    assert_eq!(created["node"], "$vault");
    for step in ["disable", "supersede", "rotate", "reseal"] {
        assert_eq!(admin.step(id, step).await.status, 404, "{step}");
    }
    assert_eq!(admin.delete(&format!("/v1/keys/{id}?days=7")).await.status, 404);
    assert_eq!(node.sign(id).await.status, 404);
    for caller in [&admin, &auditor] {
        let listed = caller.get("/v1/keys").await.success();
        assert!(!listed.to_string().contains(id), "{listed}");
    }
}

#[tokio::test]
async fn a_rotation_of_the_wrapper_key_includes_the_signing_key() {
    let vault = TestVault::start();
    let [auditor, node] = ["auditor", "participant1"].map(|who| Caller::new(&vault, who));
    node.signing_key("participant1").await;
    auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    let under_new = |wrapper_key: &str| -> i64 {
        let sql = "SELECT count(*) FROM wraps JOIN keys ON keys.id = wraps.key WHERE keys.node = '$vault' AND wrapper_key = ?1";
        vault.database().query_row(sql, [wrapper_key], |row| row.get(0)).unwrap()
    };
    let to = jobs::new_wrapper_key(&vault).await;
    jobs::rotated(&vault, &to).await;
    assert_eq!(under_new(&to), 1);
}
