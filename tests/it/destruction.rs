//! The destruction of a key, in process with a test clock: not before its time, only the attributes remain, and it cannot be undone.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use canton_keyvault::{
    audit::Source,
    crypto::{Random, SystemRandom},
    domain::{
        Algorithm, Grant, KeyId, KeyRecord, KeySpec, KeyState, NodeName, NodeScope, Operation, Outcome, Policy, Principal, Purpose, Role,
        Timestamp,
    },
    kms::{Providers, create_key_file},
    storage::{KeyStore as _, Mode, SqliteConfig, SqliteStore},
    vault::{
        CacheConfig, CallContext, Code, EntryQuery, JobsConfig, LimitsConfig, MINIMUM_RETENTION, NewKey, PageRequest, Sinks, Vault,
        VaultConfig, VaultError,
    },
};

use crate::{storage_fixtures::until_unlocked, support::pki::NOW};

const DAY: u64 = 24 * 3600;

/// A vault with a clock that the test moves.
struct Timed {
    vault: Arc<Vault>,
    now: Arc<AtomicI64>,
    store: Arc<SqliteStore>,
}

impl Timed {
    async fn start(dir: &Path, now: Timestamp) -> Self {
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let key_file = dir.join("wrapper.key");
        if !key_file.exists() {
            create_key_file(&key_file, random.as_ref()).unwrap();
        }
        let key_file = key_file.to_str().unwrap();
        let wrapper = format!("provider = \"local\"\nreference = {key_file:?}\nallowed = [{key_file:?}]");
        let id: canton_keyvault::domain::VaultId = "timed".parse().unwrap();
        let source = Source { vault: id.to_string(), instance: "test".into(), version: "0".into() };
        let config = SqliteConfig::new(dir.join("keyvault.db"), Mode::Production);
        let open = || SqliteStore::open(config.clone(), source.clone(), &id, random.as_ref(), now);
        let store = Arc::new(until_unlocked(open));
        let nodes = [node()].into();
        let grant = |principal: &str, role| Grant { principal: principal.into(), role, nodes: NodeScope::All };
        let grants = vec![grant("dns:node", Role::Node), grant("dns:admin", Role::KeyAdmin), grant("dns:auditor", Role::Auditor)];
        let policy = Policy::new(nodes, grants, "p".into()).unwrap();
        let time = Arc::new(AtomicI64::new(now.micros()));
        let clock = Arc::clone(&time);
        let vault = Vault::start(VaultConfig {
            id,
            instance: "test".into(),
            version: "0".into(),
            store: Arc::clone(&store) as _,
            providers: Arc::new(Providers::new(toml::from_str(&wrapper).unwrap(), Arc::clone(&random)).unwrap()),
            clock: Arc::new(move || Timestamp::from_micros(clock.load(Ordering::Relaxed))),
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
        .unwrap();
        vault.bootstrap().await.unwrap();
        Self { vault, now: time, store }
    }

    /// Moves the clock and does what the job does.
    async fn pass(&self, duration: Duration) {
        self.now.fetch_add(i64::try_from(duration.as_micros()).unwrap(), Ordering::Relaxed);
        self.vault.destroy_due().await;
    }

    async fn new_key(&self, purpose: Purpose, spec: KeySpec) -> KeyId {
        let new = NewKey { node: node(), purpose, spec, usages: None, class: None, name: None, exportable: false };
        self.vault.create_key(&as_("dns:node"), new).await.unwrap().into_value().attributes.id
    }

    async fn sign(&self, id: KeyId) -> Result<Vec<u8>, Code> {
        let signed = self.vault.sign(&as_("dns:node"), id, Algorithm::Ed25519, b"message".to_vec()).await;
        signed.map(|signed| signed.into_value().bytes).map_err(|error| error.code())
    }

    async fn show(&self, id: KeyId) -> KeyRecord {
        self.vault.show_key(&as_("dns:auditor"), id).await.unwrap().into_value()
    }
}

fn node() -> NodeName {
    "n1".parse().unwrap()
}

fn as_(name: &str) -> CallContext {
    let principal = Principal { name: name.into(), certificate: None };
    CallContext { principal, request_id: "r".into(), client: None, trace_id: None, idempotency_key: None }
}

fn code<T: std::fmt::Debug>(result: Result<T, VaultError>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn a_key_is_destroyed_when_its_time_comes_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let timed = Timed::start(dir.path(), NOW).await;
    let (doomed, spared) =
        (timed.new_key(Purpose::Signing, KeySpec::EcCurve25519).await, timed.new_key(Purpose::Signing, KeySpec::EcCurve25519).await);
    for id in [doomed, spared] {
        timed.sign(id).await.unwrap();
        timed.vault.delete(&as_("dns:admin"), id, 7).await.unwrap();
    }
    timed.pass(Duration::from_secs(7 * DAY - 1)).await;
    timed.pass(Duration::from_micros(999_999)).await;
    for id in [doomed, spared] {
        assert_eq!(timed.show(id).await.lifecycle.state(), KeyState::PendingDeletion);
    }
    timed.vault.cancel_deletion(&as_("dns:admin"), spared).await.unwrap();
    timed.pass(Duration::from_micros(1)).await;

    let tombstone = timed.show(doomed).await;
    assert_eq!(tombstone.lifecycle.state(), KeyState::Destroyed);
    assert!(tombstone.sealed.is_none() && tombstone.wraps.is_empty() && tombstone.public_key.is_some());
    timed.pass(Duration::from_secs(1000 * DAY)).await;
    assert!(timed.sign(spared).await.is_ok(), "a cancelled deletion never comes true");

    assert_eq!(timed.sign(doomed).await, Err(Code::KeyDestroyed));
    let (node, admin, vault) = (as_("dns:node"), as_("dns:admin"), &timed.vault);
    assert_eq!(code(vault.enable(&admin, doomed).await), Code::InvalidKeyState);
    assert_eq!(code(vault.disable(&admin, doomed).await), Code::InvalidKeyState);
    assert_eq!(code(vault.supersede(&admin, doomed).await), Code::InvalidKeyState);
    assert_eq!(code(vault.delete(&admin, doomed, 7).await), Code::InvalidKeyState);
    assert_eq!(code(vault.cancel_deletion(&admin, doomed).await), Code::InvalidKeyState);
    assert_eq!(code(vault.rotate(&node, doomed, None).await), Code::KeyDestroyed);
}

#[tokio::test]
async fn a_destruction_is_an_entry_of_the_vault_itself_and_a_key_whose_row_was_edited_is_not_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let timed = Timed::start(dir.path(), NOW).await;
    let (doomed, edited) =
        (timed.new_key(Purpose::Symmetric, KeySpec::Aes256).await, timed.new_key(Purpose::Signing, KeySpec::EcCurve25519).await);
    timed.vault.delete(&as_("dns:admin"), doomed, 7).await.unwrap();
    timed.vault.stop().await;
    timed.store.close().await;
    // Somebody with the file, but not with the right, asks for a destruction.
    let database = rusqlite::Connection::open(dir.path().join("keyvault.db")).unwrap();
    let edit = "UPDATE keys SET lifecycle = 'pending-deletion', delete_at = 1 WHERE id = ?1";
    assert_eq!(database.execute(edit, [edited.to_string()]).unwrap(), 1);
    drop(database);

    let timed = Timed::start(dir.path(), NOW).await;
    timed.pass(Duration::from_secs(8 * DAY)).await;
    let shown = timed.show(edited).await;
    assert_eq!(shown.lifecycle.state(), KeyState::Quarantined);
    assert!(shown.sealed.is_some(), "nothing was lost");
    assert_eq!(timed.show(doomed).await.lifecycle.state(), KeyState::Destroyed);
    timed.vault.enable(&as_("dns:admin"), edited).await.unwrap();
    assert!(timed.sign(edited).await.is_ok());

    let query = EntryQuery { operation: Some(Operation::DestroyKey), ..EntryQuery::default() };
    let found = timed.vault.query_audit(&as_("dns:auditor"), query, PageRequest { after: 0, limit: 10 }).await.unwrap().into_value().items;
    let [logged] = found.as_slice() else { panic!("{found:?}") };
    let entry = &logged.entry;
    assert_eq!((entry.key_id, entry.node.clone(), entry.outcome), (Some(doomed), Some(node()), Outcome::Ok));
    assert_eq!((entry.principal.as_str(), entry.state.as_deref()), ("system", Some("destroyed pending-deletion")));
}

/// The waiting time is a promise: an edit of the row does not shorten it, and the key is kept.
#[tokio::test]
async fn an_edited_time_destroys_nothing_early() {
    let dir = tempfile::tempdir().unwrap();
    let timed = Timed::start(dir.path(), NOW).await;
    let id = timed.new_key(Purpose::Signing, KeySpec::EcCurve25519).await;
    timed.vault.delete(&as_("dns:admin"), id, 365).await.unwrap();
    timed.vault.stop().await;
    timed.store.close().await;
    let database = rusqlite::Connection::open(dir.path().join("keyvault.db")).unwrap();
    assert_eq!(database.execute("UPDATE keys SET delete_at = 1 WHERE id = ?1", [id.to_string()]).unwrap(), 1);
    drop(database);

    let timed = Timed::start(dir.path(), NOW).await;
    timed.pass(Duration::from_secs(8 * DAY)).await;
    let shown = timed.show(id).await;
    assert!(shown.sealed.is_some(), "nothing was lost");
    assert_eq!(shown.lifecycle.to_string(), "pending-deletion quarantined");
    assert!(shown.delete_at > Some(Timestamp::from_micros(1)), "the row says again what the log says: {:?}", shown.delete_at);
    let query = EntryQuery { operation: Some(Operation::Quarantine), ..EntryQuery::default() };
    let found = timed.vault.query_audit(&as_("dns:auditor"), query, PageRequest { after: 0, limit: 10 }).await.unwrap().into_value().items;
    assert_eq!(found.len(), 1, "once, not at every look: {found:?}");

    let cancelled = timed.vault.cancel_deletion(&as_("dns:admin"), id).await.unwrap().into_value();
    assert_eq!(cancelled.lifecycle.state(), KeyState::Quarantined);
    timed.vault.enable(&as_("dns:admin"), id).await.unwrap();
    timed.sign(id).await.unwrap();
}
