//! What is particular to the store over PostgreSQL: who may open a database, a restart, and lost connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{Lifecycle, Operation, Transition, WrapperState},
    storage::{CommitError, KeyStore, Mode, OpenStoreError, PostgresConfig, PostgresStore, inspect_postgres},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    replicas::started,
    storage_fixtures::{at, change, commit, freeze, id, insert, log, record, register, sign, step},
    support::{
        api::Caller,
        jobs::{self, active},
        postgres::{Database, shared_server},
        vault::TestVault,
    },
};

fn config(database: &Database) -> PostgresConfig {
    PostgresConfig { ca: Some(database.ca.clone()), ..PostgresConfig::new(&database.url_file, Mode::Production) }
}

/// Opens the store of the vault `v1` as an instance.
pub(crate) async fn open_postgres(database: &Database, instance: &str) -> Result<PostgresStore, OpenStoreError> {
    open_with(config(database), "v1", instance).await
}

async fn open_with(config: PostgresConfig, vault: &str, instance: &str) -> Result<PostgresStore, OpenStoreError> {
    let source = Source { vault: vault.into(), instance: instance.into(), version: "0.1.0".into() };
    PostgresStore::open(config, source, &vault.parse().unwrap(), &SystemRandom::default(), at(0)).await
}

/// Opens the store, with two keys.
async fn with_keys(database: &Database) -> Arc<dyn KeyStore> {
    let store: Arc<dyn KeyStore> = Arc::new(open_postgres(database, "i1").await.unwrap());
    register(&store, 1, WrapperState::Active).await;
    store.commit(insert(&record(1))).await.unwrap();
    store.commit(insert(&record(2))).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_the_same_after_a_restart() {
    let database = shared_server().await.database().await;
    let store = with_keys(&database).await;
    for _ in 0..300 {
        store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    }
    store.commit(freeze(true)).await.unwrap();
    let (head, entries, key) = (store.log_head(), log(&store).await, store.key(id(1)).await);
    let (hash_key, state) = (store.idempotency_hash_key().await, store.state().await);
    store.close().await;
    assert!(matches!(store.commit(freeze(false)).await, Err(CommitError::Unavailable(_))));
    let store: Arc<dyn KeyStore> = Arc::new(open_postgres(&database, "i1").await.unwrap());
    assert_eq!((store.log_head(), log(&store).await, store.key(id(1)).await), (head, entries, key));
    assert_eq!((store.idempotency_hash_key().await, store.state().await), (hash_key, state));
    assert_eq!(store.commit(sign(id(1), 1, store.known_revision())).await, Err(CommitError::Stale), "it is frozen");
    let receipt = store.commit(freeze(false)).await.unwrap();
    assert_eq!(receipt.sequence, store.log_head().size);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_opened_by_its_vault_and_each_log_by_one_process() {
    let database = shared_server().await.database().await;
    let store = with_keys(&database).await;
    let refused = async |config, vault: &str, instance: &str| open_with(config, vault, instance).await.err().unwrap();
    assert!(matches!(refused(config(&database), "v1", "i1").await, OpenStoreError::InstanceInUse(name) if name == "i1"));
    assert!(matches!(refused(config(&database), "v2", "i1").await, OpenStoreError::OtherVault { .. }));
    let dev = PostgresConfig { mode: Mode::Dev, ..config(&database) };
    assert!(matches!(refused(dev, "v1", "i1").await, OpenStoreError::OtherMode { .. }));
    let clear = PostgresConfig { url_file: database.ca.clone(), ..config(&database) };
    assert!(matches!(refused(clear, "v1", "i1").await, OpenStoreError::Database(_)), "the file has no URL");
    let other = open_postgres(&database, "i2").await.expect("another instance has a log of its own");
    assert_eq!((other.log_head().size, other.known_revision()), (0, store.known_revision()));
    other.close().await;
    store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    store.close().await;
    let client = database.client().await;
    client.execute("UPDATE refinery_schema_history SET version = 99 WHERE version = 2", &[]).await.unwrap();
    open_postgres(&database, "i1").await.expect("a schema that this program can work with").close().await;
    client.execute("UPDATE meta SET oldest_schema = 99", &[]).await.unwrap();
    assert!(matches!(refused(config(&database), "v1", "i1").await, OpenStoreError::NewerSchema { found: 99, known: 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_counts_and_a_broken_chain_is_not_opened() {
    let database = shared_server().await.database().await;
    let store = with_keys(&database).await;
    store.close().await;
    let client = database.client().await;
    client.batch_execute("UPDATE meta SET frozen = true; UPDATE wrapper_keys SET state = 'standby'").await.unwrap();
    let store = open_postgres(&database, "i1").await.unwrap();
    assert_eq!(store.state().await.map(|state| state.frozen), Ok(false));
    assert_eq!(store.wrapper_keys().await.unwrap()[0].state, WrapperState::Active);
    store.close().await;
    for edit in [
        "UPDATE audit_entries SET entry = entry || ' ' WHERE sequence = 2",
        "UPDATE audit_entries SET key_id = 'x' WHERE sequence = 2",
        "UPDATE audit_entries SET state_revision = NULL WHERE sequence = 3",
        "DELETE FROM audit_entries WHERE sequence = 2",
        "UPDATE meta SET store_revision = 3",
    ] {
        client
            .batch_execute(
                "DROP TABLE IF EXISTS saved, saved_meta; CREATE TABLE saved AS TABLE audit_entries; CREATE TABLE saved_meta AS TABLE meta",
            )
            .await
            .unwrap();
        client.batch_execute(edit).await.unwrap();
        let refused = open_postgres(&database, "i1").await.err();
        assert!(matches!(refused, Some(OpenStoreError::BrokenChain { .. })), "{edit}: {refused:?}");
        client
            .batch_execute(
                "DELETE FROM audit_entries; INSERT INTO audit_entries TABLE saved; UPDATE meta SET store_revision = (SELECT store_revision FROM saved_meta)",
            )
            .await
            .unwrap();
    }
    open_postgres(&database, "i1").await.expect("all is as it was").close().await;
}

/// The server ends sessions all the time while uses and changes are committed. Each commit that was acknowledged is in the log, each refused one is
/// not, and the store recovers by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_lose_no_acknowledged_commit() {
    let database = shared_server().await.database().await;
    let store = with_keys(&database).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let mut tasks = Vec::new();
    for number in 0..8_usize {
        let (store, stop, answers) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&answers));
        tasks.push(tokio::spawn(async move {
            let (mut acknowledged, mut refused) = (Vec::new(), 0_u32);
            while !stop.load(Ordering::Relaxed) {
                let commit = if number == 0 { freeze(false) } else { commit(Operation::ShowKey, Some(id(1))) };
                match store.commit(commit).await {
                    Ok(receipt) => {
                        acknowledged.push(receipt.sequence);
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => refused += 1,
                }
            }
            (acknowledged, refused)
        }));
    }
    let client = database.client().await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'canton-keyvault' AND datname = current_database()";
    let mut ended = 0;
    while ended < 60 || answers.load(Ordering::Relaxed) <= 50 {
        ended += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (some, lost) = task.await.unwrap();
        acknowledged.extend(some);
        refused += lost;
    }
    assert!(acknowledged.len() > 50, "{} commits, {refused} refused", acknowledged.len());
    let began = Instant::now();
    while store.commit(commit(Operation::ShowKey, Some(id(1)))).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the store does not recover");
    }
    let sequences: Vec<u64> = log(&store).await.iter().map(|stored| stored.entry.sequence).collect();
    assert_eq!(sequences, (1..=store.log_head().size).collect::<Vec<_>>());
    acknowledged.sort_unstable();
    assert!(acknowledged.windows(2).all(|pair| pair[0] != pair[1]), "two commits have one entry");
    assert_eq!(sequences.len(), acknowledged.len() + 4, "the log has what was acknowledged, the three first entries and the last one");
    store.close().await;
    open_postgres(&database, "i1").await.expect("the chain and the tree are whole").close().await;
}

/// The structure file of the program, and the query that made it.
const STRUCTURE: (&str, &str) = ("src/storage/postgres/structure.txt", include_str!("../../src/storage/postgres/structure.sql"));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_structure_that_is_checked_is_that_of_a_new_database() {
    let database = shared_server().await.database().await;
    open_postgres(&database, "i1").await.unwrap().close().await;
    let client = database.client().await;
    let tables = "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = current_schema()";
    let tables: Vec<String> = client.query_one(tables, &[]).await.unwrap().get(0);
    let (file, query) = STRUCTURE;
    let part = |row: &tokio_postgres::Row| (0..4).map(|column| row.get::<_, String>(column)).collect::<Vec<_>>().join(" ");
    let mut found: Vec<String> = client.query(query, &[&tables]).await.unwrap().iter().map(part).collect();
    found.sort_unstable();
    let (found, path) = (found.join("\n") + "\n", std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let renew = "KEYVAULT_WRITE_DOCUMENTS=1 cargo test --test it -- the_structure_that_is_checked";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), found, "renew {file}: {renew}");
}

/// A change of the tables, its way back, and what is said of it.
const PLANTED: &[(&str, &str, &str)] = &[
    ("ALTER TABLE audit_sinks RENAME TO gone", "ALTER TABLE gone RENAME TO audit_sinks", "it lacks the table audit_sinks"),
    ("ALTER TABLE keys RENAME name TO title", "ALTER TABLE keys RENAME title TO name", "it lacks the column name of the table keys"),
    (
        "ALTER TABLE policies ALTER text TYPE varchar(100)",
        "ALTER TABLE policies ALTER text TYPE text",
        "the column text of the table policies is `character varying(100) NOT NULL` instead of `text NOT NULL`",
    ),
    (
        "ALTER TABLE keys ALTER node DROP NOT NULL",
        "ALTER TABLE keys ALTER node SET NOT NULL",
        "the column node of the table keys is `text` instead",
    ),
    ("DROP INDEX keys_by_node", "CREATE INDEX keys_by_node ON keys (node)", "it lacks the index keys_by_node of the table keys"),
    (
        "DROP INDEX jobs_one_running; CREATE INDEX jobs_one_running ON jobs (state) WHERE state = 'running'",
        "DROP INDEX jobs_one_running; CREATE UNIQUE INDEX jobs_one_running ON jobs (state) WHERE state = 'running'",
        "the index jobs_one_running of the table jobs is `CREATE INDEX",
    ),
    (
        "ALTER TABLE keys DROP CONSTRAINT keys_row_tag_check",
        "ALTER TABLE keys ADD CONSTRAINT keys_row_tag_check CHECK (length(row_tag) = 32)",
        "it lacks the constraint keys_row_tag_check of the table keys",
    ),
    (
        "CREATE TRIGGER silent BEFORE UPDATE ON audit_entries FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP TRIGGER silent ON audit_entries",
        "it has the trigger silent of the table audit_entries",
    ),
    (
        "CREATE RULE silent AS ON INSERT TO audit_tree DO INSTEAD NOTHING",
        "DROP RULE silent ON audit_tree",
        "it has the rule silent of the table audit_tree",
    ),
    ("ALTER TABLE keys ADD more text", "ALTER TABLE keys DROP more", "it has the column more of the table keys"),
    ("ALTER TABLE audit_entries SET UNLOGGED", "ALTER TABLE audit_entries SET LOGGED", "the table audit_entries is `unlogged table`"),
    (
        "ALTER TABLE keys ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE keys DISABLE ROW LEVEL SECURITY",
        "the table keys is `table with row security`",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_other_tables_is_refused() {
    let database = shared_server().await.database().await;
    with_keys(&database).await.close().await;
    let client = database.client().await;
    for (change, back, says) in PLANTED {
        client.batch_execute(change).await.unwrap();
        let opened = open_postgres(&database, "i1").await.err();
        let inspected = inspect_postgres(&config(&database), &"v1".parse().unwrap()).await.err();
        for refused in [opened, inspected] {
            assert!(matches!(&refused, Some(OpenStoreError::ForeignSchema(what)) if what.contains(says)), "{change}: {refused:?}");
        }
        client.batch_execute(back).await.unwrap();
        open_postgres(&database, "i1").await.unwrap_or_else(|error| panic!("{back}: {error}")).close().await;
    }
    // A later version may add columns, and nothing that runs.
    client.batch_execute("INSERT INTO refinery_schema_history VALUES (99, 'later', '', ''); ALTER TABLE keys ADD more text").await.unwrap();
    open_postgres(&database, "i1").await.expect("a later version added a column").close().await;
    let (trigger, _, says) = PLANTED[7];
    client.batch_execute(trigger).await.unwrap();
    let refused = open_postgres(&database, "i1").await.err();
    assert!(matches!(&refused, Some(OpenStoreError::ForeignSchema(what)) if what.contains(says)), "{refused:?}");
}

/// Opens a store although its chain or its log is broken.
async fn accepted(database: &Database, instance: &str) -> Result<PostgresStore, OpenStoreError> {
    open_with(PostgresConfig { accept_state: true, ..config(database) }, "v1", instance).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_accept_a_broken_chain_of_one_log() {
    for edit in [
        "UPDATE audit_entries SET entry = entry || ' ' WHERE sequence = 3",
        "UPDATE audit_entries SET key_id = 'x' WHERE sequence = 3",
        "UPDATE audit_entries SET state_revision = NULL",
        "UPDATE audit_entries SET leaf = repeat('x', 32)::bytea WHERE sequence = 300",
        "DELETE FROM audit_entries WHERE sequence IN (3, 100, 101)",
        "UPDATE meta SET store_revision = store_revision + 1",
        "DELETE FROM audit_tree",
    ] {
        let database = shared_server().await.database().await;
        let store = with_keys(&database).await;
        for _ in 0..300 {
            store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
        }
        store.commit(freeze(true)).await.unwrap();
        let size = store.log_head().size;
        store.close().await;
        database.client().await.batch_execute(edit).await.unwrap();
        let refused = open_postgres(&database, "i1").await.err();
        assert!(matches!(refused, Some(OpenStoreError::BrokenChain { .. } | OpenStoreError::BrokenLog(_))), "{edit}: {refused:?}");
        let store: Arc<dyn KeyStore> = Arc::new(accepted(&database, "i1").await.unwrap_or_else(|error| panic!("{edit}: {error}")));
        let state = store.state().await.unwrap();
        assert_eq!((state.frozen, state.incarnation), (true, 2), "{edit}");
        assert!(store.key(id(1)).await.unwrap().unwrap().logged_state.is_some(), "{edit}");
        let entries = log(&store).await;
        let numbers: Vec<u64> = entries.iter().map(|stored| stored.entry.sequence).collect();
        assert_eq!(numbers, (1..=store.log_head().size).collect::<Vec<_>>(), "{edit}");
        let restated = entries.iter().filter(|stored| stored.entry.sequence > size && stored.entry.operation == Operation::RestateState);
        assert!(restated.count() >= 2, "{edit}: the store and at least one key");
        store.commit(freeze(false)).await.unwrap();
        store.close().await;
        open_postgres(&database, "i1").await.unwrap_or_else(|error| panic!("{edit}: {error}")).close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_chain_over_several_logs_cannot_be_accepted() {
    let database = shared_server().await.database().await;
    let store = with_keys(&database).await;
    let other = open_postgres(&database, "i2").await.unwrap();
    let client = database.client().await;
    let damage = "UPDATE meta SET store_revision = store_revision + 1";
    store.close().await;
    client.batch_execute(damage).await.unwrap();
    let refused = accepted(&database, "i1").await.err();
    assert!(matches!(&refused, Some(OpenStoreError::InstanceInUse(name)) if name == "i2"), "{refused:?}");
    client.batch_execute("UPDATE meta SET store_revision = store_revision - 1").await.unwrap();
    other.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
    other.close().await;
    client.batch_execute(damage).await.unwrap();
    let refused = accepted(&database, "i1").await.err();
    assert!(matches!(&refused, Some(OpenStoreError::Database(what)) if what.contains("the instance i2 too")), "{refused:?}");
    let unchanged: i64 = client.query_one("SELECT count(*) FROM audit_entries", &[]).await.unwrap().get(0);
    assert_eq!(unchanged, 4, "nothing was written");
}

/// From outside: the start and `check` say what is wrong, and the log says that the operator accepted it.
#[tokio::test(flavor = "multi_thread")]
async fn serve_accepts_a_broken_chain_in_postgresql_once() {
    let database = shared_server().await.database().await;
    let mut vault = started(TestVault::on_database(&database)).await;
    let admin = Caller::new(&vault, "key-admin");
    let (lost, kept) = (admin.signing_key("participant1").await, admin.signing_key("participant1").await);
    let wrapper_key = active(&vault).await;
    vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/{wrapper_key}/name"), &json!({ "name": "central-2026" })).await.unwrap();
    vault.kill();
    let client = database.client().await;
    client.execute("DELETE FROM audit_entries WHERE key_id = $1", &[&lost]).await.unwrap();
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("is missing or was changed") && refused.contains("--accept-state"), "{refused}");
    let check = vault.command(&["check", "--config", "keyvault.toml"]).output().unwrap();
    assert!(!check.status.success() && String::from_utf8_lossy(&check.stdout).contains("is missing or was changed"), "{check:?}");
    vault.serve_with(&["--accept-state"]);
    let node = Caller::new(&vault, "participant1");
    assert_eq!(node.sign(&lost).await.outcome(), (409, "key_quarantined".to_owned()));
    assert_eq!(node.sign(&kept).await.status, 200);
    let restated = Caller::new(&vault, "auditor").log("&operation=vault.restate-state").await;
    let reasons: Vec<_> = restated.iter().map(|entry| entry["reason"].to_string()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("the operator accepted the state of a broken chain")), "{restated:#?}");
    assert!(reasons.iter().any(|reason| reason.contains("the entry with this number was missing")), "{restated:#?}");
    let name = async |vault: &TestVault| jobs::wrapper_key(vault, &wrapper_key).await["name"].clone();
    assert_eq!(name(&vault).await, "central-2026", "the log is the only place of the name");
    vault.restart();
    assert_eq!(name(&vault).await, "central-2026");
    assert_eq!(Caller::new(&vault, "participant1").sign(&kept).await.status, 200);
}

/// Passes bytes to the server. It can cut a connection in place of the `n`th answer of the server.
struct Proxy {
    port: u16,
    cut_in: Arc<AtomicI64>,
}

impl Proxy {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, cut_in) = (listener.local_addr().unwrap().port(), Arc::new(AtomicI64::new(0)));
        let shared = Arc::clone(&cut_in);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(Self::pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, cut_in }
    }

    async fn pass(client: TcpStream, server: TcpStream, cut_in: Arc<AtomicI64>) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
        let asks = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if cut_in.fetch_sub(1, Ordering::SeqCst) == 1 || to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        asks.abort();
    }
}

/// The connection is lost in place of each answer of the server, one after the other. A commit is acknowledged if its entry is in the log, and refused
/// if it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_of_a_commit_without_an_answer_is_looked_up() {
    let database = shared_server().await.database().await;
    let proxy = Proxy::start(database.port).await;
    let url = std::fs::read_to_string(&database.url_file).unwrap();
    std::fs::write(&database.url_file, url.replace(&format!(":{}/", database.port), &format!(":{}/", proxy.port))).unwrap();
    let store = with_keys(&database).await;
    let (mut written, mut undone, mut expected) = (0, 0, store.log_head().size);
    for cut_in in 1..=16 {
        for change in [false, true] {
            // A use after this one finds the statements prepared and the head known.
            store.commit(commit(Operation::ShowKey, Some(id(1)))).await.unwrap();
            proxy.cut_in.store(cut_in, Ordering::SeqCst);
            let commit = if change { freeze(false) } else { commit(Operation::ShowKey, Some(id(1))) };
            let answer = store.commit(commit).await;
            let was_cut = proxy.cut_in.swap(0, Ordering::SeqCst) <= 0;
            expected += 1 + u64::from(answer.is_ok());
            assert_eq!(log(&store).await.len() as u64, expected, "{cut_in}, change {change}: {answer:?}");
            written += u32::from(was_cut && answer.is_ok());
            undone += u32::from(answer.is_err());
        }
    }
    assert!(written >= 2 && undone >= 2, "{written} written, {undone} undone");
    store.close().await;
    open_postgres(&database, "i1").await.expect("the chain and the tree are whole").close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_of_a_use_meets_the_changes_of_another_instance() {
    let database = shared_server().await.database().await;
    let one = with_keys(&database).await;
    let two = open_postgres(&database, "i2").await.unwrap();
    let seen = two.known_revision();
    assert_eq!(two.commit(sign(id(1), 1, seen)).await.unwrap().sequence, 1);
    let disabled = Lifecycle::ACTIVE.after(Transition::Disable).unwrap();
    one.commit(change(&step(&record(1), disabled))).await.unwrap();
    assert_eq!(two.commit(sign(id(1), 1, seen)).await, Err(CommitError::Stale));
    assert_eq!(two.commit(sign(id(2), 1, seen)).await.unwrap().sequence, 2, "another key changed, not this one");
    one.commit(freeze(true)).await.unwrap();
    assert_eq!(two.commit(sign(id(2), 1, two.known_revision())).await, Err(CommitError::Stale), "it is frozen");
    let unfrozen = two.commit(freeze(false)).await.unwrap();
    assert_eq!((unfrozen.sequence, unfrozen.store_revision), (3, seen + 3));
    assert_eq!(two.key(id(1)).await.unwrap().unwrap().record.lifecycle, disabled);
    let both = [one.commit(freeze(false)), two.commit(freeze(false))];
    let revisions: Vec<u64> =
        futures_util::future::join_all(both).await.into_iter().map(|receipt| receipt.unwrap().store_revision).collect();
    assert!(revisions == [seen + 4, seen + 5] || revisions == [seen + 5, seen + 4], "{revisions:?}");
    one.close().await;
    two.close().await;
    open_postgres(&database, "i1").await.expect("one chain over both logs").close().await;
}
