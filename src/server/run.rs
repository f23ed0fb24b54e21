//! The server process: opens the store, starts the vault and its jobs, and serves the API and operations listeners until a signal.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::Router;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    config::Config,
    crypto::{Random, SystemRandom},
    domain::{Clock, Operation, Policy, Target, Timestamp, VaultId},
    kms::{Cure, Providers},
    mtls::{ConnectionLimits, MayFreeze, RefusedCertificate, SOCKET_BUFFER, Trust, serve, serve_ops},
    sinks::{self, LogSource, SinkConfig},
    storage::{KeyStore, Mode},
    traces::{Exporter, TraceSource, Tracer},
    vault::{ClientRefusal, Rollback, Sinks, Vault, VaultConfig, VaultError, background, compare},
};

use super::{
    checks::{self, Severity},
    free_disk,
    hardening::harden,
    high_water_mark::HighWaterMark,
    log, metrics, process_metrics,
    reload::{self, Live, Reloader},
    service_manager::ServiceManager,
    status_metrics,
    store::{newest_entry_at, open_store, read_facts},
    witnesses::Witnesses,
};

/// What an operator accepts at this start, after finding out what happened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Accept {
    /// Rows and entries that the audit log does not confirm.
    pub(crate) state: bool,
    /// A store that is older than the newest checkpoint, or has another history.
    pub(crate) rollback: bool,
}

impl Accept {
    /// Whether the operator accepts this disagreement. A start that accepts a state begins a later log itself.
    const fn covers(self, rollback: &Rollback) -> bool {
        self.rollback || self.state && matches!(rollback, Rollback::LaterIncarnation { .. })
    }
}

/// Serves until SIGTERM or SIGINT, as `instance` if one is given. The log is set up first: a failure is its last line.
///
/// # Errors
/// Why the vault does not start or ended. The flag is whether a log line says so.
pub(crate) fn run(config: &Path, instance: Option<&VaultId>, accept: Accept) -> Result<(), (anyhow::Error, bool)> {
    log::start(&log::section_of(config)).map_err(|error| (error, false))?;
    try_run(config, instance, accept).map_err(|error| {
        tracing::error!(cause = format!("{error:#}"), "the vault ends with an error");
        (error, tracing::enabled!(tracing::Level::ERROR))
    })
}

fn try_run(config: &Path, instance: Option<&VaultId>, accept: Accept) -> anyhow::Result<()> {
    gather_entropy();
    let mut live = reload::load(config, clock()).map_err(anyhow::Error::from)?;
    live.config = live.config.for_instance(instance);
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let server = Box::pin(Server::start(live, Mode::Production, accept)).await?;
        server.until_stopped().await
    });
    // A file system that does not answer keeps a thread. The end does not wait for it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Whether the current grants let a principal freeze the vault.
fn may_freeze(policy: Arc<ArcSwap<Policy>>) -> MayFreeze {
    Arc::new(move |principal| policy.load().permit(principal, Operation::Freeze, Target::Vault).is_ok())
}

/// A vault that is being served.
pub(crate) struct Server {
    vault: Arc<Vault>,
    store: Arc<dyn KeyStore>,
    stop: CancellationToken,
    tasks: TaskTracker,
    exporter: Option<SpanExport>,
    service_manager: Arc<ServiceManager>,
    terminate: Signal,
    interrupt: Signal,
}

impl Server {
    /// Opens the store, starts the vault and its jobs, and listens. Does not need the KMS.
    pub(crate) async fn start(live: Live, mode: Mode, accept: Accept) -> anyhow::Result<Self> {
        // First, because a signal that arrives before this would end the process without a graceful shutdown.
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let Live { config, trust, policy, reloader } = live;
        let metrics = metrics::install()?;
        process_metrics::started(clock()());
        metrics::name_process(&config.vault);
        let hardening = harden(&config.memory).map_err(anyhow::Error::from)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), vault = %config.vault.id, "starting; {hardening}");
        checks::raise_open_file_limit();
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let tracing = start_tracing(&config, &random);
        let providers = Arc::new(Providers::new(config.wrapper.clone(), Arc::clone(&random)).map_err(anyhow::Error::from)?);
        let mut findings = checks::of_machine(&config);
        findings.extend(checks::of_settings(&config, &trust));
        // A development vault has its wrapper key in a file on purpose.
        findings.retain(|finding| mode == Mode::Production || finding.check.severity == Severity::Fail);
        checks::enforce(findings)?;
        let store = open_store(&config, mode, accept.state, random.as_ref()).await?;
        let mark = config.audit.high_water_mark.clone().map(|path| Arc::new(HighWaterMark::new(path)));
        let witnesses = Witnesses::new(&config.audit.witnesses, clock())?;
        let rollback = rollback(&config, store.as_ref(), mark.as_deref()).await?;
        if let Some(rollback) = rollback.as_ref().filter(|rollback| !accept.covers(rollback)) {
            anyhow::bail!("{rollback}. Restore the newest backup, or find out what happened and start once with serve --accept-rollback");
        }
        // Before the entry of the start, which is the newest one then.
        let newest_entry_at = newest_entry_at(store.as_ref()).await;
        // A start that ends here leaves no entry.
        let (api, ops) = (listen(config.listen.api)?, listen(config.listen.ops)?);
        let (tracer, exporter) = tracing.unzip();
        let vault = Vault::start(VaultConfig {
            id: config.vault.id.clone(),
            instance: config.vault.instance().to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            store: Arc::clone(&store),
            providers: Arc::clone(&providers),
            clock: clock(),
            random: Arc::clone(&random),
            policy: Arc::clone(&policy),
            cache: config.cache.clone(),
            limits: config.limits.clone(),
            jobs: config.jobs.clone(),
            checkpoint_sinks: mark.into_iter().map(|mark| mark as _).chain(witnesses.clone().map(|witnesses| witnesses as _)).collect(),
            sinks: open_sinks(&config),
            minimum_retention: config.audit.minimum_retention,
            tracer: tracer.clone(),
        })
        .await
        .map_err(anyhow::Error::from)?;
        if let Err(error) = begin(&vault, rollback.as_ref(), accept).await {
            vault.stop().await;
            store.close().await;
            return Err(error);
        }
        let found = read_facts(store.as_ref(), newest_entry_at).await?;
        checks::enforce(checks::of_store(&providers, &found, clock()()))?;
        tracing::info!(api = %api.local_addr()?, ops = %ops.local_addr()?, "listening");
        let (stop, tasks, service_manager) = (CancellationToken::new(), TaskTracker::new(), ServiceManager::from_environment());
        let server = Self { vault, store, stop, tasks, exporter, service_manager, terminate, interrupt };
        let limits = (config.connections, may_freeze(policy));
        if let Some(witnesses) = witnesses {
            server.tasks.spawn(witnesses.run(Arc::clone(&server.store), server.stop.clone()));
        }
        if let Some(database) = config.storage.path {
            server.tasks.spawn(free_disk::measure_free_disk(database, server.stop.clone()));
        }
        let calls = api::router(Arc::clone(&server.vault), Arc::clone(&trust), random, tracer);
        server.tasks.spawn(metrics::upkeep(metrics.clone(), server.stop.clone()));
        let render = move || {
            providers.tell_circuits();
            metrics.render()
        };
        server.spawn((api, ops), trust, limits, calls, render, (reloader, config.audit.checkpoint_interval));
        server.service_manager.ready();
        // After the message above: a service manager does not expect that a process works before it serves.
        let manager = Arc::clone(&server.service_manager);
        server.tasks.spawn(manager.tell_alive(Arc::clone(&server.vault), Arc::clone(&server.store), server.stop.clone()));
        Ok(server)
    }

    fn spawn(
        &self,
        (api, ops): (TcpListener, TcpListener),
        trust: Arc<Trust>,
        (limits, may_freeze): (ConnectionLimits, MayFreeze),
        calls: Router,
        render: impl Fn() -> String + Send + Sync + 'static,
        (reloader, checkpoint_interval): (Reloader, Duration),
    ) {
        let vault = Arc::clone(&self.vault);
        trust.observe_refusals(Arc::new(move |RefusedCertificate { certificate, description, reason, request_id }| {
            let request_id = (!request_id.is_empty()).then(|| request_id.to_owned());
            vault.client_refused(ClientRefusal { certificate, description, reason, request_id });
        }));
        self.tasks.spawn(serve(api, Arc::clone(&trust), calls, limits.clone(), may_freeze, self.stop.clone()));
        let vault = Arc::clone(&self.vault);
        let render = move || {
            status_metrics::set(&vault.status());
            process_metrics::read();
            render()
        };
        let looks = api::ops::router(Arc::clone(&self.vault), Arc::new(render));
        self.tasks.spawn(serve_ops(ops, trust, looks, limits, self.stop.clone()));
        background::run(&self.vault, checkpoint_interval, &self.tasks, &self.stop);
        let (vault, stop) = (Arc::clone(&self.vault), self.stop.clone());
        self.tasks.spawn(async move {
            let on_change = |change: reload::ReloadedParts| {
                let vault = Arc::clone(&vault);
                let what = format!("{} (policy {})", change.parts.join(", "), change.revision);
                Box::pin(async move { vault.reloaded(&what).await }) as _
            };
            if let Err(error) = reloader.run(stop, on_change).await {
                tracing::error!(%error, "the configuration is no longer reloaded");
            }
        });
    }

    /// Waits for SIGTERM or SIGINT, then shuts down gracefully.
    pub(crate) async fn until_stopped(mut self) -> anyhow::Result<()> {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.service_manager.stopping();
        tracing::info!("stopping: requests in progress are answered, new ones are refused");
        self.vault.drain();
        self.stop.cancel();
        self.tasks.close();
        // Each listener limits its own drain time. The jobs end at once.
        if tokio::time::timeout(Duration::from_secs(25), self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        self.vault.stop().await;
        self.store.close().await;
        if let Some(exporter) = self.exporter {
            exporter.finish().await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// The export of spans, in a task of its own: it ends after the requests, so that it has their spans.
struct SpanExport {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// How long the spans that are left may take at the end of the process.
const LAST_SPANS: Duration = Duration::from_secs(2);

impl SpanExport {
    async fn finish(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(LAST_SPANS, self.task).await;
    }
}

/// Starts the export of spans, if it is configured.
fn start_tracing(config: &Config, random: &Arc<dyn Random>) -> Option<(Arc<Tracer>, SpanExport)> {
    let options = config.traces.clone()?;
    let source = TraceSource {
        vault: config.vault.id.to_string(),
        instance: config.vault.instance().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let (tracer, exporter) = Exporter::new(options, source, clock(), Arc::clone(random));
    let stop = CancellationToken::new();
    Some((tracer, SpanExport { task: tokio::spawn(exporter.run(stop.clone())), stop }))
}

/// Registers the first wrapper key of an empty store. If the KMS does not answer or does not permit it, a background task retries, and calls
/// are refused until it succeeds.
///
/// # Errors
/// A mistake in the configuration, without which the vault could use no key.
async fn first_wrapper_key(vault: &Vault) -> anyhow::Result<()> {
    match tokio::time::timeout(Duration::from_secs(2), vault.bootstrap()).await {
        Ok(Err(error)) if error.needs_configuration() => Err(anyhow::anyhow!(no_first_wrapper_key(&error))),
        // The vault logs other errors itself.
        Ok(_) => Ok(()),
        Err(_) => {
            tracing::warn!("there is no wrapper key yet: the KMS does not answer; {}", Cure::Time.awaited());
            Ok(())
        }
    }
}

/// The sentence about a first wrapper key that cannot be registered, with the fix.
pub(crate) fn no_first_wrapper_key(error: &VaultError) -> String {
    format!("{}. Fix: {}", error.without_wrapper_key(), api::Problem::of(error, "").remedy)
}

/// Begins a new log if the operator accepts a disagreement, and registers the first wrapper key.
async fn begin(vault: &Vault, rollback: Option<&Rollback>, accept: Accept) -> anyhow::Result<()> {
    if let Some(rollback) = rollback {
        tracing::error!(%rollback, "the operator accepts this store");
        if accept.rollback {
            vault.accept_rollback(rollback).await.map_err(anyhow::Error::from)?;
        }
    }
    first_wrapper_key(vault).await?;
    if rollback.is_some() {
        // From now on, a start compares the store with a checkpoint of the new log.
        vault.make_checkpoint(true).await.map_err(anyhow::Error::from)?;
    }
    Ok(())
}

/// The sinks of a configuration. Nothing is opened yet.
pub(crate) fn open_sinks(config: &Config) -> Sinks {
    let source = LogSource { vault: config.vault.id.to_string(), instance: config.vault.instance().to_owned() };
    let open = config.audit.sinks.iter().map(|SinkConfig { options, target }| (options.clone(), sinks::open(target, &source)));
    Sinks { open: open.collect(), wait: config.audit.sink_wait }
}

/// How the store disagrees with its newest checkpoint or with the high-water mark.
pub(crate) async fn rollback(config: &Config, store: &dyn KeyStore, mark: Option<&HighWaterMark>) -> anyhow::Result<Option<Rollback>> {
    let outside = mark.map(HighWaterMark::read).transpose();
    let outside = outside.map_err(|error| anyhow::anyhow!("[audit] high_water_mark cannot be read: {error}"))?.flatten();
    let compared = compare(store, &config.vault.id, config.vault.instance(), outside.as_deref()).await;
    compared.map_err(anyhow::Error::from)
}

/// The clock of the process. There is one.
#[expect(clippy::disallowed_methods, reason = "here the clock is made that is passed in everywhere else")]
pub(crate) fn clock() -> Clock {
    Arc::new(|| Timestamp::from(std::time::SystemTime::now()))
}

/// The random generator collects timing noise for some tens of milliseconds. This starts it early, so that the first call does not wait.
pub(crate) fn gather_entropy() {
    let begin = || SystemRandom::default().fill(&mut [0; 32]);
    let _ = std::thread::Builder::new().name("entropy".into()).spawn(begin);
}

/// Threads for computations and for files. Heavy computations use at most one for each core. New keys of cheap schemes use them briefly, and
/// wait for them.
const BLOCKING_THREADS: usize = 64;

/// The runtime of a server.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?)
}

/// A listener whose connections have small buffers in the kernel: they count towards the memory limit of a container.
///
/// # Errors
/// The sentence about an address that is in use or not of this machine.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    let fault = |error: std::io::Error| {
        anyhow::anyhow!("cannot listen on {address}: {error}. Stop the program that uses it, or configure another address")
    };
    bind().map_err(fault)
}
