//! The conformance suite of `KeyStore`: it runs on each store through the trait only.

mod jobs;
mod lists;
mod tree;

use std::{future::Future, sync::Arc};

use canton_keyvault::{
    audit::leaf_hash,
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyRecord, KeySpec, Lifecycle, Operation, Origin, Purpose, StateChange, Transition, Wrap,
        WrapperKey, WrapperState,
    },
    storage::{
        Change, Commit, CommitError, EntryPage, IdempotencyScope, KeyStore, KeyUpdate, Mode, NewIdempotencyRecord, SqliteConfig, TreeQuery,
        WrapperKeyUse,
    },
};

use crate::storage_fixtures::{
    add, all_entries, all_keys, at, change, commit, entry, event, freeze, id, insert, insert_after, log, open, page, record, register,
    remembered, sign, step, tagged, wrap, wrapper, wrapper_key,
};
use crate::storage_postgres::open_postgres;
use crate::support::postgres::shared_server;

use self::jobs::{
    a_job_succeeds_only_when_no_key_is_left, a_reseal_replaces_sealed_bytes_tag_and_wraps,
    a_rotation_changes_the_active_wrapper_key_and_runs_alone, a_wrap_is_added_in_place_of_a_broken_one_only,
    a_wrap_is_added_only_where_it_opens_something, a_wrapper_key_is_retired_only_when_every_key_is_held_without_it,
    a_wrapper_key_remembers_its_last_use, many_wraps_of_a_retired_wrapper_key_are_deleted_in_steps,
};
use self::lists::{due_keys_are_found, entries_are_filtered, keys_are_listed_in_pages, pages_stay_where_they_are_while_keys_come};
use self::tree::{archived_entries_are_removed_and_every_proof_stays, checkpoints_are_stored, the_tree_grows_with_each_entry_alone};

/// A test for every behaviour, on every store.
macro_rules! conformance {
    ($($behaviour:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::on_sqlite(super::$behaviour).await;
                }
            )+
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::on_postgres(super::$behaviour).await;
                }
            )+
        }
    };
}

conformance!(
    a_key_reads_back_as_written,
    a_new_store_is_empty,
    a_key_is_inserted_once,
    a_key_needs_the_active_wrapper_key,
    a_successor_and_its_link_are_one_commit,
    a_link_that_lost_its_race_undoes_the_key,
    a_step_is_a_compare_and_swap,
    a_destroyed_key_keeps_its_facts_alone,
    a_wrap_is_quarantined,
    a_key_is_set_aside_from_where_the_log_stands,
    wrapper_keys_are_registered_once,
    the_regions_of_a_wrapper_key_are_a_compare_and_swap,
    the_name_of_a_wrapper_key_is_in_the_chain,
    a_use_counts_only_while_its_key_is_unchanged,
    a_frozen_vault_takes_no_use,
    every_change_moves_the_revision_and_nothing_else_does,
    an_idempotency_key_counts_until_it_expires,
    a_refused_commit_leaves_no_trace,
    further_uses_have_their_entries_all_or_none,
    archived_entries_are_removed_and_every_proof_stays,
    concurrent_commits_leave_no_gap,
    one_of_many_wins_a_race,
    keys_are_listed_in_pages,
    pages_stay_where_they_are_while_keys_come,
    entries_are_filtered,
    due_keys_are_found,
    a_wrap_is_added_only_where_it_opens_something,
    a_wrap_is_added_in_place_of_a_broken_one_only,
    a_rotation_changes_the_active_wrapper_key_and_runs_alone,
    a_job_succeeds_only_when_no_key_is_left,
    a_reseal_replaces_sealed_bytes_tag_and_wraps,
    a_wrapper_key_is_retired_only_when_every_key_is_held_without_it,
    many_wraps_of_a_retired_wrapper_key_are_deleted_in_steps,
    a_wrapper_key_remembers_its_last_use,
    the_tree_grows_with_each_entry_alone,
    checkpoints_are_stored,
);

async fn on_sqlite<F: Future<Output = ()>>(behaviour: impl FnOnce(Arc<dyn KeyStore>) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production)));
    assert_eq!(store.schema(), 12);
    behaviour(Arc::clone(&store) as Arc<dyn KeyStore>).await;
    store.close().await;
}

async fn on_postgres<F: Future<Output = ()>>(behaviour: impl FnOnce(Arc<dyn KeyStore>) -> F) {
    let database = shared_server().await.database().await;
    let store = Arc::new(open_postgres(&database, "i1").await.unwrap());
    assert_eq!(store.schema(), 2);
    behaviour(Arc::clone(&store) as Arc<dyn KeyStore>).await;
    store.close().await;
}

// Behaviours

async fn a_new_store_is_empty(store: Arc<dyn KeyStore>) {
    assert_eq!(store.key(id(1)).await, Ok(None));
    assert_eq!(store.keys(&all_keys(), page(0, 10)).await, Ok(vec![]));
    assert_eq!(store.entries(&all_entries(), page(0, 10)).await, Ok(EntryPage::default()));
    assert_eq!(store.state().await.map(|state| state.frozen), Ok(false));
    assert_eq!(store.idempotency_hash_key().await, store.idempotency_hash_key().await);
    assert_ne!(store.idempotency_hash_key().await.unwrap(), [0; 32]);
}

async fn a_key_reads_back_as_written(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    let pair = record(1);
    let mut symmetric = record(2);
    symmetric.attributes = KeyAttributes {
        id: KeyId::Symmetric([7; 16]),
        purpose: Purpose::Symmetric,
        spec: KeySpec::Aes256,
        usages: [].into_iter().collect(),
        class: Class::Permanent,
        origin: Origin::Imported,
        exportable: true,
        ..symmetric.attributes
    };
    symmetric = KeyRecord {
        name: None,
        public_key: None,
        row_tag: None,
        predecessor: Some(id(1)),
        delete_at: Some(at(99)),
        lifecycle: Lifecycle::ACTIVE.after(Transition::Supersede).and_then(|l| l.after(Transition::Disable)).unwrap(),
        ..symmetric
    };
    symmetric.wraps.push(Wrap { verified_at: None, quarantined: true, ..wrap(2) });
    for key in [&pair, &symmetric] {
        let receipt = store.commit(insert(key)).await.unwrap();
        let stored = store.key(key.attributes.id).await.unwrap().unwrap();
        assert_eq!(&stored.record, key);
        assert_eq!(stored.logged_state, Some(key.state_change()));
        assert_eq!(stored.store_revision, receipt.store_revision);
    }
}

async fn a_key_is_inserted_once(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let other = KeyRecord { name: None, ..record(1) };
    assert_eq!(store.commit(insert(&other)).await, Err(CommitError::KeyExists));
    assert_eq!(store.key(id(1)).await.unwrap().unwrap().record, record(1));
}

async fn a_key_needs_the_active_wrapper_key(store: Arc<dyn KeyStore>) {
    assert_eq!(store.commit(insert(&record(1))).await, Err(CommitError::ActiveWrapperChanged));
    register(&store, 2, WrapperState::Active).await;
    register(&store, 1, WrapperState::Draining).await;
    assert_eq!(store.commit(insert(&record(1))).await, Err(CommitError::ActiveWrapperChanged));
    assert_eq!(store.key(id(1)).await, Ok(None));
}

async fn a_successor_and_its_link_are_one_commit(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let mut linked = step(&record(1), Lifecycle::ACTIVE);
    linked.to.successor = Some(id(2));
    let receipt = store.commit(insert_after(&record(2), &linked)).await.unwrap();
    let old = store.key(id(1)).await.unwrap().unwrap();
    assert_eq!(old.record.successor, Some(id(2)));
    assert_eq!(old.logged_state, Some(linked.to));
    assert!(store.key(id(2)).await.unwrap().is_some());
    let entries = store.entries(&all_entries(), page(receipt.sequence - 1, 10)).await.unwrap().entries;
    let about: Vec<_> = entries.iter().map(|stored| stored.entry.key_id).collect();
    assert_eq!(about, [Some(id(2)), Some(id(1))], "the receipt names the commit's own entry, the link's follows");
}

async fn a_link_that_lost_its_race_undoes_the_key(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let before = log(&store).await;
    let stale = KeyUpdate { if_revision: 9, ..step(&record(1), Lifecycle::ACTIVE) };
    assert_eq!(store.commit(insert_after(&record(2), &stale)).await, Err(CommitError::LostRace));
    assert_eq!(store.key(id(2)).await, Ok(None));
    assert_eq!(log(&store).await, before);
}

async fn a_step_is_a_compare_and_swap(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let disabled = Lifecycle::ACTIVE.after(Transition::Disable).unwrap();
    let mut update = KeyUpdate { row_tag: None, ..step(&record(1), disabled) };
    update.to.successor = Some(id(5));
    update.to.delete_at = Some(at(77));
    store.commit(change(&update)).await.unwrap();
    let stored = store.key(id(1)).await.unwrap().unwrap();
    let expected =
        KeyRecord { lifecycle: disabled, revision: 2, row_tag: None, delete_at: Some(at(77)), successor: Some(id(5)), ..record(1) };
    assert_eq!(stored.record, expected);
    assert_eq!(stored.logged_state, Some(update.to));
    assert_eq!(store.commit(change(&update)).await, Err(CommitError::LostRace));
    let unknown = KeyUpdate { key: id(9), ..update };
    assert_eq!(store.commit(change(&unknown)).await, Err(CommitError::LostRace));
}

async fn a_destroyed_key_keeps_its_facts_alone(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let destroyed = Lifecycle::ACTIVE.after(Transition::ScheduleDeletion).and_then(|l| l.after(Transition::Destroy)).unwrap();
    store.commit(change(&KeyUpdate { row_tag: None, ..step(&record(1), destroyed) })).await.unwrap();
    let expected = KeyRecord { lifecycle: destroyed, revision: 2, row_tag: None, sealed: None, wraps: vec![], ..record(1) };
    assert_eq!(store.key(id(1)).await.unwrap().unwrap().record, expected);
    assert_eq!(store.keys_by_wrapper_key().await.unwrap()[0].keys, 0);
    assert_eq!(store.commit(insert(&record(1))).await, Err(CommitError::KeyExists), "a tombstone keeps its id");
}

async fn a_wrap_is_quarantined(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let quarantine = |key, generation, wrapped| Commit {
        change: Some(Change::QuarantineWrap { key, wrapper_key: wrapper(1), generation, wrapped }),
        ..commit(Operation::Quarantine, Some(key))
    };
    let broken = || wrap(1).wrapped;
    assert_eq!(store.commit(quarantine(id(1), 2, broken())).await, Err(CommitError::LostRace));
    assert_eq!(store.commit(quarantine(id(2), 1, broken())).await, Err(CommitError::LostRace));
    assert_eq!(store.commit(quarantine(id(1), 1, vec![9; 60])).await, Err(CommitError::LostRace), "it was replaced meanwhile");
    store.commit(quarantine(id(1), 1, broken())).await.unwrap();
    let stored = store.key(id(1)).await.unwrap().unwrap().record;
    assert_eq!(stored, KeyRecord { wraps: vec![Wrap { quarantined: true, ..wrap(1) }], ..record(1) });
}

async fn a_key_is_set_aside_from_where_the_log_stands(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    assert_eq!(store.unreadable_key(id(9)).await, Ok(None));
    let unreadable_key = store.unreadable_key(id(1)).await.unwrap().unwrap();
    let logged = StateChange { revision: 1, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None };
    assert_eq!((unreadable_key.node, unreadable_key.logged_state), (Some(record(1).attributes.node), Some(logged)));
    let lifecycle = Lifecycle::ACTIVE.after(Transition::Quarantine).unwrap();
    let set_aside = |key, revision| {
        let to = StateChange { revision, lifecycle, successor: None, delete_at: None };
        let event = AuditEvent { change: Some(to), ..event(Operation::Quarantine, Some(key)) };
        Commit::change(Change::SetAside { key, to }, event)
    };
    for (key, revision) in [(id(1), 1), (id(1), 3), (id(9), 1)] {
        assert_eq!(store.commit(set_aside(key, revision)).await, Err(CommitError::LostRace));
    }
    store.commit(set_aside(id(1), 2)).await.unwrap();
    let stored = store.key(id(1)).await.unwrap().unwrap();
    assert_eq!(stored.record, KeyRecord { lifecycle, revision: 2, row_tag: None, successor: None, delete_at: None, ..record(1) });
    assert_eq!(stored.logged_state, Some(StateChange { revision: 2, lifecycle, successor: None, delete_at: None }));
}

async fn wrapper_keys_are_registered_once(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    register(&store, 2, WrapperState::Standby).await;
    let again =
        WrapperKey { id: wrapper(3), identity: wrapper_key(1, WrapperState::Standby).identity, ..wrapper_key(3, WrapperState::Standby) };
    assert_eq!(store.commit(add(again)).await, Err(CommitError::WrapperKeyExists));
    assert_eq!(store.commit(add(wrapper_key(4, WrapperState::Active))).await, Err(CommitError::ActiveWrapperChanged));
    store.commit(insert(&record(1))).await.unwrap();
    let mut two = record(2);
    two.wraps.push(wrap(2));
    store.commit(insert(&two)).await.unwrap();
    let use_of = |number, state, keys| WrapperKeyUse { key: wrapper_key(number, state), keys, last_used_at: None };
    let expected = vec![use_of(1, WrapperState::Active, 2), use_of(2, WrapperState::Standby, 1)];
    assert_eq!(store.keys_by_wrapper_key().await, Ok(expected.clone()));
    assert_eq!(store.wrapper_keys().await, Ok(expected.into_iter().map(|found| found.key).collect()));
}

async fn the_regions_of_a_wrapper_key_are_a_compare_and_swap(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    let had = wrapper_key(1, WrapperState::Active).regions;
    let regions = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let set = |number, from: &[String], to: &[String]| Commit {
        change: Some(Change::SetWrapperKeyRegions { id: wrapper(number), from: from.to_vec(), to: to.to_vec() }),
        ..commit(Operation::ReplicateWrapperKey, None)
    };
    let (one, two) = (regions(&["eu-central-1", "eu-west-1"]), regions(&["eu-central-1", "us-east-1"]));
    let before = store.known_revision();
    assert!(store.commit(set(1, &had, &one)).await.unwrap().store_revision > before, "whoever connected it must look again");
    assert_eq!(store.commit(set(1, &had, &two)).await, Err(CommitError::LostRace));
    assert_eq!(store.commit(set(9, &had, &two)).await, Err(CommitError::LostRace));
    let expected = WrapperKey { regions: one, ..wrapper_key(1, WrapperState::Active) };
    assert_eq!(store.wrapper_keys().await, Ok(vec![expected]));
}

async fn the_name_of_a_wrapper_key_is_in_the_chain(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    let name = |text: &str| Some(text.parse().unwrap());
    store.commit(add(WrapperKey { name: name("two"), ..wrapper_key(2, WrapperState::Standby) })).await.unwrap();
    let rename = |number, to| Commit {
        change: Some(Change::RenameWrapperKey { id: wrapper(number), to }),
        ..commit(Operation::RenameWrapperKey, None)
    };
    assert_eq!(store.commit(rename(9, name("x"))).await, Err(CommitError::LostRace));
    let names = || async { store.wrapper_keys().await.unwrap().into_iter().map(|key| key.name).collect::<Vec<_>>() };
    assert_eq!(names().await, [None, name("two")]);
    store.commit(rename(1, name("one"))).await.unwrap();
    assert_eq!(names().await, [name("one"), name("two")]);
    store.commit(rename(2, None)).await.unwrap();
    assert_eq!(names().await, [name("one"), None]);
}

async fn a_use_counts_only_while_its_key_is_unchanged(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let seen = store.commit(insert(&record(2))).await.unwrap().store_revision;
    assert_eq!(store.known_revision(), seen);
    store.commit(sign(id(1), 1, seen)).await.unwrap();
    store.commit(change(&step(&record(2), Lifecycle::ACTIVE.after(Transition::Disable).unwrap()))).await.unwrap();
    store.commit(sign(id(1), 1, seen)).await.expect("another key changed, not this one");
    assert_eq!(store.commit(sign(id(2), 1, seen)).await, Err(CommitError::Stale));
    assert_eq!(store.commit(sign(id(9), 1, seen)).await, Err(CommitError::Stale), "a key that is not there has changed");
    store.commit(sign(id(2), 2, store.known_revision())).await.expect("it is the vault that judges states");
}

async fn a_frozen_vault_takes_no_use(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    let seen = store.commit(insert(&record(1))).await.unwrap().store_revision;
    store.commit(freeze(true)).await.unwrap();
    assert_eq!(store.state().await.map(|state| state.frozen), Ok(true));
    assert_eq!(store.commit(sign(id(1), 1, seen)).await, Err(CommitError::Stale));
    assert_eq!(store.commit(sign(id(1), 1, store.known_revision())).await, Err(CommitError::Stale));
    store.commit(commit(Operation::ListKeys, None)).await.expect("what is no use is logged still");
    store.commit(freeze(false)).await.unwrap();
    assert_eq!(store.state().await.map(|state| state.frozen), Ok(false));
    store.commit(sign(id(1), 1, seen)).await.unwrap();
}

async fn every_change_moves_the_revision_and_nothing_else_does(store: Arc<dyn KeyStore>) {
    let mut last = store.known_revision();
    let disabled = step(&record(1), Lifecycle::ACTIVE.after(Transition::Disable).unwrap());
    let quarantine = Change::QuarantineWrap { key: id(1), wrapper_key: wrapper(1), generation: 1, wrapped: wrap(1).wrapped };
    for changing in [
        add(wrapper_key(1, WrapperState::Active)),
        insert(&record(1)),
        change(&disabled),
        Commit::change(quarantine, event(Operation::Quarantine, Some(id(1)))),
        freeze(true),
    ] {
        let receipt = store.commit(changing).await.unwrap();
        assert!(receipt.store_revision > last);
        assert_eq!(store.known_revision(), receipt.store_revision);
        last = receipt.store_revision;
    }
    assert_eq!(store.commit(commit(Operation::ListKeys, None)).await.unwrap().store_revision, last);
    assert_eq!(store.commit(change(&disabled)).await, Err(CommitError::LostRace));
    assert_eq!(store.known_revision(), last);
}

async fn an_idempotency_key_counts_until_it_expires(store: Arc<dyn KeyStore>) {
    let scope = |principal: &str| IdempotencyScope { principal: principal.into(), route: "POST /v1/keys".into(), key: "k".into() };
    let note = |principal: &str, answer: &str, now, until| Commit {
        idempotency: Some(NewIdempotencyRecord { scope: scope(principal), record: remembered(answer), expires_at: at(until) }),
        event: AuditEvent { at: at(now), ..event(Operation::CreateKey, None) },
        ..commit(Operation::CreateKey, None)
    };
    store.commit(note("a", "first", 10, 20)).await.unwrap();
    assert_eq!(store.idempotency_record(&scope("a"), at(19)).await, Ok(Some(remembered("first"))));
    assert_eq!(store.idempotency_record(&scope("a"), at(20)).await, Ok(None));
    assert_eq!(store.idempotency_record(&scope("b"), at(10)).await, Ok(None));
    assert_eq!(store.commit(note("a", "second", 19, 40)).await, Err(CommitError::IdempotencyKeyTaken));
    assert_eq!(store.idempotency_record(&scope("a"), at(19)).await, Ok(Some(remembered("first"))));
    store.commit(note("b", "other", 19, 40)).await.unwrap();
    store.commit(note("a", "third", 20, 40)).await.unwrap();
    assert_eq!(store.idempotency_record(&scope("a"), at(39)).await, Ok(Some(remembered("third"))));
}

async fn a_refused_commit_leaves_no_trace(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let (before, revision) = (log(&store).await, store.known_revision());
    let scope = IdempotencyScope { principal: "a".into(), route: "r".into(), key: "k".into() };
    let refused = Commit {
        idempotency: Some(NewIdempotencyRecord { scope: scope.clone(), record: remembered("x"), expires_at: at(1_000) }),
        ..insert(&record(1))
    };
    assert_eq!(store.commit(refused).await, Err(CommitError::KeyExists));
    assert_eq!(store.idempotency_record(&scope, at(0)).await, Ok(None));
    assert_eq!((log(&store).await, store.known_revision()), (before, revision));
}

async fn further_uses_have_their_entries_all_or_none(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let uses = |store_revision, revision, numbers: std::ops::Range<u32>| {
        let mut events = numbers.map(|number| AuditEvent { subject: Some(number.to_string()), ..sign(id(1), 1, 0).event });
        let event = events.next().unwrap();
        Commit { event, further: events.collect(), ..sign(id(1), revision, store_revision) }
    };
    let before = log(&store).await;
    assert_eq!(store.commit(uses(0, 9, 0..5)).await.unwrap_err(), CommitError::Stale);
    assert_eq!(log(&store).await, before);
    let size = before.len() as u64;
    // Others commit at the same time: the entries of a call follow each other all the same.
    let revision = store.known_revision();
    let commits = (0..20).map(|call| store.commit(uses(revision, 1, call * 10..call * 10 + 4)));
    for (call, receipt) in (0..20).zip(futures_util::future::join_all(commits).await) {
        let last = receipt.unwrap().sequence;
        for (offset, number) in (0..4).zip(call * 10..call * 10 + 4) {
            assert_eq!(entry(&store, last - 3 + offset).await.subject, Some(number.to_string()));
        }
    }
    assert_eq!(log(&store).await.len() as u64, size + 80);
    let root = store.tree(TreeQuery::Root { size: size + 80 }).await;
    assert!(root.is_ok(), "the tree has them: {root:?}");
}

async fn concurrent_commits_leave_no_gap(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    let tasks: Vec<_> = (0..600_u32)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                // Every third loses: its savepoint must undo nothing but its own.
                let commit = match number % 3 {
                    0 => insert(&record(u8::try_from(number / 3).unwrap())),
                    1 => Commit { event: tagged(number), ..commit(Operation::Sign, None) },
                    _ => insert(&KeyRecord { wraps: vec![wrap(1), wrap(1)], ..record(255) }),
                };
                (number, store.commit(commit).await)
            })
        })
        .collect();
    let mut made = 1;
    for task in tasks {
        let (number, answer) = task.await.unwrap();
        match (number % 3, answer) {
            (0, Ok(receipt)) => {
                let key = id(u8::try_from(number / 3).unwrap());
                assert_eq!(entry(&store, receipt.sequence).await.key_id, Some(key));
                assert!(store.key(key).await.unwrap().is_some());
                made += 1;
            }
            (1, Ok(receipt)) => {
                assert_eq!(entry(&store, receipt.sequence).await.subject, Some(number.to_string()));
                made += 1;
            }
            (2, Err(CommitError::Unavailable(_))) => {}
            unexpected => panic!("{unexpected:?}"),
        }
    }
    let entries = store.entries(&all_entries(), page(0, 1_000)).await.unwrap().entries;
    let sequences: Vec<u64> = entries.iter().map(|stored| stored.entry.sequence).collect();
    assert_eq!(sequences, (1..=made).collect::<Vec<u64>>());
    assert!(entries.iter().all(|stored| stored.leaf == leaf_hash(&stored.bytes)));
}

async fn one_of_many_wins_a_race(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    let update = step(&record(1), Lifecycle::ACTIVE.after(Transition::Disable).unwrap());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (store, commit) = (Arc::clone(&store), change(&update));
            tokio::spawn(async move { store.commit(commit).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(CommitError::LostRace)).count(), 49);
    assert_eq!(log(&store).await.len(), 3);
}
