//! Callers that disconnect while a change is being written to a slow disk: the change completes or does not happen, and memory, store and
//! log agree, before and after a restart.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    audit::{Checkpoint, SignedNote},
    domain::Operation,
};
use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id},
    slow_disk::SlowDisk,
    vault::TestVault,
};

/// How long every sync of the slow disk takes.
const SYNC: Duration = Duration::from_millis(120);
/// When the callers disconnect: before, during and after the first syncs of their change.
const MOMENTS: [u64; 6] = [1, 4, 15, 60, 140, 220];
/// How long a condition may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A call that changes state.
struct ChangeCall {
    operation: &'static str,
    principal: &'static str,
    method: &'static str,
    /// `{key}` is a fresh key, `{imported}` a fresh one that was imported, `{wrapper}` a fresh standby wrapper key, `{job}` a running job over all keys,
    /// `"{removal}"` the removal of entries that are old enough.
    path: &'static str,
    body: Value,
    /// What is done before, in the same form as `path`, by the key-admin.
    before: Option<(&'static str, &'static str)>,
}

fn calls() -> Vec<ChangeCall> {
    let call = |operation, principal, path, body| ChangeCall { operation, principal, method: "POST", path, body, before: None };
    let key = |operation, path| call(operation, "key-admin", path, Value::Null);
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    vec![
        call("keys.create", "participant1", "/v1/keys", new),
        call(
            "keys.import",
            "key-admin",
            "/v1/keys/import",
            json!({ "node": "participant1", "format": "raw", "material": STANDARD.encode([9; 32]) }),
        ),
        call("keys.rotate", "participant1", "/v1/keys/{key}/rotate", json!({})),
        key("keys.disable", "/v1/keys/{key}/disable"),
        ChangeCall { before: Some(("POST", "/v1/keys/{key}/disable")), ..key("keys.enable", "/v1/keys/{key}/enable") },
        key("keys.supersede", "/v1/keys/{key}/supersede"),
        call("keys.restrict-signing", "key-admin", "/v1/keys/{key}/signing-restriction", json!({ "topology_only": true })),
        ChangeCall { method: "DELETE", ..key("keys.delete", "/v1/keys/{key}") },
        ChangeCall { before: Some(("DELETE", "/v1/keys/{key}")), ..key("keys.cancel-deletion", "/v1/keys/{key}/cancel-deletion") },
        call("keys.rename", "key-admin", "/v1/keys/{key}/name", json!({ "name": "renamed" })),
        call("keys.withdraw", "key-admin", "/v1/keys/{imported}/withdraw", Value::Null),
        key("keys.reseal", "/v1/keys/{key}/reseal"),
        key("reseals.start", "/v1/keys/reseals"),
        key("reseals.abort", "/v1/keys/reseals/{job}/abort"),
        call("wrapper-keys.add", "wrapper-admin", "/v1/wrapper-keys", json!({ "provider": "local", "create": true })),
        call("wrapper-keys.replicate", "wrapper-admin", "/v1/wrapper-keys/{wrapper}/replicas", json!({ "region": "eu-west-1" })),
        call("wrapper-keys.rename", "wrapper-admin", "/v1/wrapper-keys/{wrapper}/name", json!({ "name": "renamed" })),
        call("wrapper-keys.retire", "wrapper-admin", "/v1/wrapper-keys/{wrapper}/retire", Value::Null),
        call("rotations.start", "wrapper-admin", "/v1/wrapper-keys/rotations", json!({ "to": "{wrapper}" })),
        call("rotations.abort", "wrapper-admin", "/v1/wrapper-keys/rotations/{rotation}/abort", Value::Null),
        call("audit.rotate-checkpoint-key", "wrapper-admin", "/v1/audit/verifier-keys", Value::Null),
        call("audit.remove-entries", "wrapper-admin", "/v1/audit/removals", json!("{removal}")),
        call("vault.freeze", "wrapper-admin", "/v1/freeze", Value::Null),
        ChangeCall { before: Some(("POST", "/v1/freeze")), ..call("vault.unfreeze", "wrapper-admin", "/v1/unfreeze", Value::Null) },
    ]
}

#[test]
fn every_call_that_changes_state_is_tried() {
    let tried: BTreeSet<&str> = calls().iter().map(|call| call.operation).collect();
    let document = canton_keyvault::api::openapi();
    let operations = document.paths.paths.values().flat_map(|item| [&item.post, &item.delete, &item.get]).flatten();
    let changing: BTreeSet<String> = operations
        .filter_map(|operation| operation.operation_id.clone())
        .filter(|operation| operation.parse::<Operation>().unwrap().changes_state())
        .collect();
    assert_eq!(changing.iter().map(String::as_str).collect::<BTreeSet<_>>(), tried);
}

/// The vault with its callers.
struct Scene {
    vault: TestVault,
    disk: SlowDisk,
}

impl Scene {
    fn caller(&self, principal: &str) -> Caller {
        Caller::new(&self.vault, principal)
    }

    /// The path or body with fresh objects in place of the words in braces.
    async fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if text.contains("{key}") {
            text = text.replace("{key}", &self.fill_key().await);
        }
        if text.contains("{imported}") {
            let material = STANDARD.encode(crate::support::openssl::genpkey(&["ED25519"]));
            let body = json!({ "node": "participant1", "format": "pkcs8", "material": material, "class": "permanent" });
            text = text.replace("{imported}", &id(&self.caller("key-admin").post("/v1/keys/import", &body).await.success()));
        }
        if text.contains("{wrapper}") {
            let body = json!({ "provider": "local", "create": true });
            text = text.replace("{wrapper}", &id(&self.caller("wrapper-admin").post("/v1/wrapper-keys", &body).await.success()));
        }
        if text.contains("{removal}") {
            text = text.replace("\"{removal}\"", &self.removal().await.to_string());
        }
        text
    }

    /// A block of the log that may be removed.
    async fn removal(&self) -> Value {
        let (caller, key) = (self.caller("participant1"), self.fill_key().await);
        let messages = vec![json!({ "message": "" }); 64];
        for _ in 0..24 {
            caller.post(&format!("/v1/keys/{key}/sign-batch"), &json!({ "algorithm": "ed25519", "messages": messages })).await.success();
        }
        let made = self.caller("auditor").post("/v1/audit/checkpoints", &json!({})).await.success();
        let note = SignedNote::parse(made["note"].as_str().unwrap().as_bytes()).unwrap();
        let Checkpoint { size, root, .. } = Checkpoint::parse(note.text()).unwrap();
        // `[audit] minimum_retention` of these vaults.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        json!({ "first": 1, "size": size, "root": STANDARD.encode(root) })
    }

    async fn fill_key(&self) -> String {
        self.caller("participant1").signing_key("participant1").await
    }

    /// Makes the call at each moment, with the connection dropped then.
    async fn disconnect(&self, call: &ChangeCall) {
        // So many keys keep a job over all keys running while its writes are slow.
        for _ in 0..if call.path.contains("{job}") || call.path.contains("{rotation}") { 60 } else { 0 } {
            self.fill("{key}").await;
        }
        for moment in MOMENTS {
            let (mut path, body) = (self.fill(call.path).await, self.fill(&call.body.to_string()).await);
            let admin = self.caller("key-admin");
            if let Some((method, before)) = call.before {
                let key = path.split('/').nth(3).unwrap_or_default().to_owned();
                admin.send(method, &before.replace("{key}", &key), &[], "").await.success();
            }
            self.disk.set_delay(SYNC);
            if path.contains("{job}") {
                path = path.replace("{job}", &self.running(&admin, "/v1/keys/reseals", Value::Null).await);
            }
            if path.contains("{rotation}") {
                let to = json!({ "to": self.fill("{wrapper}").await });
                path = path.replace("{rotation}", &self.running(&self.caller("wrapper-admin"), "/v1/wrapper-keys/rotations", to).await);
            }
            let body = serde_json::from_str(&body).unwrap();
            self.caller(call.principal).send_and_drop(call.method, &path, &body, Duration::from_millis(moment)).await;
            self.disk.set_delay(Duration::ZERO);
            self.settled().await;
        }
    }

    /// Starts a job; every write of it is slow.
    async fn running(&self, caller: &Caller, path: &str, body: Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        id(&caller.send("POST", path, &[], body).await.success())
    }

    /// Waits until nothing changes any more: no job runs, and memory and log agree.
    async fn settled(&self) {
        let began = Instant::now();
        // A read writes an entry, which waits behind the last slow sync.
        while self.caller("auditor").get("/v1/status").await.status != 200 {
            assert!(began.elapsed() < PATIENCE, "the vault does not answer");
        }
        while let Err(why) = self.agreement().await {
            assert!(began.elapsed() < PATIENCE, "{why}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether what the vault does, what it shows and what the log says are the same.
    async fn agreement(&self) -> Result<(), String> {
        let auditor = self.caller("auditor");
        for jobs in ["/v1/keys/reseals", "/v1/wrapper-keys/rotations"] {
            let jobs = auditor.get(jobs).await.success();
            if jobs["items"].as_array().unwrap().iter().any(|job| job["state"] == "running") {
                return Err(format!("a job runs: {jobs}"));
            }
        }
        let frozen = self.frozen().await;
        let switches = [auditor.log("&operation=vault.freeze&outcome=ok").await, auditor.log("&operation=vault.unfreeze&outcome=ok").await];
        let newest = switches.iter().flatten().max_by_key(|entry| entry["sequence"].as_u64());
        if frozen != newest.is_some_and(|entry| entry["operation"] == "vault.freeze") {
            return Err(format!("frozen is {frozen}, and the log says {newest:?}"));
        }
        for key in self.keys().await {
            let (id, state) = (id(&key), key["state"].as_str().unwrap());
            let entries = auditor.log(&format!("&key_id={id}&outcome=ok")).await;
            let logged = entries.iter().filter(|entry| entry["state"].is_string()).max_by_key(|entry| entry["sequence"].as_u64());
            let logged = logged.and_then(|entry| entry["state"].as_str()).unwrap_or_default();
            if logged.split(' ').next() != Some(state) {
                return Err(format!("{id} is {state}, and the log says {logged}"));
            }
            if key["purpose"] == "signing" {
                let used = self.caller("participant1").sign(&id).await.status == 200;
                if used != (state == "active" && key["topology_only"] != true && !frozen) {
                    return Err(format!("{id} is {state}, and it signs: {used}"));
                }
            }
        }
        Ok(())
    }

    async fn keys(&self) -> Vec<Value> {
        self.caller("auditor").get("/v1/keys?limit=100").await.success()["items"].as_array().unwrap().clone()
    }

    /// What a restart must not change.
    async fn facts(&self) -> Value {
        let auditor = self.caller("auditor");
        let wrapper_keys = auditor.get("/v1/wrapper-keys").await.success()["items"].as_array().unwrap().clone();
        let states: Vec<Value> = wrapper_keys.iter().map(|key| json!([key["id"], key["state"]])).collect();
        let verifier_keys = auditor.get("/v1/audit/verifier-keys").await.success();
        let removals = auditor.log("&operation=audit.remove-entries&outcome=ok").await;
        let removed: Vec<&Value> = removals.iter().map(|entry| &entry["removed_through"]).collect();
        json!([self.keys().await, states, verifier_keys, self.frozen().await, removed])
    }

    async fn frozen(&self) -> bool {
        let status = self.caller("auditor").get("/v1/status").await.success();
        status["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == "frozen")
    }

    /// Repeats a call until its commit is the one that the slow disk delays. A call whose commit was not begun in time did not happen.
    async fn until_unknown(&self, principal: &str, path: &str, body: &str) {
        let began = Instant::now();
        loop {
            // Only a creation takes it.
            let once: &[(&str, &str)] = if path == "/v1/keys" { &[("idempotency-key", "slow")] } else { &[] };
            let answer = self.caller(principal).send("POST", path, once, body.to_owned()).await;
            match answer.outcome() {
                (503, code) if code == "outcome_unknown" => return,
                (503, code) if code == "audit_unavailable" => assert!(began.elapsed() < PATIENCE, "{}", answer.text),
                _ => panic!("{}", answer.text),
            }
        }
    }
}

async fn try_calls(operations: &[&str]) {
    for call in calls().iter().filter(|call| operations.contains(&call.operation)) {
        let (vault, disk) = SlowDisk::vault(|config| {
            config.replace(
                "[log]",
                "[audit]\ncheckpoint_interval = \"1day\"\nminimum_retention = \"1s\"\n\n[limits]\ncreations_per_minute = 100000\nrefusals_per_second = 1000000\ncache_misses_per_second = 100000\n\n[log]",
            )
        });
        let mut scene = Scene { vault, disk };
        scene.disconnect(call).await;
        let log = scene.caller("auditor").log(&format!("&operation={}", call.operation)).await;
        assert!(!log.is_empty(), "{}: no call arrived", call.operation);
        let completed = log.iter().filter(|entry| entry["outcome"] == "ok").count();
        assert!(completed > 0 || call.operation == "wrapper-keys.replicate", "{}: no call completed: {log:?}", call.operation);
        let facts = scene.facts().await;
        scene.vault.restart();
        scene.settled().await;
        assert_eq!(scene.facts().await, facts, "{}: a restart changed it", call.operation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_creation() {
    try_calls(&["keys.create", "keys.import", "keys.rotate", "wrapper-keys.add", "wrapper-keys.replicate", "audit.rotate-checkpoint-key"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_change_of_a_key() {
    try_calls(&["keys.disable", "keys.enable", "keys.supersede", "keys.restrict-signing", "keys.rename"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_deletion_and_no_reseal() {
    try_calls(&["keys.delete", "keys.withdraw", "keys.cancel-deletion", "keys.reseal"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_job_and_no_retirement() {
    try_calls(&["reseals.start", "reseals.abort", "wrapper-keys.rename", "wrapper-keys.retire", "rotations.start", "rotations.abort"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_freeze() {
    try_calls(&["vault.freeze", "vault.unfreeze"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_interrupts_no_removal() {
    try_calls(&["audit.remove-entries"]).await;
}

/// The outcome of a change that takes longer than a caller waits is not reported as a failure, and memory follows the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_change_is_reported_as_unknown_and_takes_effect_when_it_is_stored() {
    let (vault, disk) =
        SlowDisk::vault(|config| config.replace("path = \"keyvault.db\"", "path = \"keyvault.db\"\ncommit_timeout = \"200ms\""));
    let scene = Scene { vault, disk };
    let (admin, wrapper_admin) = (scene.caller("key-admin"), scene.caller("wrapper-admin"));
    let key = scene.fill("{key}").await;
    scene.disk.set_delay(Duration::from_secs(1));
    let disabled = admin.step(&key, "disable").await.success();
    assert_eq!((&disabled["state"], &disabled["recorded"]), (&json!("disabled"), &json!(false)));
    let body = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    scene.until_unknown("participant1", "/v1/keys", &body.to_string()).await;
    let frozen = wrapper_admin.send("POST", "/v1/freeze", &[], "").await.success();
    assert_eq!(frozen, json!({ "frozen": true, "recorded": false }));
    scene.until_unknown("wrapper-admin", "/v1/unfreeze", "").await;
    scene.disk.set_delay(Duration::ZERO);
    // Each of them completes without its caller.
    scene.settled().await;
    let began = Instant::now();
    while scene.frozen().await {
        assert!(began.elapsed() < PATIENCE, "the unfreeze that was stored did not take effect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The creation happened once: repeated with its key, it gives the key that was created.
    let again = scene.caller("participant1").once("/v1/keys", "slow", &body).await.success();
    assert_eq!(scene.keys().await.iter().filter(|found| found["id"] != key.as_str()).map(id).collect::<Vec<_>>(), [id(&again)]);
    scene.settled().await;
}
