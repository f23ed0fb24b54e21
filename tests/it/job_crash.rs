//! Jobs over all keys during power loss and KMS faults: at every commit each key opens through every wrap, and every job ends in the right
//! state.
//!
//! A run is a vault in process on a disk that loses what was not synced, with a simulated KMS that fails at random, and with concurrent
//! calls of every kind. It is killed at seeded steps, and then runs to the end. `KEYVAULT_JOB_RUNS=1000 cargo test --test it -- job_crash`
//! is the long form; `KEYVAULT_JOB_SEED` is the seed of the first run.

pub(crate) mod checking_store;
pub(crate) mod concurrent_calls;
pub(crate) mod faulty_kms;
pub(crate) mod process;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use canton_keyvault::{
    domain::{Job, JobKind, JobState, KeySpec, Operation, WrapperKeyId, WrapperState},
    storage::{KeyRequirement, KeyStore, PageRequest},
    vault::BackupKeyResult,
};

use crate::{
    kill::invariants::Auditor,
    storage_disk::split_mix,
    storage_fixtures::{all_keys, log},
};

use self::{
    checking_store::{Cut, Found, STEPS, Spoil},
    concurrent_calls::ConcurrentCaller,
    process::{Scenario, VaultProcess, as_},
};

const RUNS: u64 = 24;
/// How long a job may take to end once the KMS works.
const PATIENCE: Duration = Duration::from_mins(1);
const ALL: PageRequest = PageRequest { after: 0, limit: 10_000 };

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// What came of a run, and of several.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Report {
    fn count(&mut self, what: String, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    fn add(&mut self, found: Found) {
        let Found { wrong, commits, cut_in } = found;
        self.wrong.extend(wrong);
        self.count("lives".into(), 1);
        for (step, times) in commits {
            self.count(format!("commit: {step}"), times);
        }
        self.count(cut_in.map_or_else(|| "cut: between commits".into(), |step| format!("cut: {step}")), 1);
    }

    fn of(&self, start: &str) -> u64 {
        self.counts.iter().filter(|(what, _)| what.starts_with(start)).map(|(_, times)| times).sum()
    }
}

#[test]
fn after_an_interruption_at_any_point_every_key_opens_and_the_job_ends_right() {
    let (runs, first) = (number("KEYVAULT_JOB_RUNS", RUNS), number("KEYVAULT_JOB_SEED", 1));
    let (next, all, began) = (AtomicU64::new(first), Mutex::new(Report::default()), Instant::now());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    let report = run(seed, None);
                    let mut all = all.lock().unwrap();
                    all.wrong.extend(report.wrong.into_iter().map(|wrong| format!("seed {seed}: {wrong}")));
                    for (what, times) in report.counts {
                        all.count(what, times);
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    println!("{runs} runs from seed {first} in {:?}: {:#?}", began.elapsed(), all.counts);
    assert!(all.wrong.is_empty(), "{} things: {:#?}", all.wrong.len(), all.wrong);
    assert!(all.of("cut: ") >= 2 * runs && all.of("kms: ") >= 20 * runs, "too little happened: {:#?}", all.counts);
    assert!(all.of("commit: add wrap") >= 20 * runs && all.of("job: rotation succeeded") >= runs, "too little was done: {:#?}", all.counts);
}

/// The control: a vault or store that breaks the promise is found out at once.
#[test]
fn the_test_sees_a_vault_that_loses_wraps() {
    for (spoil, says) in [
        (Spoil::ForeignWrap, "does not open it"),
        (Spoil::StaleWrap, "does not open it"),
        (Spoil::EarlyDrop, "nothing opens"),
        (Spoil::NothingActive, "0 wrapper keys are active"),
    ] {
        let wrong = calm(spoil);
        assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{spoil:?}: {wrong:?}");
    }
}

/// A calm life with one broken step: what was seen after its commits.
fn calm(spoil: Spoil) -> Vec<String> {
    let world = Scenario::new(1, Some(spoil));
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        let mut racer = racer(&world, &life, 1, &Arc::default(), &Arc::default());
        bootstrapped(&life).await;
        for _ in 0..3 {
            racer.create(KeySpec::Aes256).await;
        }
        racer.add_wrapper_key().await;
        let keys = life.watched.wrapper_keys().await.unwrap();
        // Some of these can never end.
        let _ = life.vault.start_rotation(&as_("wrapper-admin"), keys[1].id).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), idle(&life)).await;
        let _ = life.vault.start_reseal(&as_("key-admin")).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), idle(&life)).await;
        let _ = life.vault.retire_wrapper_key(&as_("wrapper-admin"), keys[0].id).await;
    });
    life.end(1).wrong
}

fn racer(
    world: &Arc<Scenario>,
    life: &VaultProcess,
    seed: u64,
    answers: &Arc<Mutex<BTreeMap<String, u64>>>,
    wrong: &Arc<Mutex<Vec<String>>>,
) -> ConcurrentCaller {
    ConcurrentCaller {
        world: Arc::clone(world),
        vault: Arc::clone(&life.vault),
        disk: Arc::clone(&life.disk),
        seed,
        answers: Arc::clone(answers),
        wrong: Arc::clone(wrong),
    }
}

fn run(seed: u64, spoil: Option<Spoil>) -> Report {
    let (mut dice, mut report) = (seed, Report::default());
    let mut below = |bound: u64| split_mix(&mut dice) % bound;
    let world = Scenario::new(seed, spoil);
    let (answers, wrong) = (Arc::default(), Arc::default());
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        let mut racer = racer(&world, &life, below(u64::MAX), &answers, &wrong);
        bootstrapped(&life).await;
        for number in 0..6 + below(30) {
            racer.create(if number % 8 == 0 { KeySpec::EcCurve25519 } else { KeySpec::Aes256 }).await;
        }
        for _ in 0..=below(3) {
            racer.add_wrapper_key().await;
        }
    });
    report.add(life.end(below(u64::MAX)));

    for _ in 0..2 + below(2) {
        let life = VaultProcess::begin(&world);
        world.sky.weather([0, 30, 100, 300][usize::try_from(below(4)).unwrap()]);
        match below(4) {
            0 => life.disk.cut_power_after(20 + below(1_000), below(u64::MAX)),
            1 => world.sky.cut_power_after(below(300), Arc::clone(&life.disk)),
            _ => {
                let step = STEPS[usize::try_from(below(STEPS.len() as u64)).unwrap()];
                let often = matches!(step, "add wrap" | "reseal" | "insert" | "update");
                let after = if often { below(30) } else { below(3) };
                life.watched.plan(Cut { step, after, operations: below(8), seed: below(u64::MAX) });
            }
        }
        race(&world, &life, 40, [below(u64::MAX), below(u64::MAX), below(u64::MAX)], &answers, &wrong);
        report.add(life.end(below(u64::MAX)));
    }

    // Once more with faults, and then in peace.
    let life = VaultProcess::begin(&world);
    race(&world, &life, 10, [below(u64::MAX), below(u64::MAX), below(u64::MAX)], &answers, &wrong);
    world.sky.weather(0);
    life.runtime.block_on(settle(&world, &life, &mut report));
    report.add(life.end(below(u64::MAX)));
    // Nothing in memory, and only one wrapper key left.
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(look_over(&world, &life, &mut report));
    report.add(life.end(below(u64::MAX)));
    report.wrong.extend(Auditor::default().store_faults(&rusqlite::Connection::open(world.database()).unwrap()));

    report.wrong.extend(wrong.lock().unwrap().drain(..));
    for (what, times) in answers.lock().unwrap().iter() {
        report.count(format!("call: {what}"), *times);
    }
    for (what, times) in world.sky.met.lock().unwrap().iter() {
        report.count(format!("kms: {what}"), *times);
    }
    report
}

/// Callers and jobs race, until the power goes or all have had their turns.
fn race(
    world: &Arc<Scenario>,
    life: &VaultProcess,
    calls: u64,
    seeds: [u64; 3],
    answers: &Arc<Mutex<BTreeMap<String, u64>>>,
    wrong: &Arc<Mutex<Vec<String>>>,
) {
    life.runtime.block_on(async {
        let racer = |seed| racer(world, life, seed, answers, wrong);
        tokio::join!(racer(seeds[0]).use_keys(calls), racer(seeds[1]).use_keys(calls), racer(seeds[2]).use_wrapper_keys(calls / 3));
    });
}

/// The first wrapper key is registered, by this call or by the background task.
async fn bootstrapped(life: &VaultProcess) {
    let registered = life.vault.bootstrap().await;
    assert!(registered.is_ok() || !life.watched.wrapper_keys().await.unwrap().is_empty(), "{registered:?}");
}

async fn idle(life: &VaultProcess) {
    let began = Instant::now();
    while let Some(job) = life.watched.state().await.unwrap().running_job {
        assert!(began.elapsed() < PATIENCE, "does not end: {:?}", life.watched.job(job.id).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// In peace: the job that runs ends, and what it left is done by another; every other wrapper key can go.
async fn settle(world: &Scenario, life: &VaultProcess, report: &mut Report) {
    idle(life).await;
    let active = active(life).await;
    let left = life.watched.keys_missing(KeyRequirement::WrapUnder(active), ALL).await.unwrap();
    if !left.is_empty() {
        let job = life.vault.start_rotation(&as_("wrapper-admin"), active).await.unwrap().into_value();
        idle(life).await;
        expect_success(life, &job, report).await;
    }
    let others = life.watched.wrapper_keys().await.unwrap();
    if let Some(to) = others.iter().find(|key| !matches!(key.state, WrapperState::Active | WrapperState::Retired)) {
        let job = life.vault.start_rotation(&as_("wrapper-admin"), to.id).await.unwrap().into_value();
        idle(life).await;
        expect_success(life, &job, report).await;
    }
    for key in life.watched.wrapper_keys().await.unwrap() {
        if !matches!(key.state, WrapperState::Active | WrapperState::Retired)
            && let Err(error) = life.vault.retire_wrapper_key(&as_("wrapper-admin"), key.id).await
        {
            report.wrong.push(format!("{} is {} and cannot be retired: {error}", key.id, key.state));
        }
    }
    let job = life.vault.start_reseal(&as_("key-admin")).await.unwrap().into_value();
    idle(life).await;
    expect_success(life, &job, report).await;
    world.sky.weather(0);
}

async fn active(life: &VaultProcess) -> WrapperKeyId {
    let keys = life.watched.wrapper_keys().await.unwrap();
    keys.iter().find(|key| key.state == WrapperState::Active).unwrap().id
}

async fn expect_success(life: &VaultProcess, job: &Job, report: &mut Report) {
    let job = life.watched.job(job.id).await.unwrap().unwrap();
    if job.state != JobState::Succeeded {
        report.wrong.push(format!("in peace a job ended as {job:?}"));
    }
}

/// Every key opens with nothing in memory, what was promised is there, and jobs and log say what was.
async fn look_over(world: &Scenario, life: &VaultProcess, report: &mut Report) {
    let mut there = HashSet::new();
    let mut wrong = Vec::new();
    for id in life.watched.keys(&all_keys(), ALL).await.unwrap().into_iter().map(|key| key.item.attributes.id) {
        there.insert(id);
        if let BackupKeyResult::Fails { why, .. } = life.vault.verify_backup_key(id).await.result {
            wrong.push(format!("{id} does not open: {why}"));
        }
    }
    wrong.extend(world.promised.lock().unwrap().iter().filter(|id| !there.contains(id)).map(|id| format!("{id} is lost")));
    let active = active(life).await;
    for key in life.watched.keys(&all_keys(), ALL).await.unwrap().into_iter().map(|key| key.item) {
        let under: Vec<_> = key.wraps.iter().map(|wrap| wrap.wrapper_key).collect();
        if key.sealed.is_some() && under != [active] {
            wrong.push(format!("{} has wraps under {under:?}, and only {active} is left", key.attributes.id));
        }
    }
    for kind in [JobKind::Rotation, JobKind::Reseal] {
        for job in life.watched.jobs(kind, ALL).await.unwrap().into_iter().map(|job| job.item) {
            report.count(format!("job: {kind} {}", job.state), 1);
            let is_right = match job.state {
                JobState::Running => false,
                JobState::Succeeded => (job.done, job.failed, job.errors.len()) == (job.total, 0, 0),
                JobState::Failed => job.done + job.failed == job.total && job.failed > 0 && !job.errors.is_empty(),
                JobState::Aborted => job.done <= job.total && job.failed <= job.total,
            };
            if !is_right || job.finished_at.is_none_or(|at| at < job.started_at) {
                wrong.push(format!("{job:?} cannot be"));
            }
        }
    }
    let store = Arc::clone(&life.watched) as Arc<dyn KeyStore>;
    let quarantined = log(&store).await.into_iter().filter(|stored| stored.entry.operation == Operation::Quarantine);
    wrong.extend(quarantined.map(|stored| format!("quarantined: {:?}", stored.entry)));
    report.wrong.append(&mut wrong);
}
