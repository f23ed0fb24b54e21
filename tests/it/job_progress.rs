//! The progress of a job: failing keys do not block others, an abort and a freeze take effect at once, and the counts match the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{
    domain::{Job, JobKind, JobState, KeySpec, WrapperKeyId},
    storage::{KeyStore as _, PageRequest},
};

use crate::{
    job_crash::{
        concurrent_calls::ConcurrentCaller,
        faulty_kms::Fault,
        process::{Scenario, VaultProcess, as_},
    },
    storage_fixtures::all_keys,
};

const ALL: PageRequest = PageRequest { after: 0, limit: 10_000 };

fn racer(world: &Arc<Scenario>, life: &VaultProcess) -> ConcurrentCaller {
    let (world, vault, disk) = (Arc::clone(world), Arc::clone(&life.vault), Arc::clone(&life.disk));
    ConcurrentCaller { world, vault, disk, seed: 1, answers: Arc::default(), wrong: Arc::default() }
}

async fn create(world: &Arc<Scenario>, life: &VaultProcess, keys: usize) {
    while life.watched.wrapper_keys().await.unwrap().is_empty() {
        let _ = life.vault.bootstrap().await;
    }
    for _ in 0..keys {
        racer(world, life).create(KeySpec::Aes256).await;
    }
}

/// Adds a wrapper key and gives its id.
async fn add(world: &Arc<Scenario>, life: &VaultProcess) -> WrapperKeyId {
    racer(world, life).add_wrapper_key().await;
    life.watched.wrapper_keys().await.unwrap().last().unwrap().id
}

async fn rotate(life: &VaultProcess, to: WrapperKeyId) -> Job {
    life.vault.start_rotation(&as_("wrapper-admin"), to).await.unwrap().into_value()
}

async fn show(life: &VaultProcess, job: &Job) -> Job {
    let who = if job.work.kind() == JobKind::Rotation { "wrapper-admin" } else { "key-admin" };
    life.vault.show_job(&as_(who), job.work.kind(), job.id).await.unwrap().into_value()
}

async fn abort(life: &VaultProcess, job: &Job) {
    let who = if job.work.kind() == JobKind::Rotation { "wrapper-admin" } else { "key-admin" };
    life.vault.abort_job(&as_(who), job.work.kind(), job.id).await.unwrap();
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_mins(1), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A vault with 45 keys under the first wrapper key alone, 30 under the second alone, and a third one to rotate to.
async fn mixed(world: &Arc<Scenario>, life: &VaultProcess, fault: Fault) -> (WrapperKeyId, Job) {
    create(world, life, 45).await;
    let first = life.watched.wrapper_keys().await.unwrap()[0].id;
    world.sky.fail(first, fault);
    let second = add(world, life).await;
    let aborted = rotate(life, second).await;
    abort(life, &aborted).await;
    create(world, life, 30).await;
    let third = add(world, life).await;
    (first, rotate(life, third).await)
}

#[test]
fn keys_whose_wrapper_key_is_out_of_reach_keep_no_other_from_being_done() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        let (_, job) = mixed(&world, &life, Fault::Unreachable).await;
        until("the others are done", async || show(&life, &job).await.done == 30).await;
        until("all were tried", async || show(&life, &job).await.failed == 45).await;
        let now = show(&life, &job).await;
        assert_eq!((now.state, now.total, now.errors.len()), (JobState::Running, 75, 20), "{now:?}");
        assert!(now.errors.iter().all(|error| error.code == "wrapper_unavailable"), "{now:?}");
        world.sky.weather(0);
        until("it ends", async || show(&life, &job).await.state == JobState::Succeeded).await;
        let ended = show(&life, &job).await;
        assert_eq!((ended.total, ended.done, ended.failed, ended.errors.len()), (75, 75, 0, 0));
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}

#[test]
fn a_job_fails_once_every_key_was_tried_and_names_those_that_nothing_cures() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        let (_, job) = mixed(&world, &life, Fault::Disabled).await;
        until("it ends", async || show(&life, &job).await.state != JobState::Running).await;
        let ended = show(&life, &job).await;
        assert_eq!((ended.state, ended.total, ended.done, ended.failed), (JobState::Failed, 75, 30, 45), "{ended:?}");
        assert_eq!(ended.errors.len(), 20);
        assert!(ended.errors.iter().all(|error| error.code == "wrapper_denied" && error.detail.contains("disabled")), "{ended:?}");
        // Switched on again, another rotation to the same wrapper key does them.
        world.sky.weather(0);
        let canton_keyvault::domain::Work::Rotation { to, .. } = ended.work else { panic!("{ended:?}") };
        let job = rotate(&life, to).await;
        until("it ends", async || show(&life, &job).await.state == JobState::Succeeded).await;
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}

/// The number of re-sealed keys.
async fn resealed(life: &VaultProcess) -> usize {
    life.watched.keys(&all_keys(), ALL).await.unwrap().iter().filter(|key| key.item.generation > 1).count()
}

#[test]
fn an_abort_and_a_freeze_stop_a_job_within_a_key() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin_at(&world, 40);
    life.runtime.block_on(async {
        create(&world, &life, 240).await;
        let job = life.vault.start_reseal(&as_("key-admin")).await.unwrap().into_value();
        until("it began", async || resealed(&life).await > 0).await;
        life.vault.freeze(&as_("key-admin")).await.unwrap();
        let (then, under_way) = (resealed(&life).await, 4);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let frozen = resealed(&life).await;
        assert!(frozen <= then + under_way, "{then} and then {frozen}, frozen");
        assert_eq!(show(&life, &job).await.state, JobState::Running, "it goes on when the vault does");

        life.vault.unfreeze(&as_("wrapper-admin")).await.unwrap();
        until("it goes on", async || resealed(&life).await > frozen).await;
        abort(&life, &job).await;
        let then = resealed(&life).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let aborted = resealed(&life).await;
        assert!(aborted <= then + under_way && aborted < 240, "{then} and then {aborted}, aborted");
        let again = life.vault.abort_job(&as_("key-admin"), JobKind::Reseal, job.id).await.unwrap_err();
        assert_eq!(again.code().as_str(), "job_ended");
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}

/// What another hand did is no failure of the job: its numbers at its end are the store's.
#[test]
fn a_destroyed_key_is_no_failure_of_an_aborted_job() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        create(&world, &life, 3).await;
        let doomed = world.promised.lock().unwrap()[0];
        life.vault.delete(&as_("key-admin"), doomed, 7).await.unwrap();
        let active = life.watched.wrapper_keys().await.unwrap()[0].id;
        world.sky.fail(active, Fault::Throttled);
        let job = life.vault.start_reseal(&as_("key-admin")).await.unwrap().into_value();
        until("all were tried", async || show(&life, &job).await.failed == 3).await;
        world.move_on(Duration::from_hours(8 * 24));
        life.vault.destroy_due().await;
        abort(&life, &job).await;
        let ended = show(&life, &job).await;
        assert_eq!((ended.state, ended.total, ended.done, ended.failed, ended.errors.len()), (JobState::Aborted, 2, 0, 2, 2), "{ended:?}");
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}

/// The tag of a row is made with the row's own data key, also where an open key of the one before is still in memory.
#[test]
fn a_key_that_is_disabled_during_its_reseal_can_be_enabled() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        create(&world, &life, 1).await;
        let id = world.promised.lock().unwrap()[0];
        let admin = as_("key-admin");
        life.watched.linger_after("reseal", Duration::from_millis(100));
        for generation in 2..6 {
            racer(&world, &life).encrypt(id).await;
            let disabled = async {
                until("it is sealed anew", async || life.watched.key(id).await.unwrap().unwrap().record.generation == generation).await;
                life.vault.disable(&admin, id).await
            };
            let (resealed, disabled) = tokio::join!(life.vault.reseal_key(&admin, id), disabled);
            assert!(resealed.is_ok() && disabled.is_ok());
            life.vault.enable(&admin, id).await.unwrap();
        }
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}

/// A row that was read before a rotation and a retirement, and is opened after both, is read again: the key is not called broken.
#[test]
fn a_call_that_a_whole_rotation_overtakes_succeeds() {
    let world = Scenario::new(1, None);
    let life = VaultProcess::begin(&world);
    life.runtime.block_on(async {
        create(&world, &life, 1).await;
        let (id, admin) = (world.promised.lock().unwrap()[0], as_("key-admin"));
        let release = life.watched.hold_next_look_up();
        let overtaking = async {
            until("the row is read", async || life.watched.holds_none()).await;
            let first = life.watched.wrapper_keys().await.unwrap()[0].id;
            let job = rotate(&life, add(&world, &life).await).await;
            until("it ends", async || show(&life, &job).await.state == JobState::Succeeded).await;
            life.vault.retire_wrapper_key(&as_("wrapper-admin"), first).await.unwrap();
            drop(release);
        };
        let (resealed, ()) = tokio::join!(life.vault.reseal_key(&admin, id), overtaking);
        resealed.unwrap();
    });
    assert_eq!(life.end(1).wrong, [""; 0]);
}
