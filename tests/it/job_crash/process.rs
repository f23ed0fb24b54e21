//! One run of a vault process, from opening its files to a simulated power loss.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use canton_keyvault::{
    audit::Source,
    crypto::{Random, SystemRandom},
    domain::{Grant, KeyId, NodeScope, Policy, Principal, Role, Timestamp, VaultId},
    kms::{Providers, create_key_file},
    storage::{KeyStore as _, Mode, SqliteConfig, SqliteStore},
    vault::{CacheConfig, CallContext, JobsConfig, LimitsConfig, MINIMUM_RETENTION, Sinks, Vault, VaultConfig, background},
};
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{storage_disk::Disk, storage_fixtures::until_unlocked, support::pki::NOW};

use super::{
    checking_store::{Found, Spoil, Watched},
    faulty_kms::FaultyKms,
};

/// What outlives a life: the files, the KMS, the time, and what the vault has promised.
pub(crate) struct Scenario {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) sky: Arc<FaultyKms>,
    pub(crate) failover_on_denied: bool,
    began: Instant,
    /// Microseconds by which the clock was moved on.
    moved: AtomicI64,
    /// Keys whose creation was acknowledged.
    pub(crate) promised: Mutex<Vec<KeyId>>,
    pub(crate) spoil: Option<Spoil>,
}

impl Scenario {
    pub(crate) fn new(seed: u64, spoil: Option<Spoil>) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        create_key_file(&folder.path().join("wrapper.key"), &SystemRandom::default()).unwrap();
        Arc::new(Self {
            folder,
            sky: FaultyKms::new(seed),
            failover_on_denied: seed.is_multiple_of(3),
            began: Instant::now(),
            moved: AtomicI64::new(0),
            promised: Mutex::default(),
            spoil,
        })
    }

    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("keyvault.db")
    }

    fn now(&self) -> Timestamp {
        let moved = Duration::from_micros(self.moved.load(Ordering::Relaxed).unsigned_abs());
        NOW.plus(self.began.elapsed()).plus(moved)
    }

    pub(crate) fn move_on(&self, duration: Duration) {
        self.moved.fetch_add(i64::try_from(duration.as_micros()).unwrap(), Ordering::Relaxed);
    }

    fn providers(&self, random: &Arc<dyn Random>) -> Providers {
        let (folder, sky) = (self.folder.path().display(), Arc::clone(&self.sky));
        let config = format!(
            "provider = 'local'\nreference = '{folder}/wrapper.key'\nallowed = ['{folder}/*']\nfailover_on_denied = {}",
            self.failover_on_denied
        );
        Providers::new(toml::from_str(&config).unwrap(), Arc::clone(random)).unwrap().decorated(move |key, plain| sky.under(key, plain))
    }
}

/// A vault that runs, with all that it does by itself.
pub(crate) struct VaultProcess {
    pub(crate) runtime: Runtime,
    pub(crate) vault: Arc<Vault>,
    pub(crate) watched: Arc<Watched>,
    pub(crate) disk: Arc<Disk>,
}

impl VaultProcess {
    pub(crate) fn begin(world: &Arc<Scenario>) -> Self {
        Self::begin_at(world, 10_000)
    }

    /// With jobs of so many keys a second.
    pub(crate) fn begin_at(world: &Arc<Scenario>, keys_per_second: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let disk = Arc::new(Disk::new());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let id: VaultId = "crash".parse().unwrap();
        let source = Source { vault: id.to_string(), instance: "test".into(), version: "0".into() };
        let config = SqliteConfig {
            vfs: Some(disk.vfs()),
            wal_pages: 40,
            // A busy machine is no fault of the store.
            commit_timeout: Duration::from_mins(1),
            ..SqliteConfig::new(world.database(), Mode::Production)
        };
        let open = || SqliteStore::open(config.clone(), source.clone(), &id, random.as_ref(), world.now());
        let store = Arc::new(until_unlocked(open));
        let (sky, spoil) = (Arc::clone(&world.sky), world.spoil);
        let watched = Arc::new(Watched::new(store, &world.database(), Arc::clone(&disk), sky, id.clone(), spoil));
        let clock = Arc::clone(world);
        let parts = VaultConfig {
            id,
            instance: "test".into(),
            version: "0".into(),
            store: Arc::clone(&watched) as _,
            providers: Arc::new(world.providers(&random)),
            clock: Arc::new(move || clock.now()),
            random,
            policy: Arc::new(ArcSwap::from_pointee(policy())),
            cache: CacheConfig::default(),
            limits: LimitsConfig {
                cache_misses_per_second: 1_000_000,
                creations_per_minute: 1_000_000,
                refusals_per_second: 1_000_000,
                ..LimitsConfig::default()
            },
            jobs: JobsConfig { keys_per_second, retry_backoff: Duration::from_millis(1), ..JobsConfig::default() },
            checkpoint_sinks: Vec::new(),
            sinks: Sinks::default(),
            minimum_retention: MINIMUM_RETENTION,
            tracer: None,
        };
        let vault = runtime.block_on(Vault::start(parts)).unwrap();
        runtime.block_on(async { background::run(&vault, Duration::from_hours(24), &TaskTracker::new(), &CancellationToken::new()) });
        Self { runtime, vault, watched, disk }
    }

    /// The power goes, if it is not gone yet, and with it every task wherever it is.
    pub(crate) fn end(self, seed: u64) -> Found {
        let Self { runtime, vault, watched, disk } = self;
        if !disk.is_off() {
            disk.cut_power_after(0, seed);
        }
        runtime.shutdown_timeout(Duration::from_mins(1));
        drop(vault);
        let found = watched.found();
        let store = Arc::clone(&watched.store);
        assert!(Arc::into_inner(watched).is_some(), "somebody still holds the store");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.close());
        found
    }
}

fn policy() -> Policy {
    let grant = |principal: &str, role| Grant { principal: principal.into(), role, nodes: NodeScope::All };
    let grants = [("node", Role::Node), ("key-admin", Role::KeyAdmin), ("wrapper-admin", Role::WrapperAdmin), ("auditor", Role::Auditor)];
    let grants = grants.map(|(name, role)| grant(&format!("dns:{name}"), role)).into();
    Policy::new(["n1".parse().unwrap()].into(), grants, "p".into()).unwrap()
}

/// A call of a principal.
pub(crate) fn as_(name: &str) -> CallContext {
    let principal = Principal { name: format!("dns:{name}").into(), certificate: None };
    CallContext { principal, request_id: "r".into(), client: None, trace_id: None, idempotency_key: None }
}
