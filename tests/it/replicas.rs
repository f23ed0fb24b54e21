//! Several processes over one PostgreSQL database, from outside: a change through one is in force at the others within a second, a replica that dies
//! is replaced, and each log verifies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id},
    aws_vault::ops,
    jobs::{ended, new_wrapper_key, rotate, wraps},
    postgres::{Database, shared_server},
    proxy::TcpProxy,
    vault::{TestVault, until, verify_exported},
};

/// How soon a change must be in force everywhere.
const WITHIN: Duration = Duration::from_secs(1);

/// Two running replicas over a database of their own.
async fn two() -> (Database, TestVault, TestVault) {
    let database = shared_server().await.database().await;
    let one = started(TestVault::on_database(&database)).await;
    let mut two = one.replica("two");
    two.serve();
    (database, one, two)
}

/// Starts a vault, and waits until it has its first wrapper key.
pub(crate) async fn started(mut vault: TestVault) -> TestVault {
    vault.serve();
    until("the first wrapper key is there", async || readiness(&vault).await["ready"] == true).await;
    vault
}

pub(crate) async fn readiness(vault: &TestVault) -> Value {
    serde_json::from_str(&ops(vault, "/readyz").await.1).unwrap()
}

/// Repeats a call until its outcome is this one, and fails if that takes longer than [`WITHIN`].
pub(crate) async fn within_a_second(what: &str, expected: (u16, &str), mut call: impl AsyncFnMut() -> (u16, String)) {
    let began = Instant::now();
    loop {
        let outcome = call().await;
        if (outcome.0, outcome.1.as_str()) == expected {
            return;
        }
        assert!(began.elapsed() < WITHIN, "{what}: still {outcome:?} instead of {expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_one_replica_is_in_force_at_the_other() {
    let (_database, one, two) = two().await;
    let (admin, node) = (Caller::new(&one, "key-admin"), Caller::new(&two, "participant1"));
    let key = Caller::new(&one, "key-admin").signing_key("participant1").await;
    let signed = async || node.sign(&key).await.outcome();
    assert_eq!(signed().await, (200, String::new()), "a key of the other replica, which was never asked for it");
    assert_eq!(admin.step(&key, "disable").await.status, 200);
    within_a_second("disabled", (409, "key_disabled"), signed).await;
    assert_eq!(admin.step(&key, "enable").await.status, 200);
    within_a_second("enabled", (200, ""), signed).await;
    // The other replica learns of a freeze without a call, and ends it.
    assert_eq!(Caller::new(&one, "wrapper-admin").post("/v1/freeze", &json!({})).await.status, 200);
    let began = Instant::now();
    until("the other replica is frozen", async || readiness(&two).await["reasons"][0]["code"] == "frozen").await;
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    assert_eq!(signed().await, (503, "frozen".to_owned()));
    let other = Caller::new(&two, "wrapper-admin");
    assert_eq!(other.post("/v1/unfreeze", &json!({})).await.status, 200);
    let first = Caller::new(&one, "participant1");
    within_a_second("unfrozen", (200, ""), async || first.sign(&key).await.outcome()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_at_another_replica_creates_nothing() {
    let (_database, one, two) = two().await;
    let body = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let mut made = Vec::new();
    for vault in [&one, &two, &one] {
        let caller = Caller::new(vault, "key-admin");
        made.push(id(&caller.once("/v1/keys", "the-same", &body).await.success()));
    }
    assert!(made.iter().all(|id| *id == made[0]), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_a_rotation() {
    let (_database, mut one, two) = two().await;
    for _ in 0..6 {
        Caller::new(&one, "key-admin").signing_key("participant1").await;
    }
    let to = new_wrapper_key(&one).await;
    let key = Caller::new(&two, "key-admin").signing_key("participant1").await;
    let status = async |vault: &TestVault| vault.client("auditor").get("/v1/status").await.unwrap();
    until("both are alive", async || status(&two).await["replicas"].as_array().unwrap().iter().all(|one| one["live"] == true)).await;
    // The one with the lease dies; the other one has it some seconds later.
    until("someone has the lease", async || status(&two).await["replicas"].to_string().contains("sweep")).await;
    let job = rotate(&two, &to).await;
    one.kill();
    assert_eq!(ended(&two, &job).await["state"], "succeeded");
    assert!(wraps(&two, &key).await.contains(&to));
    until("the dead one is known", async || {
        let replicas = status(&two).await["replicas"].clone();
        replicas.as_array().unwrap().iter().filter(|one| one["live"] == true).count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_has_a_log_that_verifies() {
    let (_database, one, two) = two().await;
    let key = Caller::new(&one, "key-admin").signing_key("participant1").await;
    for vault in [&one, &two] {
        let node = Caller::new(vault, "participant1");
        for _ in 0..20 {
            assert_eq!(node.sign(&key).await.status, 200);
        }
        assert_eq!(verify_exported(vault).await, Ok(()));
    }
    for vault in [&one, &two] {
        assert_eq!(Caller::new(vault, "auditor").log("&operation=keys.sign").await.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_database_says_so_and_recovers() {
    let database = shared_server().await.database().await;
    let proxy = TcpProxy::to(&format!("127.0.0.1:{}", database.port), true);
    let one = started(TestVault::on_database(&database.through(&proxy.url()))).await;
    let key = Caller::new(&one, "key-admin").signing_key("participant1").await;
    let node = Caller::new(&one, "participant1");
    assert_eq!(node.sign(&key).await.status, 200);
    proxy.cut();
    until("it is not ready", async || {
        let found = readiness(&one).await;
        found["ready"] == false && found["reasons"].to_string().contains("storage_unavailable")
    })
    .await;
    let refused = node.sign(&key).await.refused(503, "audit_unavailable");
    assert_eq!(refused["retryable"], true, "{refused}");
    proxy.mend();
    until("it is ready again", async || readiness(&one).await["ready"] == true).await;
    until("it signs again", async || node.sign(&key).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_needs_no_restart() {
    let server = shared_server().await;
    let database = server.database().await;
    let client = database.client().await;
    let user = format!("vault_{}", database.name);
    client.batch_execute(&format!("CREATE ROLE {user} LOGIN SUPERUSER PASSWORD 'first'")).await.unwrap();
    database.write_url(&user, "first");
    let one = started(TestVault::on_database(&database)).await;
    let key = Caller::new(&one, "key-admin").signing_key("participant1").await;
    client.batch_execute(&format!("ALTER ROLE {user} PASSWORD 'second'")).await.unwrap();
    database.write_url(&user, "second");
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'");
    client.query(&sql, &[]).await.unwrap();
    let node = Caller::new(&one, "participant1");
    until("it signs over new connections", async || node.sign(&key).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_can_lose_data_are_a_warning() {
    let database = shared_server().await.database().await;
    std::fs::set_permissions(&database.url_file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let one = started(TestVault::on_database(&database)).await;
    // The server of the tests has fsync off.
    let said = |line: &Value| line["check"] == "durability" && line["message"].to_string().contains("fsync = off");
    assert!(one.log().iter().any(said), "{:#?}", one.log());
    let check = one.command(&["check", "--config", "keyvault.toml", "--output", "json"]).output().unwrap();
    let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
    let line = |check: &str| lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap().clone();
    assert_eq!(line("durability")["status"], "warn", "{lines:#}");
    assert!(line("storage")["detail"].to_string().contains("1 replicas use it now"), "{lines:#}");
    // The file with the password is readable by everybody here.
    assert!(line("file modes")["status"] == "warn" && line("file modes")["detail"].to_string().contains(".url"), "{lines:#}");
    assert!(check.status.success());
}
