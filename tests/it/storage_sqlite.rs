//! The SQLite store: which files it refuses, the content of its files, and its behaviour on a faulty disk.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use canton_keyvault::{
    domain::{AuditEvent, KeyState, Lifecycle, Operation, WrapperState},
    storage::{
        Commit, CommitError, IdempotencyScope, KeyFilter, KeyStore, Mode, NewIdempotencyRecord, OpenStoreError, SqliteConfig, SqliteStore,
        StoreError, inspect,
    },
};
use rusqlite::Connection;

use crate::{
    storage_disk::Disk,
    storage_fixtures::{
        all_entries, all_keys, at, commit, event, freeze, id, insert, log, open, page, record, register, remembered, step, tagged, try_open,
    },
};

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
}

impl Bench {
    async fn new(disk: Option<&Disk>, adapt: impl FnOnce(&mut SqliteConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = SqliteConfig { vfs: disk.map(Disk::vfs), ..config(folder.path()) };
        adapt(&mut config);
        let store = Arc::new(open(config));
        register(&(Arc::clone(&store) as Arc<dyn KeyStore>), 1, WrapperState::Active).await;
        Self { folder, store }
    }

    fn shared(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.store) as Arc<dyn KeyStore>
    }

    /// Closes the store, lets `edit` at the file, and opens it again.
    async fn edited(self, edit: impl FnOnce(&Connection)) -> Self {
        self.store.close().await;
        edit(&Connection::open(path(self.folder.path())).unwrap());
        let store = Arc::new(open(config(self.folder.path())));
        Self { store, ..self }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("keyvault.db")
}

fn config(folder: &Path) -> SqliteConfig {
    SqliteConfig::new(path(folder), Mode::Production)
}

// Which files are refused

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let bench = Bench::new(None, |_| {}).await;
    let refused = try_open(config(bench.folder.path())).err().unwrap();
    assert!(matches!(refused, OpenStoreError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    bench.store.close().await;
    assert_eq!(bench.store.key(id(1)).await, Err(StoreError::Closed));
    assert_eq!(bench.store.commit(freeze(true)).await, Err(CommitError::Unavailable(StoreError::Closed)));
    open(config(bench.folder.path())).close().await;
}

/// The same from another process: this test binary runs itself.
#[tokio::test]
async fn a_second_process_is_refused() {
    const HELD: &str = "CANTON_KEYVAULT_TEST_HELD_STORE";
    if let Some(folder) = std::env::var_os(HELD) {
        let refused = try_open(config(Path::new(&folder))).err().map(|refused| refused.to_string());
        println!("answer: {}", refused.unwrap_or_default());
        return;
    }
    let bench = Bench::new(None, |_| {}).await;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage_sqlite::a_second_process_is_refused", "--nocapture"])
        .env(HELD, bench.folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("is in use by another process: only one may run on a database"), "{said}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let bench = Bench::new(None, |_| {}).await;
    bench.store.close().await;
    let newer = "INSERT INTO refinery_schema_history SELECT 1000, 'later', applied_on, checksum FROM refinery_schema_history LIMIT 1";
    assert_eq!(Connection::open(path(bench.folder.path())).unwrap().execute(newer, []), Ok(1));
    let before = fs::read(path(bench.folder.path())).unwrap();
    let refused = try_open(config(bench.folder.path())).err().unwrap();
    assert!(matches!(refused, OpenStoreError::NewerSchema { found: 1000, known: 12 }), "{refused}");
    assert_eq!(fs::read(path(bench.folder.path())).unwrap(), before);
}

#[tokio::test]
async fn the_database_of_another_vault_or_mode_is_refused() {
    let bench = Bench::new(None, |_| {}).await;
    bench.store.close().await;
    let refused = try_open(SqliteConfig { mode: Mode::Dev, ..config(bench.folder.path()) }).err().unwrap();
    assert!(matches!(&refused, OpenStoreError::OtherMode { found, .. } if found == "production"), "{refused}");
    Connection::open(path(bench.folder.path())).unwrap().execute("UPDATE meta SET vault = 'staging'", []).unwrap();
    let refused = try_open(config(bench.folder.path())).err().unwrap();
    assert_eq!(refused.to_string(), "the database belongs to the vault staging, and this is v1");
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"This is a letter to a friend, and no database at all.\n".repeat(100);
    fs::write(path(folder.path()), &text).unwrap();
    assert!(matches!(try_open(config(folder.path())).err().unwrap(), OpenStoreError::NotAVault(_)));
    assert_eq!(fs::read(path(folder.path())).unwrap(), text);
    fs::remove_file(path(folder.path())).unwrap();
    Connection::open(path(folder.path())).unwrap().execute_batch("CREATE TABLE recipes (cake TEXT)").unwrap();
    assert!(matches!(try_open(config(folder.path())).err().unwrap(), OpenStoreError::NotAVault(_)));
    let elsewhere = SqliteConfig::new(folder.path().join("none/keyvault.db"), Mode::Production);
    assert!(matches!(try_open(elsewhere).err().unwrap(), OpenStoreError::Io { .. }));
}

#[tokio::test]
async fn all_files_are_private_and_the_store_opens_again_as_it_was() {
    let bench = Bench::new(None, |_| {}).await;
    let hash_key = bench.store.idempotency_hash_key().await.unwrap();
    bench.store.commit(insert(&record(1))).await.unwrap();
    bench.store.commit(freeze(true)).await.unwrap();
    let names = ["keyvault.db", "keyvault.db-wal", "keyvault.db-shm", "keyvault.db.lock"];
    for name in names {
        let mode = fs::metadata(bench.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (revision, entries) = (bench.store.known_revision(), log(&bench.shared()).await);
    let again = bench.edited(|_| {}).await;
    assert_eq!(again.store.idempotency_hash_key().await.unwrap(), hash_key);
    assert_eq!((again.store.known_revision(), log(&again.shared()).await), (revision, entries));
    assert_eq!(again.store.state().await.map(|state| state.frozen), Ok(true), "a restart stays frozen");
    assert_eq!(again.store.key(id(1)).await.unwrap().unwrap().record, record(1));
}

// Rows that were edited

#[tokio::test]
async fn an_unreadable_row_is_an_error_of_its_own_key_alone() {
    let bench = Bench::new(None, |_| {}).await;
    for number in 1..=4 {
        bench.store.commit(insert(&record(number))).await.unwrap();
    }
    let bench = bench
        .edited(|db| {
            db.execute("UPDATE keys SET lifecycle = 'excellent' WHERE id = ?1", [id(1).to_string()]).unwrap();
            db.execute("UPDATE keys SET spec = 'rot13' WHERE id = ?1", [id(2).to_string()]).unwrap();
        })
        .await;
    for (number, table, word) in [(1, "keys", "excellent"), (2, "keys", "rot13")] {
        match bench.store.key(id(number)).await {
            Err(StoreError::Corrupt { table: of, what }) => {
                assert_eq!(of, table);
                assert!(what.contains(&id(number).to_string()) && what.contains(word), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.store.key(id(4)).await.unwrap().is_some());
    let keys = bench.store.keys(&all_keys(), page(0, 2)).await.unwrap();
    let shown: Vec<_> = keys.iter().map(|key| (key.item.attributes.id, key.item.lifecycle)).collect();
    assert_eq!(shown, [(id(1), Lifecycle::QUARANTINED), (id(3), Lifecycle::ACTIVE)], "the page is full in spite of the row left out");
    let quarantined = KeyFilter { state: Some(KeyState::Quarantined), ..all_keys() };
    assert_eq!(bench.store.keys(&quarantined, page(0, 9)).await.unwrap().len(), 1);
    assert!(bench.store.keys_by_state().await.unwrap().contains(&(KeyState::Quarantined, 1)));
}

/// Every way to hide, replace or forge a state change in the log that does not rewrite the log from there to its end.
#[tokio::test]
async fn a_changed_chain_of_state_changes_is_refused_at_the_opening() {
    let third = id(3).to_string();
    let of = format!("changed_key = '{third}'");
    let edits = [
        format!("UPDATE audit_entries SET entry = x'7b7d' WHERE {of}"),
        format!("UPDATE audit_entries SET entry = CAST(replace(CAST(entry AS TEXT), 'active', 'disabled') AS BLOB) WHERE {of}"),
        format!("UPDATE audit_entries SET leaf = zeroblob(32) WHERE {of}"),
        format!("UPDATE audit_entries SET changed_key = NULL WHERE {of}"),
        format!("UPDATE audit_entries SET changed_key = '{}' WHERE {of}", id(2)),
        format!("UPDATE audit_entries SET state_revision = NULL WHERE {of}"),
        format!("UPDATE audit_entries SET state_revision = 99 WHERE {of}"),
        format!("DELETE FROM audit_entries WHERE {of}"),
        "UPDATE audit_entries SET state_revision = NULL".into(),
        "UPDATE audit_entries SET state_revision = NULL; UPDATE meta SET store_revision = 1".into(),
        // The newest change, with the column that counts.
        "UPDATE audit_entries SET state_revision = NULL WHERE state_revision = (SELECT max(state_revision) FROM audit_entries);
         UPDATE meta SET store_revision = store_revision - 1"
            .into(),
        "UPDATE meta SET store_revision = store_revision + 1".into(),
    ];
    for edit in edits {
        let bench = Bench::new(None, |_| {}).await;
        for number in 1..=4 {
            bench.store.commit(insert(&record(number))).await.unwrap();
        }
        bench.store.close().await;
        Connection::open(path(bench.folder.path())).unwrap().execute_batch(&edit).unwrap();
        let refused = try_open(config(bench.folder.path()));
        assert!(matches!(refused, Err(OpenStoreError::BrokenChain { .. })), "{edit}: {:?}", refused.err());
        let accepted =
            try_open(SqliteConfig { accept_state: true, ..config(bench.folder.path()) }).unwrap_or_else(|error| panic!("{edit}: {error}"));
        assert!(accepted.key(id(1)).await.unwrap().unwrap().logged_state.is_some());
        accepted.close().await;
        try_open(config(bench.folder.path())).unwrap_or_else(|error| panic!("{edit}: {error}")).close().await;
    }
}

/// The columns that repeat what the log says are repaired at the opening, and are not believed while the store is open.
#[tokio::test]
async fn columns_that_no_hash_covers_decide_nothing() {
    let bench = Bench::new(None, |_| {}).await;
    register(&bench.shared(), 2, WrapperState::Standby).await;
    let states = async |store: &SqliteStore| store.wrapper_keys().await.unwrap().iter().map(|key| key.state).collect::<Vec<_>>();
    let before = states(&bench.store).await;
    bench.store.commit(freeze(true)).await.unwrap();
    let edit = "UPDATE meta SET frozen = 0; UPDATE wrapper_keys SET state = 'retired' WHERE state = 'standby'";
    Connection::open(path(bench.folder.path())).unwrap().execute_batch(edit).unwrap();
    assert!(bench.store.state().await.unwrap().frozen);
    assert_eq!(states(&bench.store).await, before);
    let refused = bench.store.commit(insert(&record(1))).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(StoreError::Corrupt { table: "wrapper_keys", .. }))), "{refused:?}");
    bench.store.close().await;
    let again = open(config(bench.folder.path()));
    assert!(again.state().await.unwrap().frozen);
    assert_eq!(states(&again).await, before);
    let stored: (bool, String) = Connection::open(path(bench.folder.path()))
        .unwrap()
        .query_row("SELECT frozen, (SELECT group_concat(state) FROM wrapper_keys) FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(stored.0 && stored.1.contains("standby"), "{stored:?}");
    again.close().await;
}

/// A trigger could silence the log, a view could lie, an index could be missing.
#[tokio::test]
async fn a_structure_that_is_not_ours_is_refused() {
    for edit in [
        "CREATE TRIGGER silent BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW v AS SELECT * FROM keys",
        "CREATE TABLE more (a INTEGER)",
        "CREATE INDEX more ON keys (name)",
        "DROP INDEX audit_entries_changes",
        "ALTER TABLE keys ADD COLUMN more TEXT",
        "DROP TABLE audit_checkpoints",
    ] {
        let bench = Bench::new(None, |_| {}).await;
        bench.store.close().await;
        Connection::open(path(bench.folder.path())).unwrap().execute_batch(edit).unwrap();
        let refused = try_open(config(bench.folder.path()));
        assert!(matches!(refused, Err(OpenStoreError::ForeignSchema(_))), "{edit}: {:?}", refused.err());
        let seen = inspect(&path(bench.folder.path()), &"v1".parse().unwrap(), Mode::Production);
        assert!(matches!(seen, Err(OpenStoreError::ForeignSchema(_))), "{edit}: {seen:?}");
    }
}

/// A trigger that is made while the store is open.
#[tokio::test]
async fn a_trigger_made_meanwhile_runs_not_and_silences_nothing() {
    let bench = Bench::new(None, |_| {}).await;
    let silent = "CREATE TRIGGER silent BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(IGNORE); END";
    Connection::open(path(bench.folder.path())).unwrap().execute_batch(silent).unwrap();
    let before = log(&bench.shared()).await.len();
    bench.store.commit(insert(&record(1))).await.unwrap();
    assert_eq!(log(&bench.shared()).await.len(), before + 1);
}

/// Somebody may open the file with the `sqlite3` shell.
#[tokio::test]
async fn a_foreign_writer_costs_one_commit() {
    let bench = Bench::new(None, |_| {}).await;
    let intruder = Connection::open(path(bench.folder.path())).unwrap();
    let copy = "INSERT INTO audit_entries SELECT sequence + 1, entry, leaf, NULL, changed_key FROM audit_entries";
    assert_eq!(intruder.execute(copy, []), Ok(1));
    let refused = bench.store.commit(insert(&record(1))).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(StoreError::Failed(_)))), "{refused:?}");
    assert_eq!(bench.store.commit(insert(&record(1))).await.unwrap().sequence, 3);
    assert!(matches!(bench.store.entries(&all_entries(), page(1, 1)).await, Err(StoreError::Corrupt { table: "audit_entries", .. })));
}

// A sick disk

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_heals_without_a_restart() {
    let disk = Disk::new();
    let bench = Bench::new(Some(&disk), |_| {}).await;
    bench.store.commit(insert(&record(1))).await.unwrap();
    let (before, revision) = (log(&bench.shared()).await, bench.store.known_revision());
    disk.set_full(true);
    for commit in [insert(&record(2)), freeze(true), commit(Operation::ListKeys, None)] {
        assert_eq!(bench.store.commit(commit).await, Err(CommitError::Unavailable(StoreError::DiskFull)));
    }
    assert_eq!((log(&bench.shared()).await, bench.store.known_revision()), (before.clone(), revision), "reading goes on");
    disk.set_full(false);
    let receipt = bench.store.commit(insert(&record(2))).await.unwrap();
    assert_eq!(receipt.sequence, before.len() as u64 + 1);
    assert_eq!(bench.store.state().await.map(|state| state.frozen), Ok(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_fails_every_commit_of_the_batch_and_the_store_recovers() {
    let disk = Disk::new();
    let bench = Bench::new(Some(&disk), |_| {}).await;
    disk.set_failing(true);
    let callers: Vec<_> = (0..20)
        .map(|number| {
            let store = bench.shared();
            tokio::spawn(async move { store.commit(Commit { event: tagged(number), ..commit(Operation::Sign, None) }).await })
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(CommitError::Unavailable(StoreError::Failed(_)))));
    }
    disk.set_failing(false);
    assert_eq!(bench.store.commit(insert(&record(1))).await.unwrap().sequence, 2);
    assert_eq!(log(&bench.shared()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_disk_refuses_in_time_and_what_was_given_up_never_happens() {
    let disk = Disk::new();
    let timeout = Duration::from_secs(1);
    let bench = Bench::new(Some(&disk), |config| (config.commit_timeout, config.queue) = (timeout, 2)).await;
    let slow = Err(CommitError::Unavailable(StoreError::TooSlow(timeout)));
    disk.set_hanging(true);
    let started = bench.shared();
    let in_flight = tokio::spawn(async move { started.commit(insert(&record(1))).await });
    // What is begun while the disk hangs is waited for. Two may wait, and perhaps one is begun with them: of eight more, five at least find no
    // room. Whoever waits in vain is told that nothing was done.
    let waiting: Vec<_> = (2..=9)
        .map(|number| {
            let store = bench.shared();
            tokio::spawn(async move {
                let asked = Instant::now();
                (store.commit(insert(&record(number))).await, asked.elapsed())
            })
        })
        .collect();
    let (mut at_once, mut begun) = (0, vec![in_flight]);
    for caller in waiting {
        let asked = Instant::now();
        let caller = std::pin::pin!(caller);
        // The first may be begun in one batch with others, and then has no answer while the disk hangs.
        match tokio::time::timeout(timeout * 3, caller).await {
            Ok(answer) => {
                let (answer, took) = answer.unwrap();
                assert_eq!(answer, slow);
                at_once += u32::from(took < timeout / 2);
            }
            Err(_) => assert!(asked.elapsed() >= timeout * 3),
        }
    }
    assert!(at_once >= 5, "only {at_once} were refused at once");
    disk.set_hanging(false);
    let mut done = 0;
    for caller in begun.drain(..) {
        match caller.await.unwrap() {
            Ok(_) => done += 1,
            answer => assert_eq!(answer, slow),
        }
    }
    let made = loop {
        match bench.store.commit(freeze(true)).await {
            Ok(receipt) => break receipt,
            Err(error) => assert_eq!(Err(error), slow),
        }
    };
    // What the writer had begun is there; what only waited is not.
    let keys = bench.store.keys(&all_keys(), page(0, 20)).await.unwrap();
    assert!((done..=3).contains(&keys.len()), "{} keys", keys.len());
    assert_eq!(log(&bench.shared()).await.len() as u64, made.sequence);
}

// The write-ahead log

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_write_ahead_log_stays_bounded_under_load() {
    // Written into the database after 400 KiB, restarted above 1.6 MiB.
    let bench = Bench::new(None, |config| config.wal_pages = 100).await;
    bench.store.commit(insert(&record(1))).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Some reader uses the log at every moment.
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (store, stop) = (bench.shared(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    store.key(id(1)).await.unwrap();
                    store.entries(&all_entries(), page(0, 50)).await.unwrap();
                }
            })
        })
        .collect();
    let wal = bench.folder.path().join("keyvault.db-wal");
    let mut longest = 0;
    for _ in 0..150 {
        let writers: Vec<_> = (0..64)
            .map(|number| {
                let store = bench.shared();
                tokio::spawn(async move { store.commit(Commit { event: tagged(number), ..commit(Operation::Sign, None) }).await })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
        longest = longest.max(fs::metadata(&wal).unwrap().len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(longest < 6 << 20, "{longest} bytes");
}

// Copies

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_complete_and_opens() {
    let bench = Bench::new(None, |_| {}).await;
    let acknowledged: Vec<u64> = {
        let mut sequences = Vec::new();
        for number in 1..=50 {
            sequences.push(bench.store.commit(insert(&record(number))).await.unwrap().sequence);
        }
        sequences
    };
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..4_u32)
        .map(|caller| {
            let (store, stop) = (bench.shared(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut made = 0_u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = store.commit(Commit { event: tagged(caller), ..commit(Operation::Sign, None) }).await.unwrap();
                    made += 1;
                }
                made
            })
        })
        .collect();
    let copies = tempfile::tempdir().unwrap();
    let copy = path(copies.path());
    bench.store.backup(&copy).await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for caller in load {
        assert!(caller.await.unwrap() > 0);
    }
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(copies.path()).unwrap().count(), 1, "one file, without a journal");
    let refused = bench.store.backup(&copy).await;
    assert!(matches!(&refused, Err(StoreError::Failed(why)) if why.contains("exists")), "{refused:?}");
    let sound: String = Connection::open(&copy).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let restored: Arc<dyn KeyStore> = Arc::new(open(config(copies.path())));
    assert_eq!(restored.keys(&all_keys(), page(0, 100)).await.unwrap().len(), 50);
    let entries = log(&restored).await;
    assert!(entries.iter().map(|stored| stored.entry.sequence).eq(1..=entries.len() as u64));
    assert!(entries.len() as u64 >= *acknowledged.last().unwrap());
    assert_eq!(restored.idempotency_hash_key().await, bench.store.idempotency_hash_key().await);
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_leaves_nothing() {
    let bench = Bench::new(None, |_| {}).await;
    let nowhere = bench.folder.path().join("none/copy.db");
    assert!(matches!(bench.store.backup(&nowhere).await, Err(StoreError::Failed(_))));
    let existing = bench.folder.path().join("precious");
    fs::File::create(&existing).unwrap().write_all(b"mine").unwrap();
    assert!(bench.store.backup(&existing).await.is_err());
    assert_eq!(fs::read(&existing).unwrap(), b"mine");
}

// Housekeeping

#[tokio::test]
async fn expired_idempotency_records_are_forgotten_in_time() {
    let bench = Bench::new(None, |_| {}).await;
    let second = 1_000_000;
    let scope = |key: String| IdempotencyScope { principal: "a".into(), route: "r".into(), key };
    for number in 0..10 {
        let idempotency =
            NewIdempotencyRecord { scope: scope(number.to_string()), record: remembered("x"), expires_at: at(second * (10 + number)) };
        bench.store.commit(Commit { idempotency: Some(idempotency), ..commit(Operation::CreateKey, None) }).await.unwrap();
    }
    let later = Commit { event: AuditEvent { at: at(second * 100), ..event(Operation::Whoami, None) }, ..commit(Operation::Whoami, None) };
    bench.store.commit(later).await.unwrap();
    let left = |db: &Connection| assert_eq!(db.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)), Ok(0));
    bench.edited(left).await.store.close().await;
}

#[tokio::test]
async fn a_destroyed_key_leaves_no_ciphertext_in_the_closed_file() {
    let bench = Bench::new(None, |_| {}).await;
    let mut key = record(1);
    let mark = b"sealed bytes that must be gone, since they are long enough to be found";
    key.sealed = Some(canton_keyvault::domain::SealedKey::from_stored(mark.to_vec()));
    bench.store.commit(insert(&key)).await.unwrap();
    let found = |file: &Path| fs::read(file).unwrap().windows(mark.len()).any(|window| window == mark);
    bench.store.close().await;
    let file = path(bench.folder.path());
    assert!(found(&file), "the search finds what is there");
    let store = open(config(bench.folder.path()));
    let gone = [canton_keyvault::domain::Transition::ScheduleDeletion, canton_keyvault::domain::Transition::Destroy]
        .into_iter()
        .try_fold(Lifecycle::ACTIVE, Lifecycle::after)
        .unwrap();
    store.commit(crate::storage_fixtures::change(&step(&key, gone))).await.unwrap();
    store.close().await;
    assert!(!found(&file));
    assert!(store.entries(&all_entries(), page(0, 1)).await.is_err());
}

/// The tree of a store of an earlier schema, or after a crash, is the one that the writer would have made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_hashes_of_the_tree_are_made_at_the_opening() {
    let bench = Bench::new(None, |_| {}).await;
    for _ in 0..600 {
        bench.store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    }
    let (before, rows) = (bench.store.log_head(), |db: &Connection| -> Vec<(i64, i64, Vec<u8>)> {
        let mut sql = db.prepare("SELECT level, position, hash FROM audit_tree ORDER BY level, position").unwrap();
        sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap().map(Result::unwrap).collect()
    });
    let mut written = Vec::new();
    let bench = bench
        .edited(|db| {
            written = rows(db);
            db.execute_batch("DELETE FROM audit_tree").unwrap();
        })
        .await;
    assert_eq!((written.len(), bench.store.log_head()), (2, before));
    bench.store.close().await;
    assert_eq!(rows(&Connection::open(path(bench.folder.path())).unwrap()), written);
}

/// An entry that no stored hash covers yet is hashed again at the opening.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_entry_at_the_end_of_the_log_ends_the_opening() {
    let bench = Bench::new(None, |_| {}).await;
    bench.store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    bench.store.close().await;
    let db = Connection::open(path(bench.folder.path())).unwrap();
    let changed =
        "UPDATE audit_entries SET entry = CAST(replace(CAST(entry AS TEXT), 'keys.show', 'keys.sign') AS BLOB) WHERE sequence = 2";
    assert_eq!(db.execute(changed, []).unwrap(), 1);
    drop(db);
    let refused = try_open(config(bench.folder.path())).err().unwrap();
    assert!(matches!(&refused, OpenStoreError::BrokenLog(_)), "{refused}");
    let accepted = open(SqliteConfig { accept_state: true, ..config(bench.folder.path()) });
    assert_eq!(accepted.state().await.unwrap().incarnation, 2);
    accepted.close().await;
    assert_eq!(open(config(bench.folder.path())).state().await.unwrap().incarnation, 2);
}

/// The start of a vault with a long log must not read it: the entries in the middle of this log cannot be read.
#[tokio::test]
async fn an_opening_reads_the_ends_of_the_log_only() {
    let bench = Bench::new(None, |_| {}).await;
    let revision = bench.store.known_revision();
    let middle = futures_util::future::join_all((0..3_000).map(|number| bench.store.commit(Commit::entry(tagged(number))))).await;
    assert!(middle.iter().all(Result::is_ok));
    bench.store.close().await;
    let file = path(bench.folder.path());
    let mut bytes = fs::read(&file).unwrap();
    let word = b"\"subject\":\"1500\"";
    let place = bytes.windows(word.len()).position(|found| found == word).unwrap();
    let page = place - place % 4096;
    bytes[page..page + 4096].fill(0);
    fs::write(&file, &bytes).unwrap();
    let damaged = Connection::open(&file).unwrap().query_row("SELECT count(entry) FROM audit_entries", [], |row| row.get::<_, i64>(0));
    assert!(damaged.is_err(), "the page is not one of the log");

    let store = open(config(bench.folder.path()));
    assert_eq!(store.known_revision(), revision);
    assert_eq!(store.commit(Commit::entry(tagged(3_000))).await.unwrap().sequence, middle.last().unwrap().as_ref().unwrap().sequence + 1);
}
