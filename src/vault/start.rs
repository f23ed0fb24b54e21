//! Start and stop of a vault.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::{
    crypto::Random,
    domain::{AuditEvent, Clock, Hex, Operation, Policy, REPLICA, VaultId},
    kms::Providers,
    sinks::{EntrySink, SinkOptions},
    storage::KeyStore,
    traces::Tracer,
};

use super::{
    CacheConfig, CheckpointSink, ClientRefusal, JobsConfig, LimitsConfig, Vault, VaultError,
    audit_access::policy_digest,
    audit_gate::AuditGate,
    background::{Background, Deliveries, Delivery, is_required},
    checkpoints::Checkpoints,
    detached::DetachedCalls,
    environment::Environment,
    job_tracker::JobTracker,
    key_cache::KeyCache,
    keys::KeyLifecycle,
    limits::Limits,
    operation_histograms::OperationHistograms,
    sink_states::SinkStates,
    wrapper_keys::WrapperKeys,
};

/// How long a stop waits for the last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(3);

/// What a vault is made of.
pub struct VaultConfig {
    /// The id of the vault. Every ciphertext is bound to it.
    pub id: VaultId,
    /// The process, as in the entries. It is a part of the name of the log.
    pub instance: String,
    /// The version of the program.
    pub version: String,
    /// The store of keys and of the audit log.
    pub store: Arc<dyn KeyStore>,
    /// The KMS providers.
    pub providers: Arc<Providers>,
    /// The clock.
    pub clock: Clock,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
    /// The policy. Replaced when the configuration is reloaded.
    pub policy: Arc<ArcSwap<Policy>>,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[jobs]`.
    pub jobs: JobsConfig,
    /// Where checkpoints of the log are published.
    pub checkpoint_sinks: Vec<Arc<dyn CheckpointSink>>,
    /// `[[audit.sinks]]`.
    pub sinks: Sinks,
    /// `[audit] minimum_retention`: how long entries are kept in any case.
    pub minimum_retention: Duration,
    /// `[traces]`, for background work.
    pub tracer: Option<Arc<Tracer>>,
}

/// The sinks of the audit log.
#[derive(Default)]
pub struct Sinks {
    /// The options of each sink, and the sink.
    pub open: Vec<(SinkOptions, Box<dyn EntrySink>)>,
    /// How long an answer waits for the required ones.
    pub wait: Duration,
}

impl Vault {
    /// Starts a vault: reads whether it is frozen, and writes the entry of the start. Needs the store, but no KMS.
    ///
    /// # Errors
    /// `StorageUnavailable` or `AuditUnavailable`.
    pub async fn start(config: VaultConfig) -> Result<Arc<Self>, VaultError> {
        let VaultConfig {
            id,
            instance,
            version,
            store,
            providers,
            clock,
            random,
            policy,
            cache,
            limits,
            jobs,
            checkpoint_sinks,
            sinks,
            minimum_retention,
            tracer,
        } = config;
        let (frozen, hash_key) = (store.state().await?.frozen, store.idempotency_hash_key().await?);
        let kms_calls = Arc::clone(providers.calls());
        let env = Arc::new(Environment { vault_id: id, store, clock, random, kms_calls, tracer });
        let Sinks { open: sinks, wait } = sinks;
        let states = sinks.iter().map(|(options, _)| (options.name.clone(), is_required(options)));
        let states = Arc::new(SinkStates::new(states, wait));
        let deliveries: Deliveries = sinks
            .into_iter()
            .enumerate()
            .filter_map(|(place, (options, sink))| Some(Mutex::new(Delivery::new(options, sink, states.at(place)?))))
            .collect();
        let gate = Arc::new(AuditGate::new(Arc::clone(&env), policy, limits.refusals_per_second, frozen, hash_key, states));
        let wrapper_keys = Arc::new(WrapperKeys::new(Arc::clone(&env), Arc::clone(&gate), providers));
        let key_cache = Arc::new(KeyCache::new(Arc::clone(&env), Arc::clone(&gate), Arc::clone(&wrapper_keys), &cache));
        let key_lifecycle =
            Arc::new(KeyLifecycle::new(Arc::clone(&env), Arc::clone(&gate), Arc::clone(&wrapper_keys), Arc::clone(&key_cache)));
        let job_tracker = Arc::new(JobTracker::new());
        let background = Background::new(
            Arc::clone(&env),
            Arc::clone(&gate),
            Arc::clone(&wrapper_keys),
            Arc::clone(&key_cache),
            Arc::clone(&key_lifecycle),
            Arc::clone(&job_tracker),
            deliveries,
            &jobs,
        );
        let vault = Arc::new(Self {
            version,
            env,
            gate,
            wrapper_keys,
            key_cache,
            key_lifecycle,
            checkpoints: Checkpoints::new(instance, checkpoint_sinks),
            job_tracker,
            limits: Limits::new(limits),
            background,
            detached_calls: DetachedCalls::default(),
            execution_seconds: OperationHistograms::new(1),
            minimum_retention,
        });
        let states = [frozen.then_some("frozen"), vault.env.store.replication().map(|_| REPLICA)];
        let states = states.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let event = AuditEvent { subject: Some(states).filter(|states| !states.is_empty()), ..vault.gate.system_event(Operation::Start) };
        let digest = vault.keep_policy().await?;
        vault.gate.record(AuditEvent { digest: Some(digest), ..event }).await?;
        Ok(vault)
    }

    /// Refuses new calls, completes the calls that change state, wipes every open key, and writes the entry of the stop.
    pub async fn stop(&self) {
        self.gate.stop();
        self.detached_calls.wait().await;
        self.key_cache.evict_all().await;
        self.gate.write_counted_refusals(true).await;
        self.gate.write_loose_kms_calls(true).await;
        if let Err(error) = self.gate.record(self.gate.system_event(Operation::Stop)).await {
            tracing::warn!(%error, "the audit entry of the stop could not be written");
            return;
        }
        // A vault that has not signed a checkpoint yet needs its KMS for the first one. The end does not wait for that.
        match tokio::time::timeout(LAST_CHECKPOINT, self.make_checkpoint(false)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last checkpoint of the audit log could not be made"),
            Err(_) => tracing::warn!("the last checkpoint of the audit log was not made in time"),
        }
        self.background.send_last_entries().await;
    }

    /// Records that a client was not admitted. Its entry follows within a second or two, and is one of a bounded number.
    pub fn client_refused(&self, refused: ClientRefusal) {
        self.gate.client_refused(refused);
    }

    /// Refuses new calls from now on. Calls in progress are completed.
    pub fn drain(&self) {
        self.gate.stop();
    }

    /// Stores the text of the policy in force, before an entry states its digest.
    async fn keep_policy(&self) -> Result<[u8; 32], VaultError> {
        let (digest, text) = policy_digest(&self.gate.policy());
        self.env.store.store_policy(&Hex(&digest).to_string(), &text).await?;
        Ok(digest)
    }

    /// Writes the entry of a reload of certificates or grants, which are in force already. `what` names them.
    pub async fn reloaded(&self, what: &str) {
        let event = AuditEvent { subject: Some(what.to_owned()), ..self.gate.system_event(Operation::Reload) };
        let digest = self.keep_policy().await;
        if let Err(error) = &digest {
            tracing::error!(%error, "the text of the policy could not be stored");
        }
        if let Err(error) = self.gate.record(AuditEvent { digest: digest.ok(), ..event }).await {
            tracing::error!(%error, "the audit entry of a reload could not be written");
        }
    }

    /// Registers the wrapper key of the configuration, if the store has no active one.
    ///
    /// # Errors
    /// The error of the KMS or of the commit. A background task retries.
    pub async fn bootstrap(&self) -> Result<(), VaultError> {
        self.wrapper_keys.bootstrap().await
    }

    /// Destroys the keys whose deletion is due. A background task calls it at an interval.
    pub async fn destroy_due(&self) {
        self.background.destroy_due_keys().await;
    }
}
