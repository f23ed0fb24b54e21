//! Errors of people are corrected: a key gets another name, a key that was imported by mistake is withdrawn, and a destroyed key comes back.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    cli::pki::principal,
    domain::{AuditEvent, KeyId, Operation, Principal, StateChange, Timestamp},
    storage::{Change, KeyUpdate},
};
use serde_json::{Value, json};

use crate::support::{
    api::{Caller, Reply, enroll, id},
    openssl::genpkey,
    vault::{TestVault, until},
};

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
    auditor: Caller,
}

impl Cast {
    fn start() -> Self {
        Self::of(TestVault::start())
    }

    fn of(vault: TestVault) -> Self {
        let caller = |who| Caller::new(&vault, who);
        Self { node: caller("participant1"), admin: caller("key-admin"), auditor: caller("auditor"), vault }
    }

    /// kill -9, and start again.
    fn restart(self) -> Self {
        let Self { mut vault, .. } = self;
        vault.restart();
        Self::of(vault)
    }

    async fn show(&self, key: &str) -> Value {
        self.admin.get(&format!("/v1/keys/{key}")).await.success()
    }

    async fn import(&self, body: &Value) -> Reply {
        self.admin.post("/v1/keys/import", body).await
    }

    async fn withdraw(&self, key: &str) -> Reply {
        self.admin.post(&format!("/v1/keys/{key}/withdraw"), &json!({ "days": 7 })).await
    }

    /// Brings the scheduled deletion of a key forward, by a state change in the log while the vault is down, and waits until it is destroyed.
    async fn let_it_be_destroyed(self, key: &str) -> Self {
        let Self { mut vault, .. } = self;
        vault.kill();
        let row = "SELECT revision, lifecycle FROM keys WHERE id = ?1";
        let (revision, lifecycle): (i64, String) = vault.database().query_row(row, [key], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let (id, if_revision): (KeyId, u64) = (key.parse().unwrap(), revision.try_into().unwrap());
        let past = Timestamp::from_micros(1);
        let to = StateChange { revision: if_revision + 1, lifecycle: lifecycle.parse().unwrap(), successor: None, delete_at: Some(past) };
        let event =
            AuditEvent { key: Some(id), change: Some(to), ..AuditEvent::new(past, Principal::system(), Operation::DeleteKey, "p".into()) };
        let update = KeyUpdate { key: id, if_revision, to, row_tag: None, reinstate_wrap: None };
        vault.commit_offline(Change::UpdateKey(update), event).await;
        vault.serve();
        let cast = Self::of(vault);
        until("destroyed", || async { cast.show(key).await["state"] == "destroyed" }).await;
        cast
    }
}

/// An Ed25519 key of `node` to import, with more fields.
fn ed25519(material: &[u8], node: &str, more: &Value) -> Value {
    let mut body = json!({ "node": node, "format": "pkcs8", "material": STANDARD.encode(material) });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap()
}

#[tokio::test]
async fn a_key_gets_another_name_and_the_entry_has_both() {
    let mut cast = Cast::start();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "participant2-namespace" });
    let before = cast.node.post("/v1/keys", &new).await.success();
    let (key, path) = (id(&before), format!("/v1/keys/{}/name", id(&before)));
    cast.node.sign(&key).await.success();
    for (name, entry) in [
        (json!("participant1-namespace"), r#""participant1-namespace" instead of "participant2-namespace""#),
        (json!(null), r#"no name instead of "participant1-namespace""#),
        (json!("back"), r#""back" instead of no name"#),
    ] {
        let renamed = cast.admin.post(&path, &json!({ "name": name })).await.success();
        assert_eq!(renamed["name"], name);
        let log = cast.auditor.log(&format!("&key_id={key}&operation=keys.rename")).await;
        let newest = log.last().unwrap();
        assert_eq!((&newest["subject"], &newest["outcome"]), (&json!(entry), &json!("ok")));
        assert!(newest["previous"].is_string(), "it is in the chain of state changes: {newest}");
        cast.node.sign(&key).await.success();
        // The chain is verified at the start.
        cast = cast.restart();
        assert_eq!(cast.show(&key).await["name"], name);
        cast.node.sign(&key).await.success();
    }
    // Nothing else changed: the usages that followed from the first name stay.
    let after = cast.show(&key).await;
    for fact in ["id", "node", "usage", "class", "state", "revision", "generation", "created_at"] {
        assert_eq!(after[fact], before[fact], "{fact}");
    }
    // The same name again is no state change.
    cast.admin.post(&path, &json!({ "name": "back" })).await.success();
    let newest = cast.auditor.log(&format!("&key_id={key}&operation=keys.rename")).await.pop().unwrap();
    assert_eq!(newest["previous"], Value::Null);
    // Neither an empty body nor a bad name removes a name, and two keys can have one name, as at their creation.
    for body in [json!({}), json!({ "name": "" }), json!({ "name": "a\nb" }), json!({ "name": 7 })] {
        cast.admin.post(&path, &body).await.refused(400, "invalid_request");
    }
    assert_eq!(cast.show(&key).await["name"], "back");
    let other = cast.node.signing_key("participant1").await;
    assert_eq!(cast.admin.post(&format!("/v1/keys/{other}/name"), &json!({ "name": "back" })).await.success()["name"], "back");
    cast.node.post(&path, &json!({ "name": "mine" })).await.refused(403, "forbidden");
}

/// The error that this is for: a namespace key, which is permanent, imported into the wrong node.
#[tokio::test]
async fn a_permanent_key_in_the_wrong_node_is_withdrawn_and_imported_into_the_right_one() {
    let cast = Cast::start();
    let material = genpkey(&["ED25519"]);
    let wrong =
        ed25519(&material, "participant2", &json!({ "usage": ["namespace"], "name": "participant2-namespace", "exportable": true }));
    let imported = cast.import(&wrong).await.success();
    let key = id(&imported);
    assert_eq!(imported["class"], "permanent");
    // The deletion is refused with the way out, and so is the import into the right node.
    let problem = cast.admin.delete(&format!("/v1/keys/{key}")).await.refused(409, "permanent_key");
    assert!(detail(&problem).contains("withdrawn"), "{problem}");
    let right = ed25519(&material, "participant1", &json!({ "usage": ["namespace"], "name": "participant1-namespace" }));
    let problem = cast.import(&right).await.refused(409, "key_exists");
    assert!(detail(&problem).contains("node \"participant2\"") && detail(&problem).contains("participant1"), "{problem}");

    // The waiting time is that of a deletion, and a cancellation restores the key.
    for days in [json!(6), json!(366), json!("7"), json!(-1)] {
        let refused = cast.admin.post(&format!("/v1/keys/{key}/withdraw"), &json!({ "days": days })).await;
        refused.refused(400, "invalid_request");
    }
    let told = cast.admin.post("/v1/authorize", &json!({ "operation": "keys.withdraw", "key_id": key })).await.success();
    assert_eq!((&told["permitted_by_policy"], &told["code"]), (&json!(true), &Value::Null));
    let pending = cast.withdraw(&key).await.success();
    assert_eq!(pending["state"], "pending-deletion");
    assert!(pending["delete_at"].is_string());
    let node2 = Caller::new(&cast.vault, "participant2");
    node2.sign(&key).await.refused(409, "key_pending_deletion");
    Caller::new(&cast.vault, "exporter")
        .post(&format!("/v1/keys/{key}/export"), &json!({ "format": "pkcs8" }))
        .await
        .refused(409, "key_pending_deletion");
    let again = cast.withdraw(&key).await.refused(409, "invalid_key_state");
    assert!(detail(&again).contains("scheduled already"), "{again}");
    let cast = cast.restart();
    assert_eq!(cast.admin.step(&key, "cancel-deletion").await.success()["state"], "active");
    cast.withdraw(&key).await.success();
    let cast = cast.let_it_be_destroyed(&key).await;

    // Without the flag the refusal says what happened and what to do. With it the key is the same key of another node.
    let problem = cast.import(&right).await.refused(409, "key_destroyed");
    assert!(detail(&problem).contains("destroyed") && detail(&problem).contains("replace_destroyed"), "{problem}");
    let before = cast.show(&key).await;
    let mut right = right;
    right["replace_destroyed"] = json!(true);
    let back = cast.import(&right).await;
    assert_eq!(back.status, 201, "{}", back.text);
    let back = back.json();
    assert_eq!((&back["id"], &back["node"], &back["state"]), (&json!(key), &json!("participant1"), &json!("active")));
    assert_eq!(
        (&back["name"], &back["exportable"], &back["class"]),
        (&json!("participant1-namespace"), &json!(false), &json!("permanent"))
    );
    assert_eq!(back["revision"].as_u64(), before["revision"].as_u64().map(|revision| revision + 1));
    assert_eq!(back["generation"].as_u64(), before["generation"].as_u64().map(|generation| generation + 1));
    let log = cast.auditor.log(&format!("&key_id={key}&operation=keys.import&outcome=ok")).await;
    assert_eq!((&log[1]["revision"], &log[1]["reason"]), (&back["revision"], &json!("replaces the destroyed key of node participant2")));
    let cast = cast.restart();
    cast.node.sign(&key).await.success();
    Caller::new(&cast.vault, "participant2").sign(&key).await.refused(404, "not_found");
    // A repetition finds it. A further import elsewhere does not replace a key that is not destroyed.
    assert_eq!(cast.import(&right).await.status, 200);
    right["node"] = json!("participant2");
    cast.import(&right).await.refused(409, "key_exists");
}

#[tokio::test]
async fn a_key_that_was_used_is_not_withdrawn_and_the_refusal_names_its_first_use() {
    let mut cast = Cast::start();
    let new = |more: Value| ed25519(&genpkey(&["ED25519"]), "participant1", &more);
    let used = id(&cast.import(&new(json!({ "class": "permanent" }))).await.success());
    // Neither a refused use nor what does not use the private key for anybody is a use.
    cast.node
        .post(&format!("/v1/keys/{used}/sign"), &json!({ "algorithm": "ecdsa-sha256", "message": "" }))
        .await
        .refused(422, "unsupported_algorithm");
    cast.admin.sign(&used).await.refused(403, "forbidden");
    cast.admin.step(&used, "disable").await.success();
    cast.node.sign(&used).await.refused(409, "key_disabled");
    cast.admin.step(&used, "enable").await.success();
    cast.admin.step(&used, "reseal").await.success();
    cast.withdraw(&used).await.success();
    cast.admin.step(&used, "cancel-deletion").await.success();

    cast.node.sign(&used).await.success();
    let log = cast.auditor.log(&format!("&key_id={used}&operation=keys.sign&outcome=ok")).await;
    let (at, sequence) = (log[0]["at"].as_str().unwrap(), log[0]["sequence"].as_u64().unwrap());
    assert!(log[0]["previous"].is_string(), "the first use is a state change: {}", log[0]);
    for _ in 0..2 {
        cast.node.sign(&used).await.success();
        let problem = cast.withdraw(&used).await.refused(409, "key_was_used");
        let expected = format!("keys.sign at {at}, entry {sequence} of the log");
        assert!(detail(&problem).contains(&expected), "{problem}");
        let told = cast.admin.post("/v1/authorize", &json!({ "operation": "keys.withdraw", "key_id": used })).await.success();
        assert_eq!(told["code"], "key_was_used");
        assert!(told["detail"].as_str().unwrap().contains(&expected), "{told}");
        cast = cast.restart();
    }
    assert_eq!(cast.show(&used).await["state"], "active");
    let log = cast.auditor.log(&format!("&key_id={used}&operation=keys.sign&outcome=ok")).await;
    assert!(log.len() == 3 && log[1..].iter().all(|entry| entry["previous"].is_null()), "only the first use is one: {log:?}");

    // Every way to use a key counts.
    let shared = id(&cast.import(&new(json!({ "exportable": true }))).await.success());
    let exporter = Caller::new(&cast.vault, "exporter");
    exporter.post(&format!("/v1/keys/{shared}/export"), &json!({ "format": "pkcs8" })).await.success();
    assert!(detail(&cast.withdraw(&shared).await.refused(409, "key_was_used")).contains("keys.export"));
    let raw = json!({ "node": "participant1", "format": "raw", "material": STANDARD.encode([7; 32]) });
    let symmetric = id(&cast.import(&raw).await.success());
    cast.node.post(&format!("/v1/keys/{symmetric}/encrypt"), &json!({ "plaintext": "aGVsbG8=" })).await.success();
    assert!(detail(&cast.withdraw(&symmetric).await.refused(409, "key_was_used")).contains("keys.encrypt"));
    // What the vault made itself is not withdrawn, whatever its column says.
    let generated = cast.node.signing_key("participant1").await;
    cast.withdraw(&generated).await.refused(409, "not_imported");
    let edit = "UPDATE keys SET origin = 'imported' WHERE id = ?1";
    assert_eq!(cast.vault.database().execute(edit, [&generated]).unwrap(), 1);
    let problem = cast.withdraw(&generated).await.refused(409, "key_use_unknown");
    assert!(detail(&problem).contains("no entry of the import"), "{problem}");
    assert_eq!(cast.show(&generated).await["state"], "active");
}

/// A destroyed key comes back as an import of its own: what happened before is not its past, but stays in the log.
#[tokio::test]
async fn an_imported_key_that_was_used_and_destroyed_comes_back_unused() {
    let cast = Cast::start();
    let material = genpkey(&["ED25519"]);
    let first = ed25519(&material, "participant1", &json!({ "usage": ["protocol"], "name": "first" }));
    let key = id(&cast.import(&first).await.success());
    cast.node.sign(&key).await.success();
    let successor = id(&cast.node.step(&key, "rotate").await.success());
    cast.admin.delete(&format!("/v1/keys/{key}?days=7")).await.success();
    let mut cast = cast.let_it_be_destroyed(&key).await;
    let body = json!({ "name": "second", "class": "permanent", "usage": ["namespace"], "replace_destroyed": true });
    let back = cast.import(&ed25519(&material, "participant1", &body)).await.success();
    assert_eq!((&back["name"], &back["usage"], &back["class"]), (&json!("second"), &json!(["namespace"]), &json!("permanent")));
    assert_eq!((&back["successor"], &back["delete_at"]), (&Value::Null, &Value::Null));
    assert_eq!(cast.show(&successor).await["predecessor"], json!(key));
    for _ in 0..2 {
        // Unused since its import, also after the chain was read again.
        cast.withdraw(&key).await.success();
        cast.admin.step(&key, "cancel-deletion").await.success();
        cast = cast.restart();
    }
    cast.node.sign(&key).await.success();
    cast.withdraw(&key).await.refused(409, "key_was_used");
    for command in ["backup", "verify-backup"] {
        let output = cast.vault.command(&[command, cast.vault.path("copy.db").to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A refusal of an import names what differs, and tells a caller nothing about a node on which they have no rights.
#[tokio::test]
async fn an_import_that_is_refused_says_what_differs() {
    let grant = format!("\n[[grants]]\nprincipal = \"{}\"\nrole = \"key-admin\"\nnodes = [\"participant1\"]\n", principal("local"));
    let vault = TestVault::start_with(|config| config + &grant);
    enroll(&vault, "local");
    let (cast, local) = (Cast::of(vault), "local");
    let material = genpkey(&["ED25519"]);
    let stored = json!({ "usage": ["protocol"], "name": "mine" });
    let key = id(&cast.import(&ed25519(&material, "participant2", &stored)).await.success());
    for (field, value, expected) in [
        ("node", json!("participant1"), r#"node "participant2". The request says "participant1""#),
        ("usage", json!(["namespace"]), r#"usage "protocol". The request says "namespace""#),
        ("class", json!("permanent"), r#"class "long-term". The request says "permanent""#),
        ("exportable", json!(true), r#"exportable "false". The request says "true""#),
        ("name", json!("yours"), r#"name "mine". The request says "yours""#),
    ] {
        let mut body = ed25519(&material, "participant2", &stored);
        body[field] = value;
        let problem = cast.import(&body).await.refused(409, "key_exists");
        assert!(detail(&problem).contains(expected), "{field}: {problem}");
    }
    // Without a name, the name does not matter.
    assert_eq!(cast.import(&ed25519(&material, "participant2", &json!({ "usage": ["protocol"] }))).await.status, 200);

    let elsewhere = ed25519(&material, "participant1", &json!({ "usage": ["protocol"], "replace_destroyed": true }));
    let refused = |reply: Reply| {
        let problem = reply.refused(409, "key_exists");
        assert!(detail(&problem).contains("may not import") && !detail(&problem).contains("participant2"), "{problem}");
    };
    refused(Caller::new(&cast.vault, local).post("/v1/keys/import", &elsewhere).await);
    // They do not take a destroyed key of that node either.
    cast.withdraw(&key).await.success();
    let cast = cast.let_it_be_destroyed(&key).await;
    refused(Caller::new(&cast.vault, local).post("/v1/keys/import", &elsewhere).await);
    assert_eq!(cast.import(&elsewhere).await.success()["node"], "participant1");
}

fn canton(vault: &TestVault, arguments: &[&str], file: &Path) -> Value {
    let options = vault.options("key-admin");
    let mut command = vault.command(&["canton", "import", "--output", "json", "--url", &options.url]);
    command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key).args(arguments).arg(file);
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let [key] = report["keys"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(output.status.success(), key["outcome"] != "failed", "{report}");
    key.clone()
}

/// The same error with the command that moves a node.
#[tokio::test(flavor = "multi_thread")]
async fn canton_import_says_what_is_in_the_way_and_takes_a_destroyed_key_again() {
    let cast = Cast::start();
    let file = cast.vault.path("namespace.key");
    let pair = crate::canton_made::items("key_pairs");
    let pair = pair.iter().find(|item| item["name"] == "signing/ec-curve25519/namespace/0").unwrap();
    std::fs::write(&file, crate::known_bytes::unbase64(pair["export_b64"].as_str().unwrap())).unwrap();
    let (wrong, right) = (["--node", "participant2"], ["--node", "participant1"]);
    let imported = canton(&cast.vault, &wrong, &file);
    let key = imported["id"].as_str().unwrap().to_owned();
    assert_eq!(imported["outcome"], "done");
    let reason = |found: &Value| (found["outcome"].clone(), found["reason"].as_str().unwrap_or_default().to_owned());
    for arguments in [&right[..], &[right[0], right[1], "--dry-run"]] {
        let (outcome, why) = reason(&canton(&cast.vault, arguments, &file));
        assert!(outcome == "failed" && why.contains("`node`: \"participant2\" instead of \"participant1\""), "{why}");
        assert!(why.contains("keys withdraw"), "{why}");
    }
    // A name that was changed since does not matter to it.
    cast.admin.post(&format!("/v1/keys/{key}/name"), &json!({ "name": "renamed" })).await.success();
    assert_eq!(canton(&cast.vault, &wrong, &file)["outcome"], "present");
    // Withdrawn by the command, with a plan before it.
    let options = cast.vault.options("key-admin");
    let withdraw = |more: &[&str]| {
        let mut command = cast.vault.command(&["keys", "withdraw", &key, "--days", "7", "--output", "json", "--url", &options.url]);
        command.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key).args(more);
        command.output().unwrap()
    };
    assert_eq!(withdraw(&[]).status.code(), Some(2), "without a terminal it needs --yes");
    let plan: Value = serde_json::from_slice(&withdraw(&["--dry-run"]).stdout).unwrap();
    assert_eq!((&plan["dry_run"], &plan["key"]["state"]), (&json!(true), &json!("active")));
    assert!(withdraw(&["--yes"]).status.success());
    let refused = withdraw(&["--dry-run"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("scheduled already"), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(reason(&canton(&cast.vault, &wrong, &file)).1.contains("cancel its deletion"));

    let cast = cast.let_it_be_destroyed(&key).await;
    for arguments in [&right[..], &[right[0], right[1], "--dry-run"]] {
        let (outcome, why) = reason(&canton(&cast.vault, arguments, &file));
        assert!(outcome == "failed" && why.contains("destroyed") && why.contains("--replace-destroyed"), "{why}");
    }
    let replace = [right[0], right[1], "--replace-destroyed"];
    assert_eq!(canton(&cast.vault, &[&replace[..], &["--dry-run"]].concat(), &file)["outcome"], "planned");
    assert_eq!(canton(&cast.vault, &replace, &file)["outcome"], "done");
    assert_eq!(canton(&cast.vault, &replace, &file)["outcome"], "present");
    cast.node.sign(&key).await.success();
}
