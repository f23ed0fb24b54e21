//! Required sinks: no answer without a confirmed entry, and no freeze that waits for a sink.

use serde_json::json;

use crate::{
    disk_full::SmallDisk,
    support::vault::{TestVault, problem, until},
};

use super::{
    check_in_order, new_key, newest_of, read, ready,
    receiver::{Behaviour, Receiver},
    sequence, sign, stored, until_ready, vault_with,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_a_required_sink_denies_calls_but_no_freeze_and_heals_by_itself() {
    let disk = SmallDisk::new();
    let file = disk.path("audit.ndjson");
    let vault = vault_with(&format!(
        "\n[audit]\nsink_wait = \"500ms\"\n[[audit.sinks]]\nname = \"a\"\nmode = \"required\"\nkind = \"file\"\npath = \"{}\"\nfrom = \"beginning\"\n",
        file.display()
    ));
    until_ready(&vault).await;
    let (key, other) = (new_key(&vault).await, new_key(&vault).await);
    sign(&vault, &key).await.unwrap();
    let confirmed = read(&file);
    assert!(confirmed.lines().last().unwrap().contains("\"keys.sign\""), "the answer came after its entry");
    disk.fill();

    until("uses are denied", || async { sign(&vault, &key).await.is_err() }).await;
    until("the fault is known", || async { ready(&vault).await.1.to_string().contains("the required audit sink a: its disk is full") })
        .await;
    let (node, admin, wrapper_admin) = (vault.client("participant1"), vault.client("key-admin"), vault.client("wrapper-admin"));
    for denied in [
        problem(sign(&vault, &key).await),
        problem(node.get("/v1/keys").await),
        problem(admin.post(&format!("/v1/keys/{key}/enable"), &json!({})).await),
        problem(wrapper_admin.post("/v1/unfreeze", &json!({})).await),
    ] {
        assert_eq!((denied.status, denied.code.as_str(), denied.retryable), (503, "audit_unavailable", true), "{denied:?}");
        assert!(denied.detail.contains("the required audit sink a does not confirm entries: its disk is full"), "{denied:?}");
    }
    let (status, document) = ready(&vault).await;
    assert_eq!((status, &document["ready"]), (503, &json!(false)));
    let reason = json!({ "code": "audit_unavailable", "detail": "the required audit sink a: its disk is full" });
    assert!(document["reasons"].as_array().unwrap().contains(&reason), "{document}");
    // What an operator looks at works, and so does what takes rights away.
    assert!(node.get("/v1/status").await.unwrap().to_string().contains("the required audit sink a"));
    let disabled = admin.post(&format!("/v1/keys/{other}/disable"), &json!({})).await.unwrap();
    assert_eq!((&disabled["state"], &disabled["recorded"]), (&json!("disabled"), &json!(null)), "the store has it");
    assert_eq!(admin.post("/v1/freeze", &json!({})).await.unwrap()["recorded"], json!(true));
    let denied = newest_of(&vault, "keys.list").unwrap();
    assert_eq!((&denied["outcome"], &denied["reason"]), (&json!("failed"), &json!("audit_unavailable")), "{denied}");

    disk.free();
    until("calls work again", || async { wrapper_admin.post("/v1/unfreeze", &json!({})).await.is_ok() }).await;
    sign(&vault, &key).await.unwrap();
    assert_eq!(problem(sign(&vault, &other).await).code, "key_disabled");
    until_ready(&vault).await;
    // A part of a line that a full disk left is a line of its own at most.
    let text = read(&file);
    let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    check_in_order(whole, &stored(&vault.database()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_sink_that_hangs_withholds_results_and_says_so_in_the_log() {
    let receiver = Receiver::start().await;
    let sink = receiver.sink("required", "timeout = \"1s\"\n");
    let vault = vault_with(&format!("\n[audit]\nsink_wait = \"300ms\"\n{sink}"));
    until_ready(&vault).await;
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    receiver.set(Behaviour::Hang);

    // The first call finds out.
    let withheld = problem(sign(&vault, &key).await);
    assert_eq!((withheld.status, withheld.code.as_str(), withheld.retryable), (503, "audit_unavailable", true), "{withheld:?}");
    assert!(withheld.detail.contains("the result was withheld: the required audit sink a did not confirm entry"), "{withheld:?}");
    let entry = newest_of(&vault, "keys.sign").unwrap();
    assert_eq!((&entry["outcome"], &entry["reason"]), (&json!("failed"), &json!("audit_unavailable")), "{entry}");
    let first: usize = withheld.detail.split("entry ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let first: serde_json::Value = serde_json::from_str(&stored(&vault.database())[first - 1]).unwrap();
    assert_eq!((&first["outcome"], &first["request_id"]), (&json!("ok"), &entry["request_id"]), "the same call: {first}");
    // Further calls do not wait and do no work.
    let denied = problem(sign(&vault, &key).await);
    assert!(denied.detail.contains("the required audit sink a does not confirm entries"), "{denied:?}");
    assert_eq!(vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap()["recorded"], json!(true));

    receiver.set(Behaviour::Accept);
    until("it recovers", || async { vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.is_ok() }).await;
    sign(&vault, &key).await.unwrap();

    // A change that is stored is not reported as one that did not happen.
    receiver.set(Behaviour::Hang);
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "unconfirmed" });
    let unknown = problem(vault.client("participant1").post("/v1/keys", &new).await);
    assert_eq!(unknown.code, "outcome_unknown", "{unknown:?}");
    assert!(unknown.detail.contains("the change is stored, but the required audit sink a did not confirm its entry"), "{unknown:?}");
    receiver.set(Behaviour::Accept);
    until("it recovers", || async {
        vault.client("participant1").get("/v1/keys").await.is_ok_and(|keys| keys.to_string().contains("\"unconfirmed\""))
    })
    .await;
    // Memory follows a change that is stored, whether a sink has it or not.
    vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap();
    until_confirmed(&vault, &receiver).await;
    receiver.set(Behaviour::Hang);
    let unknown = problem(vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await);
    assert!(unknown.code == "outcome_unknown" && unknown.detail.contains("the change is stored"), "{unknown:?}");
    assert!(!ready(&vault).await.1.to_string().contains("frozen"));
    receiver.set(Behaviour::Accept);
    until_ready(&vault).await;
    sign(&vault, &key).await.unwrap();
    assert!(check_in_order(receiver.lines().iter().map(String::as_str), &stored(&vault.database()), 1) > 10);
}

/// Until the sink works and has every entry.
async fn until_confirmed(vault: &TestVault, receiver: &Receiver) {
    until("the sink has every entry", || async {
        let count = stored(&vault.database()).len();
        receiver.lines().last().is_some_and(|line| sequence(line) >= count) && !ready(vault).await.1.to_string().contains("audit sink")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_sink_that_is_down_at_the_start_does_not_prevent_the_start() {
    let mut receiver = Receiver::start().await;
    receiver.stop().await;
    let vault = vault_with(&receiver.sink("required", ""));
    until("the fault is known", || async { ready(&vault).await.1.to_string().contains("the required audit sink a: cannot be reached") })
        .await;
    assert_eq!(ready(&vault).await.0, 503);
    assert_eq!(vault.client("key-admin").post("/v1/freeze", &json!({})).await.unwrap()["recorded"], json!(true));
    receiver.restart().await;
    until("it recovers", || async { vault.client("wrapper-admin").post("/v1/unfreeze", &json!({})).await.is_ok() }).await;
    until_ready(&vault).await;
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    check_in_order(receiver.lines().iter().map(String::as_str), &stored(&vault.database()), 1);
}
