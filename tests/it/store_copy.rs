//! `store copy` from SQLite to PostgreSQL and back: every key signs, every entry and proof is the same, and an interrupted copy is never opened.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    audit::Source,
    crypto::SystemRandom,
    domain::{
        Algorithm, AuditEvent, Grant, KeyId, NodeScope, Operation, Origin, Policy, Principal, Role, StateChange, Timestamp, WrapperState,
    },
    kms::Providers,
    storage::{
        Change, Commit, CopyStoreError, KeyStore, KeyUpdate, LogHead, Mode, OpenStoreError, PostgresConfig, PostgresStore, SinkCursor,
        SqliteConfig, SqliteStore, StorePlace, backup_postgres, copies_column, copy_store,
    },
    vault::{BackupKeyResult, CacheConfig, CallContext, JobsConfig, LimitsConfig, MINIMUM_RETENTION, Sinks, Vault, VaultConfig},
};
use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::{Value, json};

use crate::{
    audit_removal::{archive, removed, sign, space_is_freed, verify},
    earlier_version::restored,
    storage_fixtures::{at, commit, event, freeze, id, insert, record, register, sign as use_of, until_unlocked},
    support::{
        api::{self, Caller},
        jobs::{new_wrapper_key, rotated},
        postgres::{Database, shared_server},
        vault::{TestVault, until},
    },
};

/// A file beside the vault with the options of the connection.
fn connection(folder: &Path, database: &Database) {
    let text = format!("url_file = \"{}\"\nca = \"{}\"\n", database.url_file.display(), database.ca.display());
    fs::write(folder.join("connection.toml"), text).unwrap();
}

fn config(database: &Database) -> PostgresConfig {
    PostgresConfig { ca: Some(database.ca.clone()), ..PostgresConfig::new(&database.url_file, Mode::Production) }
}

async fn open_postgres(database: &Database, vault: &str, instance: &str) -> Result<PostgresStore, OpenStoreError> {
    let source = Source { vault: vault.into(), instance: instance.into(), version: "0".into() };
    PostgresStore::open(config(database), source, &vault.parse().unwrap(), &SystemRandom::default(), at(0)).await
}

const TO_POSTGRES: [&str; 6] = ["store", "copy", "--from", "sqlite:keyvault.db", "--to", "postgres:connection.toml"];
const TO_SQLITE: [&str; 6] = ["store", "copy", "--from", "postgres:connection.toml", "--to", "sqlite:back.db"];

/// The report of a copy that succeeds.
fn copied(vault: &TestVault, arguments: &[&str]) -> Value {
    let Output { status, stdout, stderr } = vault.command(&[arguments, &["--output", "json"]].concat()).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// The error of a command that fails.
fn refused(vault: &TestVault, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = vault.command(arguments).output().unwrap();
    assert!(!status.success(), "{}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

/// Every row of every table of a file.
fn dump(file: &Path) -> Vec<(String, Vec<Vec<SqlValue>>)> {
    let db = Connection::open(file).unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let tables: Vec<String> = db.prepare(tables).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let rows = |table: &String| {
        let mut sql = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = sql.column_count();
        let rows = sql.query_map([], |row| (0..columns).map(|column| row.get(column)).collect::<Result<Vec<SqlValue>, _>>()).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap()
    };
    tables.iter().map(|table| (table.clone(), rows(table))).collect()
}

/// Tables that a copy makes again, or that say when a file was made.
const MADE_AGAIN: [&str; 4] = ["audit_blocks", "audit_keys", "audit_key_parts", "refinery_schema_history"];

fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (dump(one), dump(other));
    assert_eq!(one.len(), other.len());
    for ((table, rows), (_, others)) in one.iter().zip(&other).filter(|((table, _), _)| !MADE_AGAIN.contains(&table.as_str())) {
        assert!(rows == others, "{table}: {} rows and {}", rows.len(), others.len());
    }
}

/// What a key of each scheme is used for.
const SCHEMES: [(&str, &str, &str); 7] = [
    ("signing", "ec-curve25519", "ed25519"),
    ("signing", "ec-p256", "ecdsa-sha256"),
    ("signing", "ec-p384", "ecdsa-sha384"),
    ("signing", "ec-secp256k1", "ecdsa-sha256"),
    ("encryption", "ec-p256", "ecies-p256"),
    ("encryption", "rsa-2048", "rsa-oaep-sha256"),
    ("symmetric", "aes-256", "aes-256-gcm"),
];

/// The keys of a vault, and what they are for.
struct Keys {
    /// Id and algorithm of each key that signs.
    signing: Vec<(String, &'static str)>,
    symmetric: String,
    ciphertext: Value,
    disabled: String,
    destroyed: String,
}

/// Fills a vault with keys of every scheme and state, wrapper keys, entries that were archived and removed, checkpoints and a sink, and stops it.
async fn filled() -> (TestVault, Keys) {
    let sink = "[[audit.sinks]]\nname = \"file\"\nmode = \"best-effort\"\nfrom = \"beginning\"\nkind = \"file\"\npath = \"entries.log\"\n";
    let mut vault = TestVault::start_with(|config| {
        format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\nminimum_retention = \"1s\"\n{sink}\n[cache]\ncapacity = 100\n")
    });
    let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
    let (mut signing, mut others) = (Vec::new(), Vec::new());
    for (purpose, spec, algorithm) in SCHEMES {
        let new = json!({ "node": "participant1", "purpose": purpose, "spec": spec, "name": format!("{purpose} {spec}") });
        let key = node.once("/v1/keys", &format!("once-{purpose}-{spec}"), &new).await.success()["id"].as_str().unwrap().to_owned();
        if purpose == "signing" { signing.push((key, algorithm)) } else { others.push(key) }
    }
    let symmetric = others.pop().unwrap();
    let encrypt = json!({ "algorithm": "aes-256-gcm", "plaintext": STANDARD.encode("before") });
    let ciphertext = node.post(&format!("/v1/keys/{symmetric}/encrypt"), &encrypt).await.success()["ciphertext"].clone();
    let (disabled, destroyed) = (node.signing_key("participant1").await, node.signing_key("participant1").await);
    admin.step(&disabled, "disable").await.success();
    signing[1].0 = api::id(&node.step(&signing[1].0, "rotate").await.success());
    admin.delete(&format!("/v1/keys/{destroyed}?days=7")).await.success();
    let pending = node.signing_key("participant1").await;
    admin.delete(&format!("/v1/keys/{pending}?days=7")).await.success();
    // Two further wrapper keys: one is active now, the other one on standby.
    let second = new_wrapper_key(&vault).await;
    rotated(&vault, &second).await;
    new_wrapper_key(&vault).await;

    sign(&vault, &signing[0].0, 40).await;
    let archived = archive(&vault, "one.ndjson", 0);
    let through = removed(&vault, &["one.ndjson"], archived).await;
    space_is_freed(&vault, through).await;
    sign(&vault, &signing[0].0, 4).await;
    vault.digested().await;

    // The deletion is brought forward while the vault is down.
    vault.terminate();
    bring_forward(&vault, &destroyed).await;
    vault.serve();
    let auditor = Caller::new(&vault, "auditor");
    until("destroyed", || async { auditor.get(&format!("/v1/keys/{destroyed}")).await.success()["state"] == "destroyed" }).await;
    archive(&vault, "two.ndjson", archived);
    let sinks = || vault.database().query_row("SELECT count(*) FROM audit_sinks", [], |row| row.get::<_, i64>(0)).unwrap();
    until("the sink has entries", || async { sinks() > 0 }).await;
    assert!(vault.terminate());
    (vault, Keys { signing, symmetric, ciphertext, disabled, destroyed })
}

async fn bring_forward(vault: &TestVault, key: &str) {
    let row = "SELECT revision, lifecycle FROM keys WHERE id = ?1";
    let (revision, lifecycle): (i64, String) = vault.database().query_row(row, [key], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let (id, if_revision): (KeyId, u64) = (key.parse().unwrap(), revision.try_into().unwrap());
    let past = Timestamp::from_micros(1);
    let to = StateChange { revision: if_revision + 1, lifecycle: lifecycle.parse().unwrap(), successor: None, delete_at: Some(past) };
    let event =
        AuditEvent { key: Some(id), change: Some(to), ..AuditEvent::new(past, Principal::system(), Operation::DeleteKey, "p".into()) };
    let update = KeyUpdate { key: id, if_revision, to, row_tag: None, reinstate_wrap: None };
    vault.commit_offline(Change::UpdateKey(update), event).await;
}

/// A vault over the copy in PostgreSQL, in this process.
async fn vault_over(store: Arc<PostgresStore>, folder: &Path) -> Arc<Vault> {
    let pattern = folder.join("wrapper-*.key").display().to_string();
    let file = folder.join("wrapper.key").display().to_string();
    let wrapper = format!("provider = \"local\"\nreference = {file:?}\nallowed = [{file:?}, {pattern:?}]");
    let grant = Grant { principal: "dns:node".into(), role: Role::Node, nodes: NodeScope::All };
    let policy = Policy::new(["participant1".parse().unwrap()].into(), vec![grant], "p".into()).unwrap();
    let random = Arc::new(SystemRandom::default());
    Vault::start(VaultConfig {
        id: "dev".parse().unwrap(),
        instance: "main".into(),
        version: "0".into(),
        store: store as _,
        providers: Arc::new(Providers::new(toml::from_str(&wrapper).unwrap(), Arc::clone(&random) as _).unwrap()),
        clock: Arc::new(|| Timestamp::from_micros(1_790_000_000_000_000)),
        random,
        policy: Arc::new(ArcSwap::from_pointee(policy)),
        cache: CacheConfig::default(),
        limits: LimitsConfig::default(),
        jobs: JobsConfig::default(),
        checkpoint_sinks: Vec::new(),
        sinks: Sinks::default(),
        minimum_retention: MINIMUM_RETENTION,
        tracer: None,
    })
    .await
    .unwrap()
}

fn as_node() -> CallContext {
    let principal = Principal { name: "dns:node".into(), certificate: None };
    CallContext { principal, request_id: "r".into(), client: None, trace_id: None, idempotency_key: None }
}

/// Opens and uses every key over the copy in PostgreSQL, after the store was compared with the SQLite file.
async fn works_in_postgres(database: &Database, vault: &TestVault, keys: &Keys, expected: &LogHead) {
    let store = Arc::new(open_postgres(database, "dev", "main").await.unwrap());
    assert_eq!(store.log_head(), *expected);
    assert!(store.removed_through() > 1024);
    let rows = store.key_rows().await.unwrap();
    assert!(rows.unreadable.is_empty() && rows.missing.is_empty() && rows.ids.len() >= 11, "{}", rows.ids.len());
    let served = vault_over(Arc::clone(&store), vault.folder()).await;
    for key in rows.ids {
        let found = served.verify_backup_key(key).await.result;
        let is_destroyed = key.to_string() == keys.destroyed;
        assert!(
            if is_destroyed { matches!(found, BackupKeyResult::Destroyed) } else { matches!(found, BackupKeyResult::Opens) },
            "{key}: {found:?}"
        );
    }
    for (key, algorithm) in &keys.signing {
        served.sign(&as_node(), key.parse().unwrap(), algorithm.parse::<Algorithm>().unwrap(), b"hello".to_vec()).await.unwrap();
    }
    served.sign(&as_node(), keys.disabled.parse().unwrap(), Algorithm::Ed25519, b"hello".to_vec()).await.unwrap_err();
    served.stop().await;
    store.close().await;
}

async fn head_of(vault: &TestVault) -> LogHead {
    let source = Source { vault: "dev".into(), instance: "main".into(), version: "0".into() };
    let config = SqliteConfig::new(vault.path("keyvault.db"), Mode::Production);
    let store =
        until_unlocked(|| SqliteStore::open(config.clone(), source.clone(), &"dev".parse().unwrap(), &SystemRandom::default(), at(0)));
    let head = store.log_head();
    store.close().await;
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_to_postgresql_and_back() {
    let (mut vault, keys) = filled().await;
    let database = shared_server().await.database().await;
    connection(vault.folder(), &database);
    let expected = head_of(&vault).await;
    let report = copied(&vault, &TO_POSTGRES);
    let log = json!({ "instance": "main", "entries": expected.size, "root": STANDARD.encode(expected.root) });
    assert_eq!((&report["vault"], &report["logs"]), (&json!("dev"), &json!([log])));
    assert_eq!(report["chain"]["revision"], json!(expected.state_revision));
    for table in ["wrapper_keys", "keys", "wraps", "jobs", "policies", "idempotency", "audit_entries", "audit_tree", "audit_checkpoints"] {
        assert!(report["rows"][table].as_u64().unwrap() > 0, "{table}: {report}");
    }
    for table in ["audit_sinks", "audit_digests", "audit_totals"] {
        assert!(report["rows"][table].as_u64().unwrap() > 0, "{table}: {report}");
    }
    assert!(vault.path("keyvault.db").exists());

    // Back at once: nothing is lost on the way.
    let back = copied(&vault, &TO_SQLITE);
    assert_eq!(back, report);
    assert_same(&vault.path("keyvault.db"), &vault.path("back.db"));
    assert_eq!(fs::metadata(vault.path("back.db")).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, verified) = verify(&vault, &["--database", "back.db"]);
    assert_eq!((code, verified["verified"].as_bool(), verified["last"].as_u64()), (0, Some(true), Some(expected.size)), "{verified}");
    fs::remove_file(vault.path("back.db")).unwrap();

    // Used in PostgreSQL, then back.
    works_in_postgres(&database, &vault, &keys, &expected).await;
    let back = copied(&vault, &TO_SQLITE);
    assert!(back["logs"][0]["entries"].as_u64().unwrap() > expected.size, "{back}");
    let (code, verified) = verify(&vault, &["--database", "back.db"]);
    assert_eq!((code, verified["last"].as_u64()), (0, back["logs"][0]["entries"].as_u64()), "{verified}");
    fs::rename(vault.path("keyvault.db"), vault.path("before.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(vault.path(&format!("keyvault.db{suffix}")));
    }
    fs::rename(vault.path("back.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    signs_with_every_key(&vault, &keys).await;
    assert!(vault.terminate());
    let entries = "SELECT sequence, entry, leaf FROM audit_entries ORDER BY sequence";
    let log = |file: &str| -> Vec<(i64, Vec<u8>, Vec<u8>)> {
        let db = Connection::open(vault.path(file)).unwrap();
        let mut sql = db.prepare(entries).unwrap();
        let rows = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let (before, after) = (log("before.db"), log("keyvault.db"));
    assert!(after.len() > before.len() && after[..before.len()] == before[..], "the entries before the move are the same");
    let (code, verified) = verify(&vault, &["--database", "keyvault.db"]);
    assert_eq!((code, verified["last"].as_u64()), (0, Some(after.len() as u64)), "{verified}");
}

async fn signs_with_every_key(vault: &TestVault, keys: &Keys) {
    let node = Caller::new(vault, "participant1");
    for (key, algorithm) in &keys.signing {
        let signed = node.post(&format!("/v1/keys/{key}/sign"), &json!({ "algorithm": algorithm, "message": "aGVsbG8=" })).await;
        signed.success();
    }
    let decrypt = json!({ "algorithm": "aes-256-gcm", "ciphertext": keys.ciphertext });
    let opened = node.post(&format!("/v1/keys/{}/decrypt", keys.symmetric), &decrypt).await.success();
    assert_eq!(opened["plaintext"], json!(STANDARD.encode("before")));
    node.sign(&keys.disabled).await.refused(409, "key_disabled");
    node.sign(&keys.destroyed).await.refused(409, "key_destroyed");
    // A repeated creation gives the key of before.
    let (purpose, spec, _) = SCHEMES[0];
    let new = json!({ "node": "participant1", "purpose": purpose, "spec": spec, "name": format!("{purpose} {spec}") });
    let again = node.once("/v1/keys", &format!("once-{purpose}-{spec}"), &new).await.success();
    assert_eq!(again["id"], json!(keys.signing[0].0));
    node.signing_key("participant1").await;
    let verified = vault.command(&["backup", "copy.db"]).output().unwrap();
    assert!(verified.status.success());
    let verified = vault.command(&["verify-backup", "copy.db", "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(verified.status.success() && report["failed"] == json!([]), "{report}");
}

/// A chain of state changes that begins in the middle of the log, because an earlier program wrote its beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_an_earlier_version_moves_after_its_migration() {
    let mut vault = restored();
    let database = shared_server().await.database().await;
    connection(vault.folder(), &database);
    let early = refused(&vault, &TO_POSTGRES);
    assert!(early.contains("has schema 2") && early.contains("start the vault on the source once"), "{early}");
    vault.serve();
    assert!(vault.terminate());
    let report = copied(&vault, &TO_POSTGRES);
    let store = open_postgres(&database, "dev", "main").await.unwrap();
    assert_eq!(json!(store.log_head().size), report["logs"][0]["entries"]);
    store.commit(commit(Operation::ListKeys, None)).await.unwrap();
    store.close().await;
    copied(&vault, &TO_SQLITE);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(vault.path(&format!("keyvault.db{suffix}")));
    }
    fs::rename(vault.path("back.db"), vault.path("keyvault.db")).unwrap();
    vault.serve();
    let keys = vault.client("auditor").get("/v1/keys").await.unwrap();
    for key in keys["items"].as_array().unwrap().iter().filter(|key| key["spec"] == "ec-curve25519" && key["state"] == "active") {
        let node = Caller::new(&vault, key["node"].as_str().unwrap());
        node.sign(key["id"].as_str().unwrap()).await.success();
    }
}

/// A use that an earlier program wrote, which is in no chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_by_an_earlier_program_counts_after_the_move() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyvault.db");
    let store: Arc<dyn KeyStore> = Arc::new(crate::storage_fixtures::open(SqliteConfig::new(&file, Mode::Production)));
    register(&store, 1, WrapperState::Active).await;
    for number in [1, 2] {
        let mut key = record(number);
        key.attributes.origin = Origin::Imported;
        let Some(change @ Change::InsertKey { .. }) = insert(&key).change else { unreachable!() };
        let event = AuditEvent { change: Some(key.state_change()), ..event(Operation::ImportKey, Some(id(number))) };
        store.commit(Commit::change(change, event)).await.unwrap();
    }
    store.commit(use_of(id(1), 1, store.known_revision())).await.unwrap();
    let used = store.use_since_import(id(1)).await.unwrap();
    assert!(used.is_some());
    store.close().await;
    drop(store);
    let database = shared_server().await.database().await;
    copy_store(&StorePlace::Sqlite(file), &StorePlace::Postgres(Box::new(config(&database))), None).await.unwrap();
    let store = open_postgres(&database, "v1", "i1").await.unwrap();
    assert_eq!(store.use_since_import(id(1)).await.unwrap(), used);
    assert_eq!(store.use_since_import(id(2)).await.unwrap(), None);
    assert!(store.use_since_import(id(3)).await.is_err(), "it was never imported");
    store.close().await;
}

/// A backup while the store is in use: of one moment, and `verify-backup` and `audit verify` read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_postgresql_is_made_while_it_is_in_use() {
    let mut vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = node.signing_key("participant1").await;
    node.create("participant1", "symmetric", "aes-256").await;
    node.sign(&key).await.success();
    assert!(vault.terminate());
    let database = shared_server().await.database().await;
    connection(vault.folder(), &database);
    copied(&vault, &TO_POSTGRES);
    let store = Arc::new(open_postgres(&database, "dev", "main").await.unwrap());
    let in_use = refused(&vault, &TO_SQLITE);
    assert!(in_use.contains("in use by the instance main"), "{in_use}");
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), Arc::clone(&store));
    let stopped = Arc::clone(&stop);
    let load = tokio::spawn(async move {
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            busy.commit(commit(Operation::ListKeys, None)).await.unwrap();
            written += 1;
        }
        written
    });
    let first = store.log_head().size;
    until("some entries", || async { store.log_head().size > first }).await;
    let (file, config) = (vault.path("copy.db"), config(&database));
    let backup = backup_postgres(&config, "main", &file).await.unwrap();
    let again = backup_postgres(&config, "main", &file).await;
    assert!(matches!(again, Err(CopyStoreError::NotEmpty(_))), "{again:?}");
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert!(first < backup.logs[0].1.entries && backup.logs[0].1.entries < store.log_head().size + 1);
    store.close().await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!vault.path("copy.db.lock").exists());
    let verified = vault.command(&["verify-backup", "copy.db", "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(verified.status.success() && report["failed"] == json!([]) && report["opened"].as_u64().unwrap() >= 2, "{report}");
    // Restoring it is a copy to another database.
    let other = shared_server().await.database().await;
    connection(vault.folder(), &other);
    let restored = copied(&vault, &["store", "copy", "--from", "sqlite:copy.db", "--to", "postgres:connection.toml"]);
    assert_eq!(restored["logs"][0]["entries"], json!(backup.logs[0].1.entries));
    assert!(!vault.path("copy.db.lock").exists(), "nothing is left beside the backup");
}

/// A vault with a key, stopped, and its folder ready for copies.
async fn small(database: &Database) -> TestVault {
    let mut vault = TestVault::start();
    Caller::new(&vault, "participant1").signing_key("participant1").await;
    assert!(vault.terminate());
    connection(vault.folder(), database);
    vault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_cannot_be_right_is_refused() {
    let database = shared_server().await.database().await;
    let mut vault = small(&database).await;
    vault.serve();
    let in_use = refused(&vault, &TO_POSTGRES);
    assert!(in_use.contains("is in use by another process"), "{in_use}");
    assert!(vault.terminate());
    for (arguments, said) in [
        (["--from", "sqlite:missing.db", "--to", "postgres:connection.toml"], "missing.db"),
        (["--from", "sqlite:keyvault.toml", "--to", "postgres:connection.toml"], "is not a key vault's database"),
        (["--from", "sqlite:keyvault.db", "--to", "sqlite:other.db"], "canton-keyvault backup"),
        (["--from", "postgres:connection.toml", "--to", "sqlite:other.db"], "no tables of a key vault"),
        (["--from", "postgres:connection.toml", "--to", "postgres:connection.toml"], "pg_dump"),
        (["--from", "postgres:keyvault.toml", "--to", "sqlite:other.db"], "keyvault.toml: "),
        (["--from", "postgres://u:secret@h/d", "--to", "sqlite:other.db"], "url_file"),
    ] {
        let error = refused(&vault, &[&["store", "copy"], arguments.as_slice()].concat());
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    assert!(!vault.path("other.db").exists());

    // An entry that was edited: nothing is concluded from a copy.
    fs::copy(vault.path("keyvault.db"), vault.path("sound.db")).unwrap();
    for (edit, said) in [
        ("UPDATE audit_entries SET entry = CAST(replace(CAST(entry AS TEXT), 'keys.', 'Keys.') AS BLOB) WHERE sequence = 2", "entry 2"),
        ("DELETE FROM audit_entries WHERE sequence = 2", "entry 2: it is missing"),
        ("UPDATE meta SET store_revision = store_revision + 1", "store_revision"),
        (
            "UPDATE audit_entries SET entry = x'' WHERE sequence = (SELECT min(sequence) FROM audit_entries WHERE state_revision IS NULL)",
            "has no bytes",
        ),
    ] {
        fs::copy(vault.path("sound.db"), vault.path("edited.db")).unwrap();
        assert!(Connection::open(vault.path("edited.db")).unwrap().execute(edit, []).unwrap() > 0, "{edit}");
        let error = refused(&vault, &["store", "copy", "--from", "sqlite:edited.db", "--to", "postgres:connection.toml"]);
        assert!(error.contains("not as it was written") && error.contains(said), "{edit}: {error}");
    }
    // The mark of those attempts is replaced by a copy.
    assert!(matches!(open_postgres(&database, "dev", "main").await, Err(OpenStoreError::IncompleteCopy(_))));
    copied(&vault, &TO_POSTGRES);
    let twice = refused(&vault, &TO_POSTGRES);
    assert!(twice.contains("the target is not empty") && twice.contains("has rows"), "{twice}");
    copied(&vault, &TO_SQLITE);
    let twice = refused(&vault, &TO_SQLITE);
    assert!(twice.contains("the target is not empty") && twice.contains("exists"), "{twice}");

    let nothing = refused(&vault, &[&TO_POSTGRES, ["--instance", "main"].as_slice()].concat());
    assert!(nothing.contains("no meaning"), "{nothing}");
    database.client().await.execute("UPDATE refinery_schema_history SET version = 99 WHERE version = 2", &[]).await.unwrap();
    let newer = refused(&vault, &["store", "copy", "--from", "postgres:connection.toml", "--to", "sqlite:other.db"]);
    assert!(newer.contains("schema 99"), "{newer}");
}

/// Two processes with a log each, whose state changes alternate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_several_instances_move_together() {
    let database = shared_server().await.database().await;
    let vault = small(&database).await;
    copied(&vault, &TO_POSTGRES);
    let (one, two) = (open_postgres(&database, "dev", "main").await.unwrap(), open_postgres(&database, "dev", "second").await.unwrap());
    for _ in 0..300 {
        two.commit(commit(Operation::ListKeys, None)).await.unwrap();
    }
    two.commit(freeze(true)).await.unwrap();
    one.commit(freeze(false)).await.unwrap();
    two.commit(freeze(false)).await.unwrap();
    let sink = SinkCursor { sequence: 7, leaf: [7; 32], at: at(7) };
    two.store_sink_cursor("file", sink).await.unwrap();
    let (heads, revision) = ((one.log_head(), two.log_head()), two.known_revision());
    one.close().await;
    two.close().await;
    let several = refused(&vault, &TO_SQLITE);
    assert!(several.contains("main, second") && several.contains("--instance"), "{several}");
    let missing = refused(&vault, &[&TO_SQLITE, ["--instance", "third"].as_slice()].concat());
    assert!(missing.contains("no log of the instance third"), "{missing}");
    assert!(!vault.path("back.db").exists());
    let report = copied(&vault, &[&TO_SQLITE, ["--instance", "main"].as_slice()].concat());
    assert_eq!(report["logs"][0]["instance"], json!("main"));
    assert_eq!((&report["logs"][1]["instance"], &report["logs"][1]["entries"]), (&json!("second"), &json!(302)));

    // A backup with all logs opens, and goes back to PostgreSQL as it is.
    let verified = vault.command(&["verify-backup", "back.db", "--output", "json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(verified.status.success() && found["failed"] == json!([]) && found["opened"] == json!(1), "{found}");
    let other = shared_server().await.database().await;
    connection(vault.folder(), &other);
    let again = copied(&vault, &["store", "copy", "--from", "sqlite:back.db", "--to", "postgres:connection.toml"]);
    assert_eq!(again, report);
    let (one, two) = (open_postgres(&other, "dev", "main").await.unwrap(), open_postgres(&other, "dev", "second").await.unwrap());
    assert_eq!((one.log_head().size, one.log_head().root), (heads.0.size, heads.0.root));
    assert_eq!((two.log_head(), two.known_revision(), two.sink_cursor("file").await.unwrap()), (heads.1, revision, Some(sink)));
    two.commit(freeze(true)).await.unwrap();
    one.close().await;
    two.close().await;

    // A vault over the file continues the first log, and the chain of all.
    let source = Source { vault: "dev".into(), instance: "main".into(), version: "0".into() };
    let config = SqliteConfig::new(vault.path("back.db"), Mode::Production);
    let open = || SqliteStore::open(config.clone(), source.clone(), &"dev".parse().unwrap(), &SystemRandom::default(), at(0));
    let store = until_unlocked(open);
    assert_eq!((store.log_head().size, store.known_revision()), (heads.0.size, revision));
    assert_eq!(store.commit(freeze(true)).await.unwrap().store_revision, revision + 1);
    store.close().await;
    let store = until_unlocked(open);
    assert_eq!((store.log_head().size, store.known_revision()), (heads.0.size + 1, revision + 1));
    store.close().await;
    let db = Connection::open(vault.path("back.db")).unwrap();
    assert_eq!(db.execute("DELETE FROM other_entries WHERE state_revision IS NOT NULL", []).unwrap(), 2);
    drop(db);
    assert!(matches!(open().err(), Some(OpenStoreError::BrokenChain { .. })), "the chain needs the other log");
}

/// Starts a copy, and ends it with kill -9 when it waits for a lock in PostgreSQL.
async fn killed(vault: &TestVault, arguments: &[&str], database: &Database) {
    let mut child = vault.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let client = database.client().await;
    let waits = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                 WHERE NOT granted AND datname = current_database()";
    let began = Instant::now();
    // A copy that waits for too long ends by itself, in the middle too.
    while client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 && is_running(&mut child) {
        assert!(began.elapsed() < Duration::from_mins(1), "the copy does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = child.kill();
    assert!(!child.wait().unwrap().success());
}

/// Kills a copy into `back.db` as soon as the file has its mark. One that was complete before is repeated.
fn killed_with_a_mark(vault: &TestVault) {
    let file = vault.path("back.db");
    // The application id of a SQLite file: https://www.sqlite.org/fileformat2.html
    let is_marked = || fs::read(&file).is_ok_and(|bytes| bytes.get(68..72) == Some(b"CKVc"));
    for _ in 0..100 {
        let mut child = vault.command(&TO_SQLITE).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !is_marked() && is_running(&mut child) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        if !child.wait().unwrap().success() && is_marked() {
            return;
        }
        let _ = fs::remove_file(&file);
    }
    panic!("no copy was killed in time");
}

fn is_running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_killed_is_never_opened_and_the_next_one_succeeds() {
    let database = shared_server().await.database().await;
    let vault = small(&database).await;
    // An empty store with its tables, so that a lock can stop a copy in the middle.
    copied(&vault, &TO_POSTGRES);
    let client = database.client().await;
    let all = "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'refinery_schema_history'";
    let all: String = client.query_one(all, &[]).await.unwrap().get(0);
    client.batch_execute(&format!("TRUNCATE {all}")).await.unwrap();
    client.batch_execute("BEGIN; LOCK TABLE audit_entries IN SHARE MODE").await.unwrap();
    killed(&vault, &TO_POSTGRES, &database).await;
    client.batch_execute("COMMIT").await.unwrap();
    let refused_to_open = open_postgres(&database, "dev", "main").await.err();
    assert!(matches!(refused_to_open, Some(OpenStoreError::IncompleteCopy(_))), "{refused_to_open:?}");
    let not_a_source = refused(&vault, &TO_SQLITE);
    assert!(not_a_source.contains("incomplete copy"), "{not_a_source}");
    copied(&vault, &TO_POSTGRES);
    open_postgres(&database, "dev", "main").await.unwrap().close().await;

    killed_with_a_mark(&vault);
    fs::rename(vault.path("keyvault.db"), vault.path("before.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(vault.path(&format!("keyvault.db{suffix}")));
    }
    for suffix in ["", "-journal"] {
        let _ = fs::copy(vault.path(&format!("back.db{suffix}")), vault.path(&format!("keyvault.db{suffix}")));
    }
    let serve = vault.refuses_to_serve();
    assert!(serve.contains("incomplete copy") && serve.contains("copy the store again"), "{serve}");
    let not_a_source = refused(&vault, &TO_POSTGRES);
    assert!(not_a_source.contains("incomplete copy"), "{not_a_source}");
    // A journal that holds nothing can stay.
    let _ = fs::remove_file(vault.path("keyvault.db-journal"));
    let not_a_backup = refused(&vault, &["verify-backup", "keyvault.db"]);
    assert!(not_a_backup.contains("incomplete copy"), "{not_a_backup}");
    copied(&vault, &TO_SQLITE);
    assert_same(&vault.path("before.db"), &vault.path("back.db"));
}

/// A new table or column must be copied, or be named as one that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_column_of_both_schemas_is_known_to_the_copy() {
    let database = shared_server().await.database().await;
    let vault = small(&database).await;
    copied(&vault, &TO_POSTGRES);
    let sql = "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_xinfo(m.name) AS c WHERE m.type = 'table'";
    let db = vault.database();
    let mut sql = db.prepare(sql).unwrap();
    let columns = sql.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut columns: Vec<(String, String)> = columns.collect::<Result<_, _>>().unwrap();
    let sql = "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'";
    columns.extend(database.client().await.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))));
    assert!(columns.len() > 150, "{}", columns.len());
    let unknown: Vec<_> = columns.iter().filter(|(table, column)| !copies_column(table, column)).collect();
    assert!(unknown.is_empty(), "add them to src/storage/copy/tables.rs: {unknown:?}");
    assert!(!copies_column("keys", "new") && !copies_column("new", "id"));
}
