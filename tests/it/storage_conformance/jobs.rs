//! Jobs over all keys in every store, with concurrent changes.

use std::sync::Arc;

use canton_keyvault::{
    domain::{
        AuditEvent, Fingerprint, Job, JobError, JobId, JobKind, JobState, KeyId, KeyRecord, KmsUse, Lifecycle, Operation, SealedKey,
        StateChange, Transition, Work, Wrap, WrapperState,
    },
    storage::{
        Change, Commit, CommitError, Dependents, JobEnd, KeyRequirement, KeyStore, KeyUpdate, Reseal, Retirement, WRAPS_AT_ONCE,
        WrapperKeyUse,
    },
};

use crate::storage_fixtures::{at, change, event, id, insert, page, record, register, step, wrap, wrapper, wrapper_key};

fn of(change: Change) -> Commit {
    Commit::change(change, event(Operation::RewrapKey, None))
}

fn add(key: KeyId, wrap: Wrap) -> Commit {
    of(Change::AddWrap { key, wrap })
}

fn job(number: u8, work: Work) -> Job {
    Job {
        id: JobId::from_random([number; 6]),
        work,
        state: JobState::Running,
        total: 0,
        done: 0,
        failed: 0,
        errors: Vec::new(),
        started_at: at(20),
        finished_at: None,
    }
}

fn rotation(number: u8, from: u8, to: u8) -> Job {
    job(number, Work::Rotation { from: wrapper(from), to: wrapper(to) })
}

fn start(job: &Job) -> Commit {
    of(Change::StartJob(Box::new(job.clone())))
}

fn end(job: &Job, state: JobState) -> Commit {
    let errors = if state == JobState::Failed {
        vec![JobError { key_id: id(1), code: "key_quarantined".into(), detail: "why".into() }]
    } else {
        Vec::new()
    };
    of(Change::EndJob(JobEnd { id: job.id, state, errors, at: at(30) }))
}

async fn states(store: &Arc<dyn KeyStore>) -> Vec<WrapperState> {
    store.wrapper_keys().await.unwrap().into_iter().map(|key| key.state).collect()
}

async fn left(store: &Arc<dyn KeyStore>, wanted: KeyRequirement) -> Vec<KeyId> {
    store.keys_missing(wanted, page(0, 100)).await.unwrap().into_iter().map(|found| found.item).collect()
}

pub(super) async fn a_wrap_is_added_only_where_it_opens_something(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    for (number, state) in
        [(2, WrapperState::Standby), (3, WrapperState::Draining), (4, WrapperState::Retiring), (5, WrapperState::Retired)]
    {
        register(&store, number, state).await;
    }
    store.commit(insert(&record(1))).await.unwrap();
    for number in 3..=5 {
        assert_eq!(store.commit(add(id(1), wrap(number))).await, Err(CommitError::WrapperKeyNotFilled), "{number}");
    }
    assert_eq!(store.commit(add(id(9), wrap(2))).await, Err(CommitError::LostRace), "no such key");
    assert_eq!(store.commit(add(id(1), Wrap { generation: 2, ..wrap(2) })).await, Err(CommitError::LostRace), "another generation");
    let before = store.known_revision();
    store.commit(add(id(1), wrap(2))).await.unwrap();
    assert_eq!(store.known_revision(), before, "nothing that an open key depends on");
    assert_eq!(store.key(id(1)).await.unwrap().unwrap().record.wraps, [wrap(1), wrap(2)]);
    assert_eq!(store.commit(add(id(1), wrap(2))).await, Err(CommitError::LostRace), "it has one");
    // A tombstone takes none.
    let destroyed = Lifecycle::ACTIVE.after(Transition::ScheduleDeletion).and_then(|l| l.after(Transition::Destroy)).unwrap();
    store.commit(change(&KeyUpdate { row_tag: None, ..step(&record(1), destroyed) })).await.unwrap();
    assert_eq!(store.commit(add(id(1), wrap(2))).await, Err(CommitError::LostRace));
    assert_eq!(left(&store, KeyRequirement::WrapUnder(wrapper(2))).await, []);
}

pub(super) async fn a_wrap_is_added_in_place_of_a_broken_one_only(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    let broken = [Wrap { quarantined: true, ..wrap(2) }, Wrap { verified_at: None, ..wrap(2) }];
    for (number, broken) in (1..).zip(broken) {
        let mut key = record(number);
        key.wraps.push(broken);
        store.commit(insert(&key)).await.unwrap();
        assert_eq!(left(&store, KeyRequirement::WrapUnder(wrapper(2))).await, [id(number)]);
        store.commit(add(id(number), Wrap { wrapped: vec![77], ..wrap(2) })).await.unwrap();
        let wraps = store.key(id(number)).await.unwrap().unwrap().record.wraps;
        assert_eq!(wraps, [wrap(1), Wrap { wrapped: vec![77], ..wrap(2) }]);
    }
    assert_eq!(left(&store, KeyRequirement::WrapUnder(wrapper(2))).await, []);
}

pub(super) async fn a_rotation_changes_the_active_wrapper_key_and_runs_alone(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    register(&store, 3, WrapperState::Retired).await;
    store.commit(insert(&record(1))).await.unwrap();
    assert_eq!(store.commit(start(&rotation(1, 2, 1))).await.err(), None, "to the active one: nothing moves");
    assert_eq!(states(&store).await, [WrapperState::Active, WrapperState::Standby, WrapperState::Retired]);
    assert_eq!(store.commit(start(&job(2, Work::Reseal))).await, Err(CommitError::JobRunning));
    store.commit(end(&rotation(1, 2, 1), JobState::Aborted)).await.unwrap();
    assert_eq!(store.commit(start(&rotation(2, 3, 2))).await, Err(CommitError::ActiveWrapperChanged));
    assert_eq!(store.commit(start(&rotation(2, 1, 3))).await, Err(CommitError::WrapperKeyNotFilled), "a retired one never comes back");
    assert_eq!(store.state().await.map(|state| state.running_job), Ok(None), "a refused start leaves nothing");
    store.commit(start(&rotation(2, 1, 2))).await.unwrap();
    assert_eq!(states(&store).await, [WrapperState::Draining, WrapperState::Active, WrapperState::Retired]);
    assert_eq!(store.commit(start(&rotation(3, 2, 1))).await, Err(CommitError::JobRunning));
    assert_eq!(store.state().await.unwrap().running_job.unwrap(), rotation(2, 1, 2));
    assert_eq!(store.commit(insert(&record(2))).await, Err(CommitError::ActiveWrapperChanged), "wrapped before, under the former one");
    store.commit(end(&rotation(2, 1, 2), JobState::Aborted)).await.unwrap();
    store.commit(start(&rotation(3, 2, 1))).await.expect("the way back");
    assert_eq!(states(&store).await, [WrapperState::Active, WrapperState::Draining, WrapperState::Retired]);
}

pub(super) async fn a_job_succeeds_only_when_no_key_is_left(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    for number in 1..=3 {
        store.commit(insert(&record(number))).await.unwrap();
    }
    let running = rotation(1, 1, 2);
    store.commit(start(&running)).await.unwrap();
    let left_now = store.keys_missing(KeyRequirement::WrapUnder(wrapper(2)), page(0, 2)).await.unwrap();
    assert_eq!(left_now.iter().map(|found| found.item).collect::<Vec<_>>(), [id(1), id(2)]);
    let rest = store.keys_missing(KeyRequirement::WrapUnder(wrapper(2)), page(left_now[1].position, 2)).await.unwrap();
    assert_eq!(rest.len(), 1);
    store.commit(add(id(2), wrap(2))).await.unwrap();
    assert_eq!(store.commit(end(&running, JobState::Succeeded)).await, Err(CommitError::KeysLeft(2)));
    assert_eq!(store.job(running.id).await.unwrap().unwrap(), Job { total: 3, done: 1, ..running.clone() });
    store.commit(end(&running, JobState::Failed)).await.unwrap();
    assert_eq!(store.commit(end(&running, JobState::Failed)).await, Err(CommitError::LostRace), "it ended");
    let failed = store.job(running.id).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.total, failed.done, failed.failed), (JobState::Failed, 3, 1, 2));
    assert_eq!((failed.errors.len(), failed.finished_at), (1, Some(at(30))));

    let again = rotation(2, 1, 2);
    store.commit(start(&again)).await.unwrap();
    for number in [1, 3] {
        store.commit(add(id(number), wrap(2))).await.unwrap();
    }
    store.commit(end(&again, JobState::Succeeded)).await.unwrap();
    let listed = store.jobs(JobKind::Rotation, page(0, 10)).await.unwrap();
    assert_eq!(listed.iter().map(|found| found.item.state).collect::<Vec<_>>(), [JobState::Failed, JobState::Succeeded]);
    assert_eq!(store.jobs(JobKind::Reseal, page(0, 10)).await, Ok(vec![]));
}

pub(super) async fn a_reseal_replaces_sealed_bytes_tag_and_wraps(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    let mut key = record(1);
    key.wraps.push(wrap(2));
    store.commit(insert(&key)).await.unwrap();
    store.commit(insert(&record(2))).await.unwrap();
    let to = StateChange { revision: 2, ..key.state_change() };
    let reseal = |wrapper_key: u8, generation| {
        let reseal = Reseal {
            update: KeyUpdate { row_tag: Some([8; 32]), to, ..step(&key, key.lifecycle) },
            sealed: SealedKey::from_stored(vec![9; 129]),
            sealed_at: at(40),
            wrap: Wrap { generation, wrapped: vec![9; 60], ..wrap(wrapper_key) },
        };
        let event = AuditEvent { change: Some(to), ..event(Operation::ResealKey, Some(id(1))) };
        Commit { event, ..of(Change::Reseal(Box::new(reseal))) }
    };
    assert_eq!(store.commit(reseal(2, 2)).await, Err(CommitError::ActiveWrapperChanged));
    for generation in [1, 3] {
        assert_eq!(store.commit(reseal(1, generation)).await, Err(CommitError::LostRace), "{generation}");
    }
    assert_eq!(store.key(id(1)).await.unwrap().unwrap().record, key, "a refused one leaves nothing");
    let wanted = KeyRequirement::SealedSince(at(40));
    assert_eq!(left(&store, wanted).await, [id(1), id(2)]);
    let before = store.known_revision();
    store.commit(reseal(1, 2)).await.unwrap();
    assert!(store.known_revision() > before);
    assert_eq!(left(&store, wanted).await, [id(2)]);
    let stored = store.key(id(1)).await.unwrap().unwrap();
    assert_eq!(stored.logged_state, Some(stored.record.state_change()));
    let wraps = vec![Wrap { generation: 2, wrapped: vec![9; 60], ..wrap(1) }];
    let (row_tag, sealed) = (Some([8; 32]), Some(SealedKey::from_stored(vec![9; 129])));
    assert_eq!(stored.record, KeyRecord { generation: 2, revision: 2, row_tag, sealed, wraps, ..key.clone() });
    assert_eq!(store.commit(reseal(1, 2)).await, Err(CommitError::LostRace));
    assert_eq!(store.commit(add(id(1), wrap(2))).await, Err(CommitError::LostRace), "a wrap of the old data key comes too late");
}

pub(super) async fn a_wrapper_key_is_retired_only_when_every_key_is_held_without_it(store: Arc<dyn KeyStore>) {
    for (number, state) in [(1, WrapperState::Active), (2, WrapperState::Standby), (3, WrapperState::Draining)] {
        register(&store, number, state).await;
    }
    for number in 1..=2 {
        let mut key = record(number);
        key.wraps.push(wrap(3));
        store.commit(insert(&key)).await.unwrap();
    }
    let mut needy = record(3);
    needy.wraps = vec![Wrap { quarantined: true, ..wrap(1) }, wrap(3)];
    store.commit(insert(&needy)).await.unwrap();
    let retire = |holders: &[u8], wraps| {
        of(Change::Retire(Retirement { wrapper_key: wrapper(3), holders: holders.iter().map(|number| wrapper(*number)).collect(), wraps }))
    };
    let dependents = |holders: &[u8]| {
        let (store, holders) = (Arc::clone(&store), holders.iter().map(|number| wrapper(*number)).collect::<Vec<_>>());
        async move { store.dependents(wrapper(3), &holders).await.unwrap() }
    };
    assert_eq!(dependents(&[1, 2]).await, Dependents { wraps: 3, keys: 3, left: 1, examples: vec![id(3)] });
    assert_eq!(dependents(&[]).await.left, 3);
    assert_eq!(store.commit(retire(&[1, 2], 3)).await, Err(CommitError::LostRace), "it must be retiring first");
    assert_eq!(store.commit(of(Change::BeginRetirement(wrapper(1)))).await, Err(CommitError::LostRace), "the active one never");
    store.commit(of(Change::BeginRetirement(wrapper(3)))).await.unwrap();
    assert_eq!(store.commit(retire(&[1, 2], 3)).await, Err(CommitError::KeysLeft(1)));
    store.commit(add(id(3), wrap(2))).await.unwrap();
    assert_eq!(store.commit(retire(&[1], 3)).await, Err(CommitError::KeysLeft(1)), "the one that holds it does not answer");
    assert_eq!(store.commit(retire(&[1, 2, 3], 3)).await, Err(CommitError::LostRace), "it does not hold itself");
    assert_eq!(store.commit(retire(&[1, 2], 2)).await, Err(CommitError::LostRace), "another number than was told");
    // Two that go at the same time do not hold each other.
    store.commit(of(Change::BeginRetirement(wrapper(2)))).await.unwrap();
    assert_eq!(store.commit(retire(&[1, 2], 3)).await, Err(CommitError::LostRace));
    assert_eq!(dependents(&[1, 2]).await.wraps, 3, "refused, nothing is gone");
    let back = rotation(1, 1, 2);
    store.commit(start(&back)).await.expect("what is retiring may be called back");
    assert_eq!(store.commit(retire(&[1, 2], 3)).await, Err(CommitError::JobRunning), "not during a rotation");
    assert_eq!(store.commit(of(Change::BeginRetirement(wrapper(1)))).await, Err(CommitError::JobRunning));
    store.commit(end(&back, JobState::Aborted)).await.unwrap();
    store.commit(retire(&[1, 2], 3)).await.unwrap();
    assert_eq!(states(&store).await, [WrapperState::Draining, WrapperState::Active, WrapperState::Retired]);
    assert!(store.key(id(3)).await.unwrap().unwrap().record.wraps.iter().all(|wrap| wrap.wrapper_key != wrapper(3)));
}

pub(super) async fn many_wraps_of_a_retired_wrapper_key_are_deleted_in_steps(store: Arc<dyn KeyStore>) {
    const LEFT: u32 = 3;
    for (number, state) in [(1, WrapperState::Active), (2, WrapperState::Standby)] {
        register(&store, number, state).await;
    }
    let inserted = (0..WRAPS_AT_ONCE + LEFT).map(|number| {
        let mut key = record(1);
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        key.attributes.id = KeyId::Pair(Fingerprint::from_digest(digest));
        key.wraps.push(wrap(2));
        store.commit(insert(&key))
    });
    for done in futures_util::future::join_all(inserted).await {
        done.unwrap();
    }
    let wraps_under = |number| {
        let store = Arc::clone(&store);
        async move { store.keys_by_wrapper_key().await.unwrap().into_iter().find(|used| used.key.id == wrapper(number)).unwrap().keys }
    };
    assert_eq!(store.delete_retired_wraps().await, Ok(false));
    store.commit(of(Change::BeginRetirement(wrapper(2)))).await.unwrap();
    assert_eq!(store.delete_retired_wraps().await, Ok(false), "it still opens keys");
    let all = u64::from(WRAPS_AT_ONCE + LEFT);
    assert_eq!(wraps_under(2).await, all);
    store.commit(of(Change::Retire(Retirement { wrapper_key: wrapper(2), holders: vec![wrapper(1)], wraps: all }))).await.unwrap();
    assert_eq!(wraps_under(2).await, u64::from(LEFT), "the commit is short");
    while store.delete_retired_wraps().await.unwrap() {}
    assert_eq!((wraps_under(1).await, wraps_under(2).await), (all, 0));
}

pub(super) async fn a_wrapper_key_remembers_its_last_use(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    let use_at = |micros, number| {
        let kms = KmsUse { request_ids: vec!["r".into()], wrapper_keys: vec![wrapper(number)] };
        Commit::entry(AuditEvent { at: at(micros), kms, ..event(Operation::Sign, None) })
    };
    for micros in [50, 40] {
        store.commit(use_at(micros, 1)).await.unwrap();
    }
    let found = store.keys_by_wrapper_key().await.unwrap();
    let expected = |number, state, last_used_at| WrapperKeyUse { key: wrapper_key(number, state), keys: 0, last_used_at };
    assert_eq!(found, [expected(1, WrapperState::Active, Some(at(50))), expected(2, WrapperState::Standby, None)]);
}
