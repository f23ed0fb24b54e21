//! Lists of keys and of the log: order, pages, filters.

use std::sync::Arc;

use canton_keyvault::{
    domain::{
        AuditEvent, Class, KeyAttributes, KeyId, KeyRecord, KeyState, Lifecycle, Operation, Outcome, Principal, Purpose, StateChange,
        Transition, WrapperState,
    },
    storage::{Commit, EntryFilter, KeyFilter, KeyStore, KeyUpdate},
};

use crate::storage_fixtures::{all_entries, all_keys, at, change, event, id, insert, node, only, page, record, register, step};

pub(super) async fn keys_are_listed_in_pages(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    for number in 1..=8 {
        store.commit(insert(&record(number))).await.unwrap();
    }
    let attributes = KeyAttributes { class: Class::Permanent, ..record(9).attributes };
    store.commit(insert(&KeyRecord { attributes, created_at: at(20), ..record(9) })).await.unwrap();
    store.commit(change(&step(&record(3), Lifecycle::ACTIVE.after(Transition::Disable).unwrap()))).await.unwrap();
    let list = async |filter: KeyFilter| -> Vec<KeyId> {
        let (mut ids, mut after) = (Vec::new(), 0);
        loop {
            let keys = store.keys(&filter, page(after, 2)).await.unwrap();
            let Some(last) = keys.last() else { return ids };
            after = last.position;
            ids.extend(keys.iter().map(|key| key.item.attributes.id));
        }
    };
    let ids = |numbers: &[u8]| numbers.iter().map(|number| id(*number)).collect::<Vec<_>>();
    assert_eq!(list(all_keys()).await, ids(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!(list(KeyFilter { node: Some(node(1)), ..all_keys() }).await, ids(&[1, 4, 7]));
    assert_eq!(list(KeyFilter { nodes: only(&[0, 1]), ..all_keys() }).await, ids(&[1, 3, 4, 6, 7, 9]));
    assert_eq!(list(KeyFilter { nodes: only(&[0]), node: Some(node(1)), ..all_keys() }).await, []);
    assert_eq!(list(KeyFilter { nodes: only(&[]), ..all_keys() }).await, []);
    assert_eq!(list(KeyFilter { state: Some(KeyState::Disabled), ..all_keys() }).await, ids(&[3]));
    assert_eq!(list(KeyFilter { purpose: Some(Purpose::Encryption), ..all_keys() }).await, []);
    assert_eq!(list(KeyFilter { purpose: Some(Purpose::Signing), node: Some(node(0)), ..all_keys() }).await, ids(&[3, 6, 9]));
    let before = |micros| KeyFilter { created_before: Some(at(micros)), ..all_keys() };
    for (filter, expected) in [
        (KeyFilter { class: Some(Class::LongTerm), ..all_keys() }, ids(&[1, 2, 3, 4, 5, 6, 7, 8])),
        (KeyFilter { class: Some(Class::Permanent), ..all_keys() }, ids(&[9])),
        (before(10), ids(&[])),
        (before(20), ids(&[1, 2, 3, 4, 5, 6, 7, 8])),
        (KeyFilter { class: Some(Class::Permanent), ..before(21) }, ids(&[9])),
        (KeyFilter { state: Some(KeyState::Disabled), ..before(11) }, ids(&[3])),
        (KeyFilter { created_since: Some(at(20)), ..all_keys() }, ids(&[9])),
        (KeyFilter { created_since: Some(at(10)), ..before(20) }, ids(&[1, 2, 3, 4, 5, 6, 7, 8])),
        (KeyFilter { name: record(4).name, ..all_keys() }, ids(&[4])),
        (KeyFilter { name: Some("schlüssel".parse().unwrap()), ..all_keys() }, ids(&[])),
        (KeyFilter { key: Some("schlüssel 4".into()), ..all_keys() }, ids(&[4])),
        (KeyFilter { key: Some(id(5).to_string()), ..all_keys() }, ids(&[5])),
        (KeyFilter { key: Some("1220".into()), node: Some(node(1)), ..all_keys() }, ids(&[1, 4, 7])),
    ] {
        assert_eq!(store.count_keys(&filter).await, Ok(expected.len() as u64), "{filter:?}");
        assert_eq!(list(filter).await, expected);
    }
    let counts = store.keys_by_state().await.unwrap();
    assert!(counts.contains(&(KeyState::Active, 8)) && counts.contains(&(KeyState::Disabled, 1)));
    assert_eq!(store.keys(&all_keys(), page(0, 1)).await.unwrap()[0].item, record(1), "a list shows the whole record");
}

pub(super) async fn pages_stay_where_they_are_while_keys_come(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    for number in [5, 3, 8] {
        store.commit(insert(&record(number))).await.unwrap();
    }
    let first = store.keys(&all_keys(), page(0, 2)).await.unwrap();
    store.commit(insert(&record(1))).await.unwrap();
    let rest = store.keys(&all_keys(), page(first[1].position, 10)).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&rest).map(|key| key.item.attributes.id).collect();
    assert_eq!(ids, [id(5), id(3), id(8), id(1)]);
}

pub(super) async fn entries_are_filtered(store: Arc<dyn KeyStore>) {
    // One fact apart from the first, each; the times run against the order of the log.
    let base = || AuditEvent { node: Some(node(1)), at: at(100), ..event(Operation::Sign, Some(id(1))) };
    let who = Principal { name: "dns:other".into(), certificate: None };
    let events = [
        base(),
        AuditEvent { key: Some(id(2)), ..base() },
        AuditEvent { node: Some(node(2)), ..base() },
        AuditEvent { principal: who, ..base() },
        AuditEvent { operation: Operation::Decrypt, ..base() },
        AuditEvent { outcome: Outcome::Denied, ..base() },
        AuditEvent { at: at(50), ..base() },
        AuditEvent { key: None, node: None, ..base() },
    ];
    for event in events {
        store.commit(Commit::entry(event)).await.unwrap();
    }
    let list = async |filter: EntryFilter| -> Vec<u64> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let entries = store.entries(&filter, page(after, 2)).await.unwrap().entries;
            let Some(last) = entries.last() else { return found };
            after = last.entry.sequence;
            found.extend(entries.iter().map(|stored| stored.entry.sequence));
        }
    };
    assert_eq!(list(all_entries()).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(list(EntryFilter { key: Some(id(2)), ..all_entries() }).await, [2]);
    assert_eq!(list(EntryFilter { node: Some(node(2)), ..all_entries() }).await, [3]);
    assert_eq!(list(EntryFilter { nodes: only(&[2, 3]), ..all_entries() }).await, [3]);
    assert_eq!(list(EntryFilter { nodes: only(&[1, 2]), ..all_entries() }).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(list(EntryFilter { nodes: only(&[]), ..all_entries() }).await, [0; 0]);
    assert_eq!(list(EntryFilter { principal: Some("dns:other".into()), ..all_entries() }).await, [4]);
    assert_eq!(list(EntryFilter { operation: Some(Operation::Decrypt), ..all_entries() }).await, [5]);
    assert_eq!(list(EntryFilter { outcome: Some(Outcome::Denied), ..all_entries() }).await, [6]);
    assert_eq!(list(EntryFilter { from: Some(at(50)), to: Some(at(100)), ..all_entries() }).await, [7]);
    assert_eq!(list(EntryFilter { from: Some(at(51)), ..all_entries() }).await, [1, 2, 3, 4, 5, 6, 8]);
    assert_eq!(list(EntryFilter { to: Some(at(50)), ..all_entries() }).await, [0; 0]);
    let both = EntryFilter { key: Some(id(1)), node: Some(node(1)), from: Some(at(60)), outcome: Some(Outcome::Ok), ..all_entries() };
    assert_eq!(list(both).await, [1, 4, 5]);
}

pub(super) async fn due_keys_are_found(store: Arc<dyn KeyStore>) {
    register(&store, 1, WrapperState::Active).await;
    for (number, delete_at) in [(1, 30), (2, 20), (3, 40), (4, 10)] {
        store.commit(insert(&record(number))).await.unwrap();
        let pending = Lifecycle::ACTIVE.after(Transition::ScheduleDeletion).unwrap();
        let mut scheduled = step(&record(number), pending);
        scheduled.to.delete_at = Some(at(delete_at));
        store.commit(change(&scheduled)).await.unwrap();
    }
    let gone = Lifecycle::ACTIVE.after(Transition::ScheduleDeletion).and_then(|l| l.after(Transition::Destroy)).unwrap();
    let destroy = KeyUpdate {
        if_revision: 2,
        to: StateChange { revision: 3, lifecycle: gone, successor: None, delete_at: Some(at(10)) },
        ..step(&record(4), gone)
    };
    store.commit(change(&destroy)).await.unwrap();
    assert_eq!(store.due_for_destruction(at(29), 10).await, Ok(vec![id(2)]));
    assert_eq!(store.due_for_destruction(at(30), 10).await, Ok(vec![id(2), id(1)]));
    assert_eq!(store.due_for_destruction(at(99), 1).await, Ok(vec![id(2)]));
}
