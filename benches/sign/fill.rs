//! Fills a vault's database with keys, by the vault's own code in this process, and so without the limit for one principal.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use canton_keyvault::{
    audit::Source,
    config::Config,
    crypto::{Random, SystemRandom},
    domain::{Clock, KeySpec, Principal, Purpose, Timestamp},
    kms::Providers,
    storage::{KeyStore as _, Mode, SqliteConfig, SqliteStore},
    vault::{CallContext, JobsConfig, LimitsConfig, MINIMUM_RETENTION, NewKey, Sinks, Vault, VaultConfig},
};

/// Adds `keys` Ed25519 keys of the node `participant1` to the vault of this configuration file; it must not be running.
pub(crate) fn fill(config: &Path, mode: Mode, keys: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let config = Config::load(config)?;
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        #[expect(clippy::disallowed_methods, reason = "here the clock is made that is passed in everywhere else")]
        let clock: Clock = Arc::new(|| Timestamp::from(SystemTime::now()));
        let instance = config.vault.instance().to_owned();
        let source = Source { vault: config.vault.id.to_string(), instance: instance.clone(), version: env!("CARGO_PKG_VERSION").into() };
        let Some(path) = &config.storage.path else { anyhow::bail!("[storage] path names no file") };
        let sqlite = SqliteConfig::new(path, mode);
        let store = Arc::new(SqliteStore::open(sqlite, source, &config.vault.id, random.as_ref(), clock())?);
        let vault = Vault::start(VaultConfig {
            id: config.vault.id.clone(),
            instance,
            version: env!("CARGO_PKG_VERSION").into(),
            store: Arc::clone(&store) as _,
            providers: Arc::new(Providers::new(config.wrapper.clone(), Arc::clone(&random))?),
            clock,
            random,
            policy: Arc::new(ArcSwap::from_pointee(config.policy()?)),
            cache: config.cache.clone(),
            limits: LimitsConfig { creations_per_minute: u32::MAX, ..config.limits.clone() },
            jobs: JobsConfig::default(),
            checkpoint_sinks: Vec::new(),
            sinks: Sinks::default(),
            minimum_retention: MINIMUM_RETENTION,
            tracer: None,
        })
        .await?;
        let left = Arc::new(AtomicU32::new(keys));
        let makers: Vec<_> = (0..64).map(|_| tokio::spawn(make(Arc::clone(&vault), Arc::clone(&left)))).collect();
        for maker in makers {
            maker.await??;
        }
        vault.stop().await;
        store.close().await;
        anyhow::Ok(())
    })?;
    println!("{keys} keys made in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn make(vault: Arc<Vault>, left: Arc<AtomicU32>) -> anyhow::Result<()> {
    let principal = Principal { name: "spiffe://dev.keyvault/participant1".into(), certificate: None };
    let call = CallContext { principal, request_id: "fill".into(), client: None, trace_id: None, idempotency_key: None };
    let new = NewKey {
        node: "participant1".parse()?,
        purpose: Purpose::Signing,
        spec: KeySpec::EcCurve25519,
        usages: None,
        class: None,
        name: Some("filled".parse()?),
        exportable: false,
    };
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        vault.create_key(&call, new.clone()).await?;
    }
    Ok(())
}
