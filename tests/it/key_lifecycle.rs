//! The states of a key and the freeze, from outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use canton_keyvault::domain::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    api::{Caller, id},
    vault::TestVault,
};

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
}

impl Cast {
    fn start() -> Self {
        let vault = TestVault::start();
        let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
        Self { vault, node, admin }
    }

    /// kill -9, and start again.
    fn restart(&mut self) {
        self.vault.restart();
        (self.node, self.admin) = (Caller::new(&self.vault, "participant1"), Caller::new(&self.vault, "key-admin"));
    }

    async fn show(&self, id: &str) -> Value {
        self.admin.get(&format!("/v1/keys/{id}")).await.success()
    }

    async fn step(&self, id: &str, step: &str) -> Value {
        self.admin.step(id, step).await.success()
    }

    async fn schedule(&self, id: &str) -> Value {
        self.admin.delete(&format!("/v1/keys/{id}?days=7")).await.success()
    }

    async fn decrypt(&self, id: &str, ciphertext: &Value) -> crate::support::api::Reply {
        let body = json!({ "algorithm": "aes-256-gcm", "ciphertext": ciphertext });
        self.node.post(&format!("/v1/keys/{id}/decrypt"), &body).await
    }
}

#[tokio::test]
async fn a_way_back_restores_the_state_before_and_never_more() {
    let mut cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    for (step, state, revision) in [("supersede", "superseded", 2), ("disable", "disabled", 3)] {
        let shown = cast.step(&key, step).await;
        assert_eq!((&shown["state"], &shown["revision"]), (&json!(state), &json!(revision)));
    }
    let pending = cast.schedule(&key).await;
    assert_eq!(pending["state"], "pending-deletion");
    assert!(pending["delete_at"].is_string());
    cast.restart();
    let back = cast.step(&key, "cancel-deletion").await;
    assert_eq!((&back["state"], &back["delete_at"]), (&json!("disabled"), &Value::Null));
    cast.node.sign(&key).await.refused(409, "key_disabled");
    assert_eq!(cast.step(&key, "enable").await["state"], "superseded");
    cast.node.sign(&key).await.refused(409, "key_superseded");
    // Superseded is final, and every invalid state change names the state of the key.
    let problem = cast.admin.step(&key, "enable").await.refused(409, "invalid_key_state");
    assert!(problem["detail"].as_str().unwrap().contains("superseded"), "{problem}");

    let key = cast.node.signing_key("participant1").await;
    cast.schedule(&key).await;
    cast.node.sign(&key).await.refused(409, "key_pending_deletion");
    assert_eq!(cast.step(&key, "cancel-deletion").await["state"], "active");
    cast.node.sign(&key).await.success();
    cast.step(&key, "disable").await;
    cast.restart();
    cast.node.sign(&key).await.refused(409, "key_disabled");
    assert_eq!(cast.step(&key, "enable").await["state"], "active");
    cast.restart();
    cast.node.sign(&key).await.success();
}

#[tokio::test]
async fn a_superseded_key_decrypts_what_exists_and_makes_nothing_new() {
    let mut cast = Cast::start();
    let key = id(&cast.node.create("participant1", "symmetric", "aes-256").await);
    let encrypt = json!({ "plaintext": "aGVsbG8=" });
    let path = format!("/v1/keys/{key}/encrypt");
    let ciphertext = cast.node.post(&path, &encrypt).await.success()["ciphertext"].clone();
    cast.step(&key, "supersede").await;
    for _ in 0..2 {
        cast.node.post(&path, &encrypt).await.refused(409, "key_superseded");
        assert_eq!(cast.decrypt(&key, &ciphertext).await.success()["plaintext"], "aGVsbG8=");
        cast.restart();
    }
    cast.schedule(&key).await;
    cast.decrypt(&key, &ciphertext).await.refused(409, "key_pending_deletion");
}

#[tokio::test]
async fn a_permanent_key_is_not_rotated_superseded_or_deleted() {
    let cast = Cast::start();
    for body in [
        json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "usage": ["namespace"] }),
        json!({ "node": "participant1", "purpose": "signing", "spec": "ec-p256", "name": "participant1-namespace" }),
        json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "class": "permanent" }),
    ] {
        let key = cast.node.post("/v1/keys", &body).await.success();
        assert_eq!(key["class"], "permanent");
        let key = id(&key);
        cast.node.step(&key, "rotate").await.refused(409, "permanent_key");
        cast.admin.step(&key, "supersede").await.refused(409, "permanent_key");
        for who in [&cast.node, &cast.admin] {
            who.delete(&format!("/v1/keys/{key}?days=30")).await.refused(409, "permanent_key");
        }
        // Switching it off and on again must be possible all the same.
        cast.step(&key, "disable").await;
        assert_eq!(cast.step(&key, "enable").await["state"], "active");
    }
}

#[tokio::test]
async fn rotation_links_two_keys_and_the_old_one_signs_on_until_superseded() {
    let mut cast = Cast::start();
    let body =
        json!({ "node": "participant1", "purpose": "signing", "spec": "ec-p256", "name": "participant1-signing", "usage": ["protocol"] });
    let old = cast.node.post("/v1/keys", &body).await.success();
    let rotated = cast.node.step(&id(&old), "rotate").await;
    assert_eq!(rotated.status, 201);
    let new = rotated.json();
    assert_ne!(new["id"], old["id"]);
    assert_eq!((&new["predecessor"], &new["successor"]), (&old["id"], &Value::Null));
    for same in ["node", "purpose", "spec", "usage", "class"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    assert!(new["name"].as_str().unwrap().starts_with("participant1-signing-rotated-"), "{new}");
    let problem = cast.node.step(&id(&old), "rotate").await.refused(409, "key_has_successor");
    assert!(problem["detail"].as_str().unwrap().contains(&id(&new)), "{problem}");

    let sign = json!({ "algorithm": "ecdsa-sha256", "message": "aGVsbG8=" });
    let (old_path, new_path) = (format!("/v1/keys/{}/sign", id(&old)), format!("/v1/keys/{}/sign", id(&new)));
    for _ in 0..2 {
        let shown = cast.show(&id(&old)).await;
        assert_eq!((&shown["state"], &shown["successor"]), (&json!("active"), &new["id"]));
        cast.node.post(&old_path, &sign).await.success();
        cast.node.post(&new_path, &sign).await.success();
        cast.restart();
    }
    cast.step(&id(&old), "supersede").await;
    cast.node.post(&old_path, &sign).await.refused(409, "key_superseded");
    cast.node.post(&new_path, &sign).await.success();
    // The next generation keeps the first name and does not pile up suffixes.
    let third = cast.node.post(&format!("/v1/keys/{}/rotate", id(&new)), &json!({})).await.success();
    assert_eq!(third["name"].as_str().unwrap().matches("-rotated-").count(), 1, "{third}");
    let named = cast.node.post(&format!("/v1/keys/{}/rotate", id(&third)), &json!({ "name": "mine" })).await.success();
    assert_eq!(named["name"], "mine");
}

#[tokio::test]
async fn a_deletion_waits_a_week_to_a_year() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    for days in ["6", "0", "366", "-1", "4294967303", "seven", "7.5", ""] {
        cast.node.delete(&format!("/v1/keys/{key}?days={days}")).await.refused(400, "invalid_request");
    }
    assert_eq!(cast.show(&key).await["state"], "active");
    for (query, days) in [("?days=7", 7), ("", 30), ("?days=365", 365)] {
        let shown = cast.node.delete(&format!("/v1/keys/{key}{query}")).await.success();
        let at = |text: &Value| Timestamp::parse(text.as_str().unwrap()).unwrap();
        let waits = at(&shown["delete_at"]).since(at(&shown["created_at"]));
        let exact = Duration::from_secs(days * 24 * 3600);
        assert!((exact..exact + Duration::from_mins(10)).contains(&waits), "{waits:?}");
        cast.step(&key, "cancel-deletion").await;
    }
}

#[tokio::test]
async fn a_freeze_refuses_every_use_and_outlives_a_restart_until_a_wrapper_admin_ends_it() {
    let mut cast = Cast::start();
    let (key, other) = (cast.node.signing_key("participant1").await, cast.node.signing_key("participant1").await);
    cast.step(&other, "disable").await;
    cast.node.sign(&key).await.success();
    let frozen = cast.admin.post("/v1/freeze", &json!({})).await.success();
    assert_eq!(frozen, json!({ "frozen": true, "recorded": true }));
    for _ in 0..2 {
        let refused = cast.node.sign(&key).await;
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(refused.refused(503, "frozen")["retryable"], true);
        let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
        cast.node.post("/v1/keys", &new).await.refused(503, "frozen");
        cast.node.step(&key, "rotate").await.refused(503, "frozen");
        cast.admin.step(&other, "enable").await.refused(503, "frozen");
        cast.admin.post("/v1/unfreeze", &json!({})).await.refused(403, "forbidden");
        let status = cast.node.get("/v1/status").await.success();
        assert_eq!((&status["degraded"], &status["reasons"]), (&json!(true), &json!([{ "code": "frozen" }])));
        cast.show(&key).await;
        cast.restart();
    }
    // Changes that remove rights work while the vault is frozen, so that a key can be disabled without an unfreeze.
    cast.step(&key, "disable").await;
    cast.schedule(&other).await;
    let thaw = || Caller::new(&cast.vault, "wrapper-admin");
    assert_eq!(thaw().post("/v1/unfreeze", &json!({})).await.success()["frozen"], false);
    cast.node.sign(&key).await.refused(409, "key_disabled");
    assert_eq!(cast.step(&key, "enable").await["state"], "active");
    cast.node.sign(&key).await.success();
    cast.restart();
    cast.node.sign(&key).await.success();
}

/// Traffic on one key from several connections while `during` runs; gives how every call ended.
async fn under_traffic<F: Future<Output = ()>>(vault: &TestVault, key: &str, during: F) -> Vec<(u16, String)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut traffic = JoinSet::new();
    for _ in 0..4 {
        let (caller, key, stop) = (Caller::new(vault, "participant1"), key.to_owned(), Arc::clone(&stop));
        traffic.spawn(async move {
            let mut ends = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                ends.push(caller.sign(&key).await.outcome());
            }
            ends
        });
    }
    during.await;
    stop.store(true, Ordering::Relaxed);
    traffic.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_goes_on_without_an_error_while_its_key_and_others_change() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    let ends = under_traffic(&cast.vault, &key, async {
        for _ in 0..10 {
            let other = cast.node.signing_key("participant1").await;
            cast.node.sign(&other).await.success();
            cast.step(&other, "disable").await;
            cast.step(&other, "enable").await;
        }
        cast.node.step(&key, "rotate").await.success();
        cast.node.sign(&key).await.success();
    })
    .await;
    assert!(ends.len() > 20, "{}", ends.len());
    assert!(ends.iter().all(|(status, _)| *status == 200), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_disabled_under_load_is_refused_after_the_response() {
    let cast = Cast::start();
    let admin = Caller::new(&cast.vault, "wrapper-admin");
    for off in ["disable", "supersede", "delete", "freeze"] {
        let key = cast.node.signing_key("participant1").await;
        let ends = under_traffic(&cast.vault, &key, async {
            for _ in 0..5 {
                cast.node.sign(&key).await.success();
            }
            match off {
                "delete" => drop(cast.schedule(&key).await),
                "freeze" => drop(admin.post("/v1/freeze", &json!({})).await.success()),
                step => drop(cast.step(&key, step).await),
            }
            for _ in 0..5 {
                assert!(cast.node.sign(&key).await.status >= 400, "signed after the answer to {off}");
            }
        })
        .await;
        let allowed = ["", "key_disabled", "key_superseded", "key_pending_deletion", "frozen"];
        assert!(ends.iter().all(|(_, code)| allowed.contains(&code.as_str())), "{off}: {ends:?}");
        assert!(ends.iter().any(|(status, _)| *status == 200) && ends.iter().any(|(status, _)| *status >= 400), "{off}");
    }
}

/// After concurrent freezes and unfreezes, memory and store agree on the last one.
#[tokio::test(flavor = "multi_thread")]
async fn freezing_and_unfreezing_at_the_same_time_end_alike_in_memory_and_in_the_store() {
    let vault = TestVault::start();
    for round in 0..25 {
        let turns = ["freeze", "unfreeze", "freeze", "unfreeze"].map(|turn| {
            let admin = vault.client("wrapper-admin");
            tokio::spawn(async move { admin.post(&format!("/v1/{turn}"), &json!({})).await.unwrap() })
        });
        for turn in turns {
            turn.await.unwrap();
        }
        let status = vault.client("auditor").get("/v1/status").await.unwrap();
        let in_memory = status["reasons"].as_array().unwrap().contains(&json!({ "code": "frozen" }));
        let stored: bool = vault.database().query_row("SELECT frozen FROM meta", [], |row| row.get(0)).unwrap();
        assert_eq!(in_memory, stored, "round {round}");
    }
}
