//! Whether an imported key was used, by the store: the first use is a state change, a withdrawal after it is refused, and the entries of programs
//! that did not write it into the chain count as well.

use std::sync::Arc;

use canton_keyvault::{
    domain::{AuditEvent, KeyId, KeyRecord, Lifecycle, Operation, Origin, Outcome, StateChange, Transition, WrapperState},
    storage::{Change, Commit, CommitError, KeyPrecondition, KeyStore, KeyUpdate, LoggedUse, Mode, SqliteConfig, SqliteStore, StoreError},
};
use rusqlite::Connection;

use crate::storage_fixtures::{at, change, event, id, insert, open, page, record, register, sign, step};

struct Scene {
    folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(SqliteConfig::new(folder.path().join("keyvault.db"), Mode::Production)));
        register(&(Arc::clone(&store) as Arc<dyn KeyStore>), 1, WrapperState::Active).await;
        Self { folder, store }
    }

    /// Closes the store, lets `edit` at the file, and opens it again.
    async fn edited(self, edit: impl FnOnce(&Connection)) -> Self {
        self.store.close().await;
        let path = self.folder.path().join("keyvault.db");
        edit(&Connection::open(&path).unwrap());
        let store = Arc::new(open(SqliteConfig::new(path, Mode::Production)));
        Self { store, ..self }
    }

    async fn restarted(self) -> Self {
        self.edited(|_| {}).await
    }

    async fn used(&self, key: KeyId) -> Option<LoggedUse> {
        self.store.use_since_import(key).await.unwrap()
    }

    async fn unproven(&self, key: KeyId) -> String {
        match self.store.use_since_import(key).await {
            Err(StoreError::Corrupt { table: "audit_entries", what }) => what,
            other => panic!("{other:?}"),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<u64, CommitError> {
        self.store.commit(commit).await.map(|receipt| receipt.store_revision)
    }

    async fn revision(&self) -> u64 {
        self.store.state().await.unwrap().revision
    }
}

fn imported(number: u8) -> KeyRecord {
    let mut record = record(number);
    record.attributes.origin = Origin::Imported;
    record
}

fn import(record: &KeyRecord, replaces: Option<u64>) -> Commit {
    let event = AuditEvent { change: Some(record.state_change()), ..event(Operation::ImportKey, Some(record.attributes.id)) };
    let Some(Change::InsertKey { record, active, link, .. }) = insert(record).change else { unreachable!() };
    Commit::change(Change::InsertKey { record, active, link, replaces }, event)
}

/// A use of an imported key.
fn use_of(key: KeyId, revision: u64, store_revision: u64) -> Commit {
    let sign = sign(key, revision, store_revision);
    Commit { precondition: Some(KeyPrecondition { key, revision, store_revision, imported: true }), ..sign }
}

fn withdrawal(record: &KeyRecord) -> Commit {
    let pending = record.lifecycle.after(Transition::ScheduleDeletion).unwrap();
    let update = KeyUpdate { row_tag: None, ..step(record, pending) };
    let event = AuditEvent { change: Some(update.to), ..event(Operation::WithdrawKey, Some(update.key)) };
    Commit::change(Change::Withdraw(update), event)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_of_an_imported_key_is_a_state_change_and_refuses_its_withdrawal() {
    let scene = Scene::new().await;
    let key = imported(1);
    let revision = scene.commit(import(&key, None)).await.unwrap();
    assert_eq!(scene.used(id(1)).await, None);
    // A refused use is none.
    let refused = AuditEvent { outcome: Outcome::Failed, ..event(Operation::Sign, Some(id(1))) };
    scene.commit(Commit::entry(refused)).await.unwrap();
    assert_eq!((scene.used(id(1)).await, scene.revision().await), (None, revision));

    assert_eq!(scene.commit(use_of(id(1), 1, revision)).await, Ok(revision + 1));
    let first = scene.used(id(1)).await.unwrap();
    assert_eq!((first.operation, first.at), (Operation::Sign, at(10)));
    // Each later use, also against the former revision of the store, and each use of a generated key changes nothing.
    for known in [revision, revision + 1] {
        assert_eq!(scene.commit(use_of(id(1), 1, known)).await, Ok(revision + 1));
    }
    let generated = scene.commit(insert(&record(2))).await.unwrap();
    assert_eq!(scene.commit(sign(id(2), 1, generated)).await, Ok(generated));

    let scene = scene.restarted().await;
    assert_eq!(scene.used(id(1)).await, Some(first), "the chain has it");
    assert_eq!(scene.commit(withdrawal(&key)).await, Err(CommitError::LostRace));
    // A restart with an edited first use ends.
    scene.store.close().await;
    let path = scene.folder.path().join("keyvault.db");
    let sequence = i64::try_from(first.sequence).unwrap();
    let edit = "UPDATE audit_entries SET entry = CAST(replace(CAST(entry AS TEXT), 'keys.sign', 'keys.show') AS BLOB) WHERE sequence = ?1";
    assert_eq!(Connection::open(&path).unwrap().execute(edit, [sequence]).unwrap(), 1);
    assert!(crate::storage_fixtures::try_open(SqliteConfig::new(path, Mode::Production)).is_err());
}

/// A use that is committed between the check of a withdrawal and its commit wins, in one batch too.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_use_and_a_withdrawal_at_the_same_time_one_happens() {
    let scene = Scene::new().await;
    for number in 1..=20 {
        let key = imported(number);
        let revision = scene.commit(import(&key, None)).await.unwrap();
        let (used, withdrawn) = if number % 2 == 0 {
            tokio::join!(scene.commit(use_of(id(number), 1, revision)), scene.commit(withdrawal(&key)))
        } else {
            let (withdrawn, used) = tokio::join!(scene.commit(withdrawal(&key)), scene.commit(use_of(id(number), 1, revision)));
            (used, withdrawn)
        };
        assert!(used.is_ok() != withdrawn.is_ok(), "{number}: {used:?} {withdrawn:?}");
        assert_eq!(scene.used(id(number)).await.is_some(), used.is_ok());
    }
}

/// A key that is looked at often and never used. The reads take several parts.
#[tokio::test(flavor = "multi_thread")]
async fn many_entries_about_a_key_do_not_prevent_its_withdrawal() {
    let scene = Scene::new().await;
    let key = imported(1);
    scene.commit(import(&key, None)).await.unwrap();
    for _ in 0..20 {
        let shows = (0..500).map(|_| scene.commit(Commit::entry(event(Operation::ShowKey, Some(id(1))))));
        futures_util::future::join_all(shows).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    let disabled = Lifecycle::ACTIVE.after(Transition::Disable).unwrap();
    scene.commit(change(&step(&key, disabled))).await.unwrap();
    assert_eq!(scene.used(id(1)).await, None);
    let sequence = scene.store.entries(&crate::storage_fixtures::all_entries(), page(9_000, 1)).await.unwrap().entries[0].entry.sequence;
    let scene = scene
        .edited(|db| {
            let removed = db.execute("DELETE FROM audit_entries WHERE sequence = ?1", [i64::try_from(sequence).unwrap()]);
            assert_eq!(removed, Ok(1));
        })
        .await;
    assert!(scene.unproven(id(1)).await.contains("1 of its entries"));
}

/// Entries without a place in the chain, as an earlier program wrote them.
#[tokio::test(flavor = "multi_thread")]
async fn a_use_by_an_earlier_program_counts_and_a_gap_proves_nothing() {
    let scene = Scene::new().await;
    for number in [1, 2, 3] {
        scene.commit(import(&imported(number), None)).await.unwrap();
    }
    scene.commit(sign(id(1), 1, scene.revision().await)).await.unwrap();
    let found = scene.used(id(1)).await.unwrap();
    scene.commit(Commit::entry(event(Operation::ShowKey, Some(id(2))))).await.unwrap();
    assert_eq!(scene.used(id(2)).await, None);
    // An opening reads the newest entries that fill no tile yet. It finds edits of them itself.
    let more = (0..300).map(|_| scene.commit(Commit::entry(event(Operation::ListKeys, None))));
    futures_util::future::join_all(more).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();

    // Its bytes are others than those that were hashed.
    let sequence = i64::try_from(found.sequence).unwrap();
    let scene = scene
        .edited(|db| {
            let edit =
                "UPDATE audit_entries SET entry = CAST(replace(CAST(entry AS TEXT), 'keys.sign', 'keys.show') AS BLOB) WHERE sequence = ?1";
            assert_eq!(db.execute(edit, [sequence]).unwrap(), 1);
        })
        .await;
    let why = scene.unproven(id(1)).await;
    assert!(why.contains(&format!("entry {sequence}")) && why.contains("hash"), "its leaf hash is that of the bytes before: {why}");
    // It is removed: the gap is seen by every key that was imported before.
    let scene = scene.edited(|db| assert_eq!(db.execute("DELETE FROM audit_entries WHERE sequence = ?1", [sequence]).unwrap(), 1)).await;
    for number in [1, 2, 3] {
        let why = scene.unproven(id(number)).await;
        assert!(why.contains("missing"), "{why}");
    }
    // A key that was imported later is not affected.
    scene.commit(import(&imported(4), None)).await.unwrap();
    assert_eq!(scene.used(id(4)).await, None);
    // A key without an entry of its import, and one without entries at all.
    scene.commit(insert(&record(5))).await.unwrap();
    for number in [5, 6] {
        assert!(scene.unproven(id(number)).await.contains("no entry of the import"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_key_is_replaced_whole_and_its_uses_are_those_since_the_new_import() {
    let scene = Scene::new().await;
    let first = imported(1);
    let revision = scene.commit(import(&first, None)).await.unwrap();
    scene.commit(use_of(id(1), 1, revision)).await.unwrap();
    let second = KeyRecord { name: None, revision: 4, generation: 2, created_at: at(20), ..first.clone() };
    // Not while it is there, and not with another revision than that of the destroyed key.
    assert_eq!(scene.commit(import(&second, Some(1))).await, Err(CommitError::LostRace));
    assert_eq!(scene.commit(import(&second, None)).await, Err(CommitError::KeyExists));
    let pending = Lifecycle::ACTIVE.after(Transition::ScheduleDeletion).unwrap();
    let destroyed = pending.after(Transition::Destroy).unwrap();
    scene.commit(change(&KeyUpdate { row_tag: None, ..step(&first, pending) })).await.unwrap();
    let to = StateChange { revision: 3, lifecycle: destroyed, successor: None, delete_at: None };
    scene.commit(change(&KeyUpdate { key: id(1), if_revision: 2, to, row_tag: None, reinstate_wrap: None })).await.unwrap();
    assert_eq!(scene.commit(import(&second, Some(2))).await, Err(CommitError::LostRace));
    assert_eq!(scene.commit(import(&second, None)).await, Err(CommitError::KeyExists));
    assert!(scene.used(id(1)).await.is_some());

    scene.commit(import(&second, Some(3))).await.unwrap();
    let scene = scene.restarted().await;
    let stored = scene.store.key(id(1)).await.unwrap().unwrap();
    assert_eq!((&stored.record, stored.logged_state), (&second, Some(second.state_change())));
    assert_eq!(scene.used(id(1)).await, None);
    assert_eq!(scene.commit(import(&second, Some(3))).await, Err(CommitError::LostRace), "once");
    scene.commit(withdrawal(&second)).await.unwrap();
}
