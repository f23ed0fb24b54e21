//! kill -9 at any moment under load, then a restart: no key is lost, no result lacks its entry, the log has no gap, its tree is complete and goes on from
//! every checkpoint that was seen, and no change is half-done.
//!
//! `KEYVAULT_KILL_CYCLES=300 cargo test --test it -- kill` is the long form; `KEYVAULT_KILL_SEED` repeats a run's choices.

pub(crate) mod invariants;
pub(crate) mod load;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    audit_sinks::{check_in_order, stored},
    support::vault::{TestVault, until},
};

use self::{
    invariants::{Auditor, look_after, verify_log},
    load::{Dice, Load, Worker},
};

const WORKERS: u64 = 6;
const CYCLES: u32 = 24;

/// Limits that a test under load never reaches.
fn unlimited(config: String) -> String {
    config
        + "\n[audit]\ncheckpoint_interval = \"1s\"\n\n[limits]\ncreations_per_minute = 1000000\ncache_misses_per_second = 1000000\nrefusals_per_second = 1000000\n"
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// Lets all workers work until the process is killed: a moment after it is `ready`, however long that takes on a busy machine. The load is
/// over before the kill.
pub(crate) async fn work_until_killed(
    vault: &mut TestVault,
    workers: Vec<Worker>,
    load: &Arc<Load>,
    ready: impl AsyncFn(&TestVault) -> bool,
    moment: Duration,
) -> Vec<Worker> {
    let tasks: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            let (clients, load) = (load::Clients::new(vault, worker.node), Arc::clone(load));
            tokio::spawn(async move {
                worker.work(&clients, &load).await;
                worker
            })
        })
        .collect();
    until("it is ready to be killed", || ready(vault)).await;
    tokio::time::sleep(moment).await;
    load.over.store(true, Ordering::Release);
    tokio::task::block_in_place(|| vault.kill());
    let mut back = Vec::new();
    for task in tasks {
        back.push(task.await.unwrap());
    }
    back
}

/// Lets all workers work until they have got so many answers, and kills the process then.
async fn work_for(answers: u64, vault: &mut TestVault, workers: Vec<Worker>, moment: Duration) -> Vec<Worker> {
    let load = Arc::new(Load::default());
    work_until_killed(vault, workers, &load, async |_: &TestVault| load.answers.load(Ordering::Relaxed) >= answers, moment).await
}

/// Starts the process and kills it before, while or after it opens its store.
fn kill_while_starting(vault: &TestVault, moment: Duration) {
    let mut child =
        vault.command(&["serve", "--config"]).arg(vault.path("keyvault.toml")).stderr(std::process::Stdio::null()).spawn().unwrap();
    thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_at_any_moment_loses_nothing_that_was_acknowledged() {
    kill_cycles(&mut TestVault::prepare(unlimited), number("KEYVAULT_KILL_CYCLES", u64::from(CYCLES))).await;
}

/// The same with sinks: one that works, one whose server is dead, and one that cannot be reached. The one that works has every entry then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_loses_nothing_with_sinks_that_work_and_sinks_that_fail() {
    const SINKS: &str = r#"
        [[audit.sinks]]
        name = "file"
        mode = "best-effort"
        kind = "file"
        path = "audit.ndjson"
        from = "beginning"
        [[audit.sinks]]
        name = "dead"
        mode = "best-effort"
        kind = "http"
        url = "http://127.0.0.1:1/"
        [[audit.sinks]]
        name = "unreachable"
        mode = "best-effort"
        kind = "syslog"
        address = "192.0.2.1:6514"
        ca = "pki/ca.pem"
    "#;
    let mut vault = TestVault::prepare(|config| unlimited(config) + SINKS);
    kill_cycles(&mut vault, number("KEYVAULT_KILL_CYCLES", u64::from(CYCLES) / 3)).await;
    tokio::task::block_in_place(|| vault.serve());
    // A kill in the middle of a write leaves a part of a line.
    let lines = || -> Vec<String> {
        let text = std::fs::read_to_string(vault.path("audit.ndjson")).unwrap_or_default();
        text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).map(str::to_owned).collect()
    };
    until("the sink has every entry", || async {
        let stored = stored(&vault.database());
        lines().last() == stored.last()
    })
    .await;
    let all = stored(&vault.database());
    assert_eq!(check_in_order(lines().iter().map(String::as_str), &all, 1), all.len());
}

/// Kills the vault again and again under load, and looks for what was lost.
async fn kill_cycles(vault: &mut TestVault, cycles: u64) {
    let seed = number("KEYVAULT_KILL_SEED", 1);
    let mut dice = Dice::new(seed);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(seed, number)).collect();
    let mut auditor = Auditor::default();
    let (began, mut expected, mut checkpoints) = (Instant::now(), 0, Vec::new());
    for cycle in 1..=cycles {
        if dice.below(4) == 0 {
            kill_while_starting(vault, Duration::from_micros(dice.below(60_000)));
        }
        tokio::task::block_in_place(|| vault.serve());
        // Also before the first answer.
        let answers = dice.below(100);
        expected += answers;
        workers = work_for(answers, vault, workers, Duration::from_micros(dice.below(5_000))).await;
        // First the rows of the store, then every key through the API.
        let all = cycle % 50 == 0 || cycle == cycles;
        tokio::task::block_in_place(|| vault.serve());
        let mut faults = auditor.log_faults(&vault.database(), &mut workers);
        faults.extend(look_after(vault, &mut workers, all).await);
        faults.extend(verify_log(vault, &mut checkpoints).await);
        assert!(faults.is_empty(), "seed {seed}, cycle {cycle}: {faults:#?}");
        tokio::task::block_in_place(|| vault.kill());
    }
    let acknowledged: u64 = workers.iter().map(|worker| worker.acknowledged).sum();
    let (keys, cut): (usize, u64) =
        (workers.iter().map(|worker| worker.keys.len()).sum(), workers.iter().map(|worker| worker.cut_off).sum());
    println!(
        "{cycles} kills (seed {seed}) in {:?}: {keys} keys, {acknowledged} acknowledged answers, {cut} calls cut off, {} entries; nothing lost",
        began.elapsed(),
        auditor.entries
    );
    assert!(acknowledged >= expected && expected > 5 * cycles, "{acknowledged} answers of {expected} are no load");
    assert!(cut > 0, "no kill ever hit a call: move the moments");
}

/// The control: a store that forgets what it acknowledged is found out, by both looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_test_notices_a_store_that_forgets() {
    let mut vault = TestVault::start_with(unlimited);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(7, number)).collect();
    workers = work_for(60, &mut vault, workers, Duration::ZERO).await;
    tokio::task::block_in_place(|| vault.serve());
    assert_eq!(Auditor::default().log_faults(&vault.database(), &mut workers), [""; 0]);
    assert_eq!(look_after(&vault, &mut workers, true).await, [""; 0]);
    tokio::task::block_in_place(|| vault.kill());
    let files = ["keyvault.db", "keyvault.db-wal"];
    let kept: Vec<_> = files.iter().map(|file| std::fs::read(vault.path(file)).unwrap()).collect();
    tokio::task::block_in_place(|| vault.serve());
    workers = work_for(120, &mut vault, workers, Duration::ZERO).await;
    // As a disk does that lied about its syncs: the newest writes are gone, the older ones sound.
    let _ = std::fs::remove_file(vault.path("keyvault.db-shm"));
    files.iter().zip(kept).for_each(|(file, bytes)| std::fs::write(vault.path(file), bytes).unwrap());
    tokio::task::block_in_place(|| vault.serve());
    let by_log = Auditor::default().log_faults(&vault.database(), &mut workers);
    assert!(by_log.iter().any(|fault| fault.contains("has no entry")), "{by_log:?}");
    let by_keys = look_after(&vault, &mut workers, true).await;
    assert!(by_keys.iter().any(|fault| fault.contains("is lost") || fault.contains("must be")), "{by_keys:?}");

    // A missing entry is a gap, a changed row is half a change.
    let mut whole = Auditor::default();
    let db = vault.database();
    assert!(whole.store_faults(&db).is_empty());
    db.execute("DELETE FROM audit_entries WHERE sequence = 3", []).unwrap();
    db.execute("UPDATE keys SET lifecycle = 'disabled' WHERE position = (SELECT max(position) FROM keys WHERE lifecycle = 'active')", [])
        .unwrap();
    let found = whole.store_faults(&db);
    assert!(found.iter().any(|fault| fault.contains("gap")) && found.iter().any(|fault| fault.contains("row says")), "{found:?}");
}
