//! kill -9 at any moment of a rotation or a re-seal, under load and with KMS faults, then a restart: the job continues,
//! no acknowledged result is lost, and at the end every key signs under one wrapper key with all others disabled.
//!
//! `KEYVAULT_ROTATION_KILLS=300 cargo test --test it -- rotation_kill` is the long form; `KEYVAULT_KILL_SEED` repeats a run's choices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use canton_keyvault::client::{Client, ClientError};
use serde_json::{Value, json};

use crate::{
    kill::{
        invariants::{Auditor, look_after},
        load::{Clients, Dice, Load, Worker},
        number, work_until_killed,
    },
    support::{
        aws_vault::{AwsVault, Setup},
        kms::Kms,
        vault::{TestVault, until},
        wrapper::CENTRAL,
    },
};

const WORKERS: u64 = 4;
/// Of each worker.
const FIRST_KEYS: usize = 10;
/// In each of the two tests.
const KILLS: u64 = 20;
const SECTIONS: &str = "[limits]\ncreations_per_minute = 1000000\ncache_misses_per_second = 1000000\nrefusals_per_second = 1000000\n\
                        [jobs]\nkeys_per_second = 25\nretry_backoff = \"20ms\"\n";

/// Where the wrapper keys are.
enum Keys {
    Files,
    Kms(&'static Kms, Vec<String>),
}

impl Keys {
    /// The body that makes or registers another wrapper key.
    async fn another(&mut self) -> Value {
        match self {
            Self::Files => json!({ "provider": "local", "create": true }),
            Self::Kms(kms, arns) => {
                let arn = kms.create_key(CENTRAL, false).await;
                arns.push(arn.clone());
                json!({ "provider": "aws-kms", "reference": arn })
            }
        }
    }

    /// A fault of a kind by dice on a wrapper key by dice, for some calls or until it is over.
    async fn fail(&self, dice: &mut Dice) {
        let Self::Kms(kms, arns) = self else { return };
        let arn = &arns[usize::try_from(dice.below(arns.len() as u64)).unwrap()];
        let mode = ["throttle", "internal", "denied", "slow", "drop", "unavailable", "disable"][usize::try_from(dice.below(7)).unwrap()];
        if mode == "disable" {
            kms.call(CENTRAL, "DisableKey", json!({ "KeyId": arn })).await;
            return;
        }
        let mut fault = json!({ "mode": mode, "key": arn });
        if mode == "slow" {
            fault["delay_ms"] = json!(200 + dice.below(1_500));
        }
        if dice.below(3) > 0 {
            fault["count"] = json!(1 + dice.below(40));
        }
        kms.fault(fault).await;
    }

    async fn mend(&self) {
        let Self::Kms(kms, arns) = self else { return };
        for arn in arns {
            kms.fault(json!({ "mode": "none", "key": arn })).await;
            kms.call(CENTRAL, "EnableKey", json!({ "KeyId": arn })).await;
        }
    }

    /// How many calls met a fault, or a wrapper key that was switched off.
    fn faults_met(&self) -> usize {
        let Self::Kms(kms, arns) = self else { return 0 };
        kms.log("key/").iter().filter(|call| !call["fault"].is_null() && arns.iter().any(|arn| call["key_id"] == json!(arn))).count()
    }

    /// Switches every wrapper key off but one.
    async fn leave_only(&self, vault: &TestVault, wrapper_keys: &[Value], active: &str) {
        for key in wrapper_keys.iter().filter(|key| key["id"] != active) {
            let reference = key["reference"].as_str().unwrap();
            match self {
                Self::Files => {
                    assert!(vault.path("").join(reference).exists());
                    std::fs::rename(reference, format!("{reference}.away")).unwrap();
                }
                Self::Kms(kms, _) => drop(kms.call(CENTRAL, "DisableKey", json!({ "KeyId": reference })).await),
            }
        }
    }
}

/// The errors that the operator may get meanwhile.
const MAY_BE: [&str; 8] = [
    "job_running",
    "job_ended",
    "invalid_wrapper_key_state",
    "wrapper_key_in_use",
    "wrapper_unavailable",
    "wrapper_denied",
    "conflict",
    "wrapper_key_exists",
];

/// Starts, aborts and lists jobs and retires wrapper keys, until the vault does not answer any more. Counts what it has done.
async fn operate(admin: Client, keys: Client, seed: u64, load: Arc<Load>, acts: Arc<AtomicU64>) -> Vec<String> {
    let (mut dice, mut wrong, mut first) = (Dice::new(seed), Vec::new(), true);
    loop {
        let pick = if std::mem::take(&mut first) { dice.below(8) } else { dice.below(12) };
        let done = act(&admin, &keys, pick, &mut dice).await;
        match done {
            Ok(_) => {}
            Err(ClientError::Problem(problem)) if MAY_BE.contains(&problem.code.as_str()) => {}
            Err(ClientError::Problem(problem)) => wrong.push(format!("{problem:?}")),
            Err(_) if load.over.load(Ordering::Acquire) => return wrong,
            Err(error) => panic!("the vault did not answer before it was killed: {error}"),
        }
        acts.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(dice.below(120))).await;
    }
}

async fn act(admin: &Client, keys: &Client, pick: u64, dice: &mut Dice) -> Result<Value, ClientError> {
    let any = |items: &[Value], dice: &mut Dice| items[usize::try_from(dice.below(items.len() as u64)).unwrap()]["id"].clone();
    let wrapper_keys = |mut list: Value, states: &[&str]| {
        let mut items = std::mem::take(list["items"].as_array_mut().unwrap());
        items.retain(|key| states.contains(&key["state"].as_str().unwrap()));
        items
    };
    match pick {
        0..6 => {
            let may = wrapper_keys(admin.get("/v1/wrapper-keys").await?, &["active", "standby", "draining", "retiring"]);
            admin.post("/v1/wrapper-keys/rotations", &json!({ "to": any(&may, dice) })).await
        }
        6..8 => keys.post("/v1/keys/reseals", &json!({})).await,
        8 => {
            for (client, path) in [(admin, "/v1/wrapper-keys/rotations"), (keys, "/v1/keys/reseals")] {
                let list = client.get(path).await?;
                let running = list["items"].as_array().unwrap().iter().find(|job| job["state"] == "running");
                if let Some(job) = running {
                    return client.post(&format!("{path}/{}/abort", job["id"].as_str().unwrap()), &json!({})).await;
                }
            }
            Ok(Value::Null)
        }
        9 => {
            let may = wrapper_keys(admin.get("/v1/wrapper-keys").await?, &["draining", "retiring"]);
            // Some are kept, to have where to rotate to.
            if may.len() < 3 {
                return Ok(Value::Null);
            }
            admin.post(&format!("/v1/wrapper-keys/{}/retire", any(&may, dice).as_str().unwrap()), &json!({})).await
        }
        _ => admin.get("/v1/wrapper-keys/rotations").await,
    }
}

/// What must be true of the file after any kill, beside what every kill test looks for; and whether a job runs.
fn look_at_jobs(vault: &TestVault) -> (Vec<String>, bool) {
    let db = vault.database();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    let running = count("SELECT count(*) FROM jobs WHERE state = 'running'");
    let mut wrong = Vec::new();
    for (what, found, expected) in [
        ("active wrapper keys", count("SELECT count(*) FROM wrapper_keys WHERE state = 'active'"), 1),
        ("running jobs", running, running.min(1)),
        ("quarantined wraps", count("SELECT count(*) FROM wraps WHERE quarantined"), 0),
        ("quarantined keys", count("SELECT count(*) FROM keys WHERE lifecycle LIKE '%quarantined%'"), 0),
        (
            "wraps of another generation",
            count("SELECT count(*) FROM wraps JOIN keys ON id = key AND keys.generation != wraps.generation"),
            0,
        ),
        (
            "wraps under what is retired",
            count("SELECT count(*) FROM wraps JOIN wrapper_keys ON id = wrapper_key AND wrapper_keys.state = 'retired'"),
            0,
        ),
    ] {
        if found != expected {
            wrong.push(format!("{found} {what}"));
        }
    }
    (wrong, running > 0)
}

/// Log and rows in one snapshot: the job that runs goes on changing them.
fn log_faults(auditor: &mut Auditor, vault: &TestVault, workers: &mut [Worker]) -> Vec<String> {
    let db = vault.database();
    let snapshot = db.unchecked_transaction().unwrap();
    auditor.log_faults(&snapshot, workers)
}

async fn no_job_runs(vault: &TestVault) {
    until("the job ends by itself", || async { !look_at_jobs(vault).1 }).await;
}

/// A job that ended must have ended right: done, or failed for what the KMS refused.
async fn jobs_ended_right(vault: &TestVault) -> (Vec<String>, usize) {
    let (mut wrong, mut jobs) = (Vec::new(), 0);
    for (principal, path) in [("wrapper-admin", "/v1/wrapper-keys/rotations"), ("key-admin", "/v1/keys/reseals")] {
        let list = vault.client(principal).get(&format!("{path}?limit=1000")).await.unwrap();
        for job in list["items"].as_array().unwrap() {
            jobs += 1;
            let number = |field: &str| job[field].as_u64().unwrap();
            let denied = |error: &Value| error["code"] == "wrapper_denied";
            let is_right = match job["state"].as_str().unwrap() {
                "succeeded" => (number("done"), number("failed")) == (number("total"), 0),
                "failed" => number("done") + number("failed") == number("total") && job["errors"].as_array().unwrap().iter().all(denied),
                state => state == "aborted",
            };
            if !is_right {
                wrong.push(format!("{job} cannot be"));
            }
        }
    }
    (wrong, jobs)
}

async fn kill_and_look(mut vault: TestVault, mut keys: Keys) {
    let (kills, seed) = (number("KEYVAULT_ROTATION_KILLS", KILLS), number("KEYVAULT_KILL_SEED", 1));
    let (mut dice, began, mut in_a_job) = (Dice::new(seed), Instant::now(), 0);
    let mut auditor = Auditor::default();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::beside_jobs(seed, number)).collect();
    tokio::task::block_in_place(|| vault.serve());
    for _ in 0..3 {
        let body = keys.another().await;
        vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap();
    }
    for worker in &mut workers {
        worker.begin(&Clients::new(&vault, worker.node), FIRST_KEYS).await;
    }
    let mut killed = 0;
    while killed < kills {
        // Under load and faults.
        for _ in 0..dice.below(5) {
            keys.fail(&mut dice).await;
        }
        let (load, acts) = (Arc::new(Load::default()), Arc::new(AtomicU64::new(0)));
        let (admin, key_admin) = (vault.client("wrapper-admin"), vault.client("key-admin"));
        let operator = tokio::spawn(operate(admin, key_admin, dice.below(u64::MAX), Arc::clone(&load), Arc::clone(&acts)));
        // Under load, and while a job runs. If faults keep it from beginning, the operator has tried often enough.
        let ready = async |vault: &TestVault| {
            let (answers, acts) = (load.answers.load(Ordering::Relaxed), acts.load(Ordering::Relaxed));
            answers >= WORKERS && (look_at_jobs(vault).1 || acts >= 8)
        };
        workers = work_until_killed(&mut vault, workers, &load, ready, Duration::from_micros(dice.below(1_000_000))).await;
        let mut faults = operator.await.unwrap();
        killed += 1;

        // Alone with its job, in peace.
        let (wrong, runs) = look_at_jobs(&vault);
        in_a_job += u32::from(runs);
        faults.extend(wrong);
        keys.mend().await;
        tokio::task::block_in_place(|| vault.serve());
        faults.extend(log_faults(&mut auditor, &vault, &mut workers));
        faults.extend(look_after(&vault, &mut workers, false).await);
        if dice.below(4) == 0 {
            no_job_runs(&vault).await;
        } else {
            let (wrong, runs) = look_at_jobs(&vault);
            in_a_job += u32::from(runs);
            faults.extend(wrong);
        }
        assert!(faults.is_empty(), "seed {seed}, kill {killed}: {faults:#?}");
        tokio::task::block_in_place(|| vault.restart());
        killed += 1;
    }
    no_job_runs(&vault).await;
    let (mut faults, jobs) = jobs_ended_right(&vault).await;

    // What jobs that were aborted or refused have left is done by one more; then one wrapper key is enough.
    let admin = vault.client("wrapper-admin");
    let body = keys.another().await;
    let last = admin.create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned();
    crate::support::jobs::rotated(&vault, &last).await;
    let wrapper_keys = admin.get("/v1/wrapper-keys").await.unwrap()["items"].take();
    tokio::task::block_in_place(|| vault.kill());
    keys.leave_only(&vault, wrapper_keys.as_array().unwrap(), &last).await;
    tokio::task::block_in_place(|| vault.serve());
    faults.extend(log_faults(&mut auditor, &vault, &mut workers));
    faults.extend(look_after(&vault, &mut workers, true).await);
    assert!(faults.is_empty(), "seed {seed}, in the end: {faults:#?}");

    let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).sum::<u64>();
    let (acknowledged, refused) = (sum(|worker| worker.acknowledged), sum(|worker| worker.refused));
    println!(
        "{killed} kills (seed {seed}) in {:?}, {in_a_job} of them with a job running: {jobs} jobs, {} keys, {acknowledged} answers, {refused} of \
         them a failure of the KMS, which met {} faults, {} entries; nothing lost",
        began.elapsed(),
        sum(|worker| worker.keys.len() as u64),
        keys.faults_met(),
        auditor.entries
    );
    assert!(u64::from(in_a_job) * 4 >= killed, "{in_a_job} of {killed} kills met a job: start more of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_amid_jobs_loses_nothing_with_wrapper_keys_in_files() {
    let vault = TestVault::prepare(|config| format!("{config}\n{SECTIONS}"));
    kill_and_look(vault, Keys::Files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_amid_jobs_loses_nothing_with_a_kms_that_fails() {
    // Faults are to be felt: no patience, no second attempt.
    let limits = Some("attempt_timeout = \"1s\"\ntimeout = \"1500ms\"\nretries = 0\nbreaker_cooldown = \"200ms\"");
    let aws = AwsVault::prepare(Setup { sections: SECTIONS.into(), limits, ..Setup::default() }).await;
    let AwsVault { vault, kms, arn } = aws;
    kill_and_look(vault, Keys::Kms(kms, vec![arn])).await;
}
