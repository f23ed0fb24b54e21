//! Failures of PostgreSQL and of replicas, from outside: each refusal has a code and can be repeated, `/readyz` has the reason, the vault recovers by
//! itself, and nothing that was answered is lost. `docs/postgresql.md` has the same rows.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use canton_keyvault::domain::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::{
    replicas::{readiness, started, within_a_second},
    support::{
        api::{Caller, id},
        jobs::{ended, new_wrapper_key, rotate, wraps},
        postgres::{Database, shared_server},
        vault::{TestVault, until, verify_exported},
    },
};

/// Two running replicas, after a change of their configuration.
async fn two_with(edit: impl FnOnce(String) -> String) -> (Database, TestVault, TestVault) {
    let database = shared_server().await.database().await;
    let one = TestVault::on_database(&database);
    one.configure(edit);
    one.limits_that_no_test_reaches();
    let one = started(one).await;
    let mut two = one.replica("two");
    two.serve();
    (database, one, two)
}

/// The background tasks that a replica has the lease of, as another one says.
async fn tasks(says: &TestVault, instance: &str) -> String {
    let status = says.client("auditor").get("/v1/status").await.unwrap();
    let of = |replica: &&Value| replica["instance"] == instance;
    status["replicas"].as_array().unwrap().iter().find(of).map(|replica| replica["tasks"].to_string()).unwrap_or_default()
}

/// Pauses a vault within a transaction that holds the lock of state changes, while it creates keys.
async fn pause_in_a_change(vault: &TestVault, database: &Client) {
    let is_open = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE relation = 'meta'::regclass AND mode = 'RowShareLock' AND state = 'idle in transaction'";
    until("it is paused within a transaction", async || {
        vault.pause();
        // The server may still execute a statement of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let open: i64 = database.query_one(is_open, &[]).await.unwrap().get(0);
        if open == 0 {
            vault.resume();
        }
        open > 0
    })
    .await;
}

/// A call that was sent to a paused vault: the first one that it reads when it goes on.
async fn first_call_after(vault: &TestVault, call: impl Future<Output = (u16, String)>) -> (u16, String) {
    let resume = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        vault.resume();
    };
    tokio::join!(call, resume).0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_paused_within_a_change_blocks_no_other() {
    let (database, one, two) = two_with(|config| config).await;
    let client = database.client().await;
    let (admin, node) = (Caller::new(&two, "key-admin"), Caller::new(&one, "participant1"));
    let key = Caller::new(&one, "key-admin").signing_key("participant1").await;
    assert_eq!(node.sign(&key).await.status, 200);
    let creations = (0..4).map(|_| {
        let caller = Caller::new(&one, "key-admin");
        tokio::spawn(async move {
            let mut made = Vec::new();
            while made.len() < 400 {
                let reply =
                    caller.post("/v1/keys", &json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" })).await;
                if reply.status >= 400 {
                    break;
                }
                made.push(id(&reply.json()));
            }
            made
        })
    });
    let creations: Vec<_> = creations.collect();
    pause_in_a_change(&one, &client).await;
    // The server ends the session of the paused one after 10 seconds. Until then, a change of another one can be refused, and repeated.
    let began = Instant::now();
    until("it is disabled", async || {
        let disabled = admin.step(&key, "disable").await.outcome();
        let refused = ["", "audit_unavailable", "outcome_unknown", "invalid_key_state"];
        assert!(refused.contains(&disabled.1.as_str()), "{disabled:?}");
        admin.get(&format!("/v1/keys/{key}")).await.json()["state"] == "disabled"
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    until("it is frozen", async || admin.post("/v1/freeze", &json!({})).await.status == 200).await;
    let first = first_call_after(&one, async { node.sign(&key).await.outcome() }).await;
    assert!(["key_disabled", "frozen", "audit_unavailable"].contains(&first.1.as_str()), "{first:?}");
    within_a_second("frozen", (503, "frozen"), async || node.sign(&key).await.outcome()).await;
    assert_eq!(Caller::new(&two, "wrapper-admin").post("/v1/unfreeze", &json!({})).await.status, 200);
    within_a_second("disabled", (409, "key_disabled"), async || node.sign(&key).await.outcome()).await;
    // What was answered is there, and the one that was cut off is whole or absent.
    let mut answered = vec![key];
    for creation in creations {
        answered.extend(creation.await.unwrap());
    }
    let listed: i64 = client.query_one("SELECT count(*) FROM keys WHERE id = ANY($1)", &[&answered]).await.unwrap().get(0);
    assert_eq!(usize::try_from(listed).unwrap(), answered.len());
    for vault in [&one, &two] {
        assert_eq!(verify_exported(vault).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_paused_for_longer_than_its_lease_writes_nothing_late() {
    const KEYS: usize = 40;
    let (_database, one, two) = two_with(|config| config + "\n[jobs]\nkeys_per_second = 8\nconcurrency = 2\n").await;
    let admin = Caller::new(&two, "key-admin");
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(admin.signing_key("participant1").await);
    }
    let to = new_wrapper_key(&one).await;
    let job = rotate(&one, &to).await;
    until("one replica has the task", async || tasks(&two, "main").await.contains("sweep") || tasks(&one, "two").await.contains("sweep"))
        .await;
    let is_one = tasks(&two, "main").await.contains("sweep");
    let (paused, paused_name, other, other_name) = if is_one { (&one, "main", &two, "two") } else { (&two, "two", &one, "main") };
    let node = Caller::new(paused, "participant1");
    assert_eq!(node.sign(&keys[0]).await.status, 200);
    paused.pause();
    let began = Instant::now();
    until("another replica has the task", async || tasks(other, other_name).await.contains("sweep")).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!tasks(other, paused_name).await.contains("sweep"));
    assert_eq!(Caller::new(other, "key-admin").step(&keys[0], "disable").await.status, 200);
    let first = first_call_after(paused, async { node.sign(&keys[0]).await.outcome() }).await;
    assert!([(409, "key_disabled"), (503, "audit_unavailable")].contains(&(first.0, &first.1)), "{first:?}");
    within_a_second("disabled", (409, "key_disabled"), async || node.sign(&keys[0]).await.outcome()).await;
    until("it signs again", async || node.sign(&keys[1]).await.status == 200).await;
    assert_eq!(ended(other, &job).await["state"], "succeeded");
    assert!(!tasks(other, paused_name).await.contains("sweep"), "the other one keeps the task");
    // Each key was wrapped once, and the job ended once.
    let (mut wrapped, mut ends) = (Vec::new(), 0);
    for vault in [&one, &two] {
        let auditor = Caller::new(vault, "auditor");
        wrapped.extend(auditor.log("&operation=keys.rewrap").await.iter().map(|entry| entry["key_id"].to_string()));
        ends += auditor.log("&operation=rotations.end").await.len();
        assert_eq!(verify_exported(vault).await, Ok(()));
    }
    wrapped.sort_unstable();
    assert!(wrapped.windows(2).all(|pair| pair[0] != pair[1]) && wrapped.len() >= KEYS && ends == 1, "{} {ends}", wrapped.len());
    assert!(wraps(&one, &keys[KEYS - 1]).await.contains(&to));
}

/// A fault of the database.
struct Fault {
    what: &'static str,
    begin: &'static str,
    end: &'static str,
    /// What a refused call says.
    says: &'static [&'static str],
    /// A reason in `/readyz`.
    reason: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "read-only",
        begin: "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$;
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        end: "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$",
        says: &["the database is read-only"],
        reason: "storage_unavailable",
    },
    // PostgreSQL itself reports this error for a full disk of its tables. A trigger is faster than a disk.
    Fault {
        what: "full disk",
        begin: "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION full_disk()",
        end: "DROP TRIGGER full_disk ON audit_entries; DROP FUNCTION full_disk()",
        says: &["the disk of the store is full"],
        reason: "audit_unavailable",
    },
    Fault {
        what: "slow",
        begin: "BEGIN; LOCK TABLE audit_entries IN EXCLUSIVE MODE",
        end: "ROLLBACK",
        says: &["the store did not answer within 5s", "another session holds a lock of PostgreSQL for too long"],
        reason: "audit_unavailable",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_database_has_a_code_and_ends_by_itself() {
    let database = shared_server().await.database().await;
    let vault = TestVault::on_database(&database);
    let vault = started(vault).await;
    let client = database.client().await;
    let (admin, node) = (Caller::new(&vault, "key-admin"), Caller::new(&vault, "participant1"));
    let key = admin.signing_key("participant1").await;
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" });
    let mut signed = 0;
    for Fault { what, begin, end, says, reason } in FAULTS {
        let sign = async || node.sign(&key).await;
        assert_eq!(sign().await.status, 200, "{what}");
        signed += 1;
        client.batch_execute(begin).await.unwrap();
        let refused = sign().await.refused(503, "audit_unavailable");
        assert_eq!(refused["retryable"], true, "{what}: {refused}");
        until(&format!("{what}: the cause is named"), async || {
            let said = sign().await.refused(503, "audit_unavailable")["detail"].to_string();
            says.iter().any(|cause| said.contains(cause))
        })
        .await;
        // A change that is not answered was made or not. The same call again finds out which.
        let creation = async || admin.once("/v1/keys", &what.replace(' ', "-"), &new).await;
        let unanswered = creation().await;
        assert!(
            [(503, "audit_unavailable"), (503, "outcome_unknown")].contains(&(unanswered.outcome().0, &unanswered.outcome().1)),
            "{unanswered:?}"
        );
        assert_eq!(unanswered.json()["retryable"], true, "{what}");
        until(&format!("{what}: it is not ready"), async || {
            let found = readiness(&vault).await;
            found["ready"] == false && found["reasons"].as_array().unwrap().iter().any(|found| found["code"] == *reason)
        })
        .await;
        client.batch_execute(end).await.unwrap();
        until(&format!("{what}: it is ready again"), async || readiness(&vault).await["ready"] == true).await;
        until(&format!("{what}: it signs again"), async || sign().await.status == 200).await;
        signed += 1;
        let made = id(&creation().await.success());
        assert_eq!(id(&creation().await.success()), made, "{what}");
    }
    let listed: i64 = client.query_one("SELECT count(*) FROM keys WHERE node = 'participant1'", &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(listed).unwrap(), 1 + FAULTS.len(), "each creation was made once");
    let entries = Caller::new(&vault, "auditor").log("&operation=keys.sign&outcome=ok").await.len();
    // A use without an answer can have its entry: its result was dropped.
    assert!(entries >= signed, "{entries} entries of {signed} signatures");
    assert_eq!(verify_exported(&vault).await, Ok(()));
}

/// A library for `LD_PRELOAD` that shifts the clock of a process.
fn shift_clock(folder: &Path) -> String {
    let library = folder.join("shift_clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clock/shift_clock.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.as_ref().is_ok_and(std::process::ExitStatus::success), "cc is missing: {compiled:?}");
    library.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_wrong_clock_warns_and_shares_tasks_and_states_as_before() {
    let database = shared_server().await.database().await;
    let one = started(TestVault::on_database(&database)).await;
    let mut two = one.replica("two");
    two.env("LD_PRELOAD", &shift_clock(one.folder()));
    for (seconds, says) in
        [("-600", "more than 5 minutes behind that of the database"), ("600", "more than 5 minutes ahead of that of the database")]
    {
        two.env("SHIFT_CLOCK_SECONDS", seconds);
        let check = two.command(&["check", "--config", "two.toml", "--output", "json"]).output().unwrap();
        let lines: Value = serde_json::from_slice(&check.stdout).unwrap();
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == "clock").unwrap();
        assert!(line["status"] == "warn" && line["detail"].to_string().contains(says), "{line:#}");
        two.without_env("SHIFT_CLOCK_SECONDS");
    }
    two.env("SHIFT_CLOCK_SECONDS", "600");
    two.serve();
    let said = |line: &Value| line["check"] == "clock" && line["message"].to_string().contains("ahead of that of the database");
    assert!(two.log().iter().any(said), "{:#?}", two.log());

    let key = Caller::new(&two, "key-admin").signing_key("participant1").await;
    let (admin, node) = (Caller::new(&one, "key-admin"), Caller::new(&two, "participant1"));
    assert_eq!(node.sign(&key).await.status, 200);
    assert_eq!(admin.step(&key, "disable").await.status, 200);
    within_a_second("disabled", (409, "key_disabled"), async || node.sign(&key).await.outcome()).await;
    // Its entries have its time. The clock of the database decides who runs a task.
    let time = async |vault: &TestVault, operation: &str| {
        let entries = Caller::new(vault, "auditor").log(&format!("&operation={operation}")).await;
        Timestamp::parse(entries.last().unwrap()["at"].as_str().unwrap()).unwrap()
    };
    let ahead = time(&two, "keys.sign").await.since(time(&one, "keys.disable").await);
    assert!(ahead > Duration::from_mins(9), "{ahead:?}");
    let to = new_wrapper_key(&two).await;
    assert_eq!(ended(&one, &rotate(&one, &to).await).await["state"], "succeeded");
    until("one of the two has the task", async || {
        tasks(&one, "main").await.contains("sweep") != tasks(&one, "two").await.contains("sweep")
    })
    .await;
    for vault in [&one, &two] {
        assert_eq!(verify_exported(vault).await, Ok(()));
    }
}
