//! `check`: runs the checks that `serve` runs at its start, beside a running vault too, and says what is wrong with the sentences of `serve`.
//! It changes nothing. Each line is `ok`, `FAIL` or `warn`, with the fix.

mod store;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    config::Config,
    crypto::{Random, SystemRandom, envelope},
    domain::{EncryptionContext, PostureLine, PostureStatus, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Providers, Wrapper, WrapperError},
    mtls::{Expiry, Trust},
    sinks::{SinkFault, SinkOptions},
    storage::{Mode, inspect},
    traces::Exporter,
    vault::{VaultError, canary_context, compare_with_configuration},
};

use self::store::FoundStore;
use super::{Failure, Format, instance::InstanceArgs};
use crate::server::{
    checks::{self, CHECKS, Check, Finding, Run, Severity, Step},
    hardening::harden,
    reload,
    run::{clock, listen, no_first_wrapper_key, open_sinks, runtime},
};

/// Check configuration, certificates, storage and KMS permissions
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Write the request ids of the KMS calls to this file, for audit reconcile. A running vault does not know them
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Output format
    #[arg(long, env = "KEYVAULT_OUTPUT", value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

/// One line of the output.
struct Line {
    check: &'static str,
    result: Outcome,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

impl Outcome {
    /// As text output and JSON show it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("ok  ", "ok"),
            Self::Warn => ("warn", "warn"),
            Self::Fail => ("FAIL", "fail"),
        }
    }
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let started_at = clock()();
    let examined = Examined::new(&args.config, &args.instance)?;
    let lines = examined.lines();
    if let Some(path) = &args.report {
        let written = crate::files::replace(path, examined.report(started_at).to_string().as_bytes());
        written.map_err(|error| anyhow::anyhow!("--report {}: {error}", path.display()))?;
    }
    let failed = lines.iter().filter(|line| line.result == Outcome::Fail).count();
    let mut out = std::io::stdout();
    match args.output {
        Format::Text => {
            for Line { check, result, detail } in &lines {
                writeln!(out, "{}  {check}: {detail}", result.words().0)?;
            }
        }
        Format::Json => {
            let line = |Line { check, result, detail }: &Line| json!({ "check": check, "status": result.words().1, "ok": *result != Outcome::Fail, "detail": detail });
            writeln!(out, "{}", serde_json::Value::from(lines.iter().map(line).collect::<Vec<_>>()))?;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Other(anyhow::anyhow!("{failed} of {} checks failed", lines.len()))) }
}

/// What the checks examine. A part that is not valid is missing, and the checks of it are skipped.
struct Examined {
    runtime: Runtime,
    configuration: Result<Config, String>,
    trust: Result<Arc<Trust>, String>,
    providers: Option<Providers>,
    store: FoundStore,
}

impl Examined {
    fn new(file: &Path, instance: &InstanceArgs) -> Result<Self, Failure> {
        let trust = reload::load(file, clock()).map(|live| live.trust).map_err(|error| error.to_string());
        // In the words of `serve`, which reads the file as a reload does.
        let mut configuration = instance.load(file).map_err(|error| trust.as_ref().err().cloned().unwrap_or_else(|| error.to_string()));
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let providers = configuration.as_ref().ok().map(|config| Providers::new(config.wrapper.clone(), random));
        let providers = match providers.transpose() {
            Ok(providers) => {
                if let Some(providers) = &providers {
                    providers.calls().keep_all();
                }
                providers
            }
            Err(error) => {
                configuration = Err(error.to_string());
                None
            }
        };
        let runtime = runtime()?;
        let store = configuration.as_ref().map_or_else(|_| FoundStore::default(), |config| FoundStore::of(config, &runtime));
        Ok(Self { runtime, configuration, trust, providers, store })
    }

    /// The KMS calls, in the form that `audit reconcile --report` reads.
    fn report(&self, started_at: Timestamp) -> serde_json::Value {
        let ids: Vec<String> = self.providers.iter().flat_map(|providers| providers.calls().take_kept()).collect();
        json!({ "kind": "check", "started_at": started_at, "finished_at": clock()(), "kms_request_ids": ids })
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let Ok(config) = &self.configuration else {
            let detail = self.configuration.as_ref().err().cloned().unwrap_or_default();
            return vec![Line { check: "configuration", result: Outcome::Fail, detail }];
        };
        let mut findings = checks::of_machine(config);
        if let Ok(trust) = &self.trust {
            findings.extend(checks::of_settings(config, trust));
            findings.extend(trust.expiries().into_iter().filter_map(|expiry| checks::of_expiry(&expiry)));
        }
        if let (Some(providers), Some(facts)) = (&self.providers, &self.store.facts) {
            findings.extend(checks::of_store(providers, facts, clock()()));
        }
        for check in CHECKS {
            match (check.run, &self.trust) {
                (Run::Step(step, _), _) => lines.extend(self.step(check, step, config)),
                (Run::Settings(_) | Run::Expiry(_), Err(_)) => {}
                (Run::Store(_), _) if self.store.facts.is_none() => {}
                (Run::Settings(_) | Run::Expiry(_) | Run::Machine(_) | Run::Store(_), _) => lines.extend(of_findings(check, &findings)),
            }
        }
        lines
    }

    /// The lines of a step of the start.
    fn step(&self, check: &'static Check, step: Step, config: &Config) -> Vec<Line> {
        let line = |result: Result<String, String>| {
            let fault = if check.severity == Severity::Warn { Outcome::Warn } else { Outcome::Fail };
            let (result, detail) = result.map_or_else(|detail| (fault, detail), |detail| (Outcome::Ok, detail));
            Line { check: check.name, result, detail }
        };
        let one = |result| vec![line(result)];
        match step {
            Step::Configuration => one(Ok(format!("{} nodes, {} grants", config.nodes.len(), config.grants.len()))),
            Step::Certificates => one(self.trust.as_ref().map(|trust| validity(trust)).map_err(Clone::clone)),
            Step::Memory => one(harden(&config.memory).map(|hardening| hardening.to_string()).map_err(|error| error.to_string())),
            Step::Storage => one(self.storage(config)),
            Step::Listen => [config.listen.api, config.listen.ops].into_iter().map(|address| line(self.listen(address))).collect(),
            Step::KmsServers => {
                let servers = self.providers.as_ref().map(|providers| self.runtime.block_on(providers.check_servers()));
                servers.unwrap_or_default().into_iter().map(line).collect()
            }
            Step::FirstWrapperKey => one(match self.active() {
                Some(active) => Ok(format!("the active wrapper key is {}", active.id)),
                None => self.runtime.block_on(self.first_wrapper_key(config)),
            }),
            Step::RegisteredWrapperKeys => {
                let used = self.store.facts.iter().flat_map(|facts| facts.wrapper_keys.iter().zip(&facts.keys));
                let used = used.filter(|(key, _)| key.state != WrapperState::Retired);
                used.map(|(key, keys)| line(self.runtime.block_on(self.registered(config, key, *keys)))).collect()
            }
            Step::WrapperKeyPosture => {
                let used = self.store.facts.iter().flat_map(|facts| &facts.wrapper_keys).filter(|key| key.state != WrapperState::Retired);
                used.flat_map(|key| self.runtime.block_on(self.posture(check.name, config, key))).collect()
            }
            Step::AuditSinks => self.runtime.block_on(try_sinks(config)).into_iter().map(line).collect(),
            Step::TraceCollector => {
                let tried = config.traces.as_ref().map(|traces| self.runtime.block_on(Exporter::probe(traces)));
                tried.into_iter().map(line).collect()
            }
            Step::ConfiguredWrapperKey => match (self.active(), &self.providers) {
                (Some(active), Some(providers)) => one(match self.runtime.block_on(compare_with_configuration(providers, active)) {
                    Ok(None) => Ok("[wrapper] reference names the active wrapper key".to_owned()),
                    Ok(Some(sentence)) => Err(sentence),
                    Err(error) => Err(format!("the wrapper key of the configuration cannot be compared with the active one: {error}")),
                }),
                _ => Vec::new(),
            },
        }
    }

    fn active(&self) -> Option<&WrapperKey> {
        self.store.facts.as_ref()?.wrapper_keys.iter().find(|key| key.state == WrapperState::Active)
    }

    fn storage(&self, config: &Config) -> Result<String, String> {
        let Some(path) = &config.storage.path else { return self.store.database.clone() };
        if !path.exists() {
            return Ok(format!("{} will be created at the first start", path.display()));
        }
        let found = inspect(path, &config.vault.id, Mode::Production).map_err(|error| error.to_string())?;
        if let Some(damage) = found.damage.first() {
            return Err(format!("{} is damaged ({damage}). Restore a backup", path.display()));
        }
        let in_use = if self.store.in_use { "; a vault uses it now" } else { "" };
        Ok(format!("{} keys in {}{in_use}", found.keys, path.display()))
    }

    /// Listens for a moment.
    fn listen(&self, address: std::net::SocketAddr) -> Result<String, String> {
        match self.runtime.block_on(async { listen(address) }) {
            Ok(_) => Ok(format!("{address} is free")),
            Err(_) if self.store.in_use => Ok(format!("{address} is in use. A vault uses the database now, and this may be its address")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The configured wrapper key wraps and unwraps with the permissions of this process.
    async fn first_wrapper_key(&self, config: &Config) -> Result<String, String> {
        let Some(providers) = &self.providers else { return Err("[wrapper] is not valid".to_owned()) };
        let sentence = |error: WrapperError| no_first_wrapper_key(&VaultError::Wrapper(error));
        let found = providers.resolve(config.wrapper.provider, &config.wrapper.reference, &[]).await.map_err(sentence)?;
        let key = WrapperKey {
            id: WrapperKeyId::from_random([0; 6]),
            name: None,
            provider: config.wrapper.provider,
            identity: found.identity.clone(),
            reference: found.reference,
            regions: found.regions,
            state: WrapperState::Standby,
            canary: Vec::new(),
            created_at: Timestamp::from_micros(0),
        };
        let connected = providers.connect(&key).await.map_err(sentence)?;
        let tried = round_trip(connected.as_ref(), config, key.provider).await;
        tried.map_err(|(error, permission)| format!("{}. Required permission: {permission}", sentence(error)))?;
        Ok(format!("{} wraps and unwraps", found.identity))
    }

    /// A registered wrapper key opens its canary, and the configuration allows it. The active one also wraps.
    async fn registered(&self, config: &Config, key: &WrapperKey, keys: u64) -> Result<String, String> {
        let Some(providers) = &self.providers else { return Err("[wrapper] is not valid".to_owned()) };
        let sentence = |error: WrapperError| error.of_registered();
        let wrapper = providers.connect(key).await.map_err(sentence)?;
        wrapper.unwrap(&key.canary, &canary_context(&config.vault.id, key.id)).await.map_err(sentence)?;
        if key.state == WrapperState::Active {
            let tried = round_trip(wrapper.as_ref(), config, key.provider).await;
            tried.map_err(|(error, permission)| format!("{}. Required permission: {permission}", sentence(error)))?;
        }
        Ok(format!("{} ({}, {}) opens its canary; {keys} keys have a wrap under it", key.id, key.identity, key.state))
    }

    /// What is not ok in the posture of a wrapper key, or one line that all is. A KMS that does not answer is a fault of another check.
    async fn posture(&self, check: &'static str, config: &Config, key: &WrapperKey) -> Vec<Line> {
        let Some(providers) = &self.providers else { return Vec::new() };
        let found = match providers.connect(key).await {
            Ok(wrapper) => wrapper.posture(&config.vault.id).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(lines) if lines.iter().all(|line| line.status == PostureStatus::Ok) => {
                let detail = format!("{}: all {} lines of its posture are ok", key.id, lines.len());
                vec![Line { check, result: Outcome::Ok, detail }]
            }
            Ok(lines) => lines.iter().filter(|line| line.status != PostureStatus::Ok).map(|line| of_posture(check, key.id, line)).collect(),
            Err(error) => {
                vec![Line { check, result: Outcome::Warn, detail: format!("{} is not assessed: {}", key.id, error.with_remedy()) }]
            }
        }
    }
}

/// A line of a posture as a line of `check`.
fn of_posture(check: &'static str, id: WrapperKeyId, line: &PostureLine) -> Line {
    let result = match line.status {
        PostureStatus::Ok => Outcome::Ok,
        PostureStatus::Warning => Outcome::Warn,
        PostureStatus::Fail => Outcome::Fail,
    };
    let region = line.region.as_ref().map_or_else(String::new, |region| format!(" in {region}"));
    let remedy = line.remedy.as_ref().map_or_else(String::new, |remedy| format!(". Fix: {remedy}"));
    Line { check, result, detail: format!("{id} {}{region}: {}{remedy}", line.subject, line.detail) }
}

/// The faults of a check, or what it examined.
fn of_findings(check: &'static Check, findings: &[Finding]) -> Vec<Line> {
    let result = if check.severity == Severity::Warn { Outcome::Warn } else { Outcome::Fail };
    let faults = findings.iter().filter(|finding| finding.check.name == check.name);
    let lines = faults.map(|finding| Line { check: check.name, result, detail: finding.sentence.clone() }).collect::<Vec<_>>();
    if lines.is_empty() { vec![Line { check: check.name, result: Outcome::Ok, detail: check.examines.to_owned() }] } else { lines }
}

/// Tries every audit sink without sending an entry, each within the time of one attempt.
async fn try_sinks(config: &Config) -> Vec<Result<String, String>> {
    let mut tried = Vec::new();
    for (SinkOptions { name, timeout, .. }, mut sink) in open_sinks(config).open {
        let found = tokio::time::timeout(timeout, sink.probe()).await.unwrap_or(Err(SinkFault::TimedOut(timeout)));
        tried.push(found.map(|found| format!("{name}: {found}")).map_err(|fault| format!("{name}: {fault}")));
    }
    tried
}

/// How long certificates and revocation lists are valid.
fn validity(trust: &Trust) -> String {
    let shown = |expiry: Expiry| format!("{} valid for {}", expiry.kind.as_str(), checks::time_left(expiry.seconds));
    trust.expiries().into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Wraps and unwraps a random value. The error has the permission in the KMS that the failed call needs.
async fn round_trip(wrapper: &dyn Wrapper, config: &Config, provider: ProviderKind) -> Result<(), (WrapperError, &'static str)> {
    let context = EncryptionContext::new(vec![("version", "1".into()), ("vault", config.vault.id.to_string()), ("canary", "check".into())]);
    // The names of the permissions in the KMS.
    let (wraps, unwraps) = match provider {
        ProviderKind::Local => ("read the file", "read the file"),
        ProviderKind::AwsKms => ("kms:Encrypt", "kms:Decrypt"),
        ProviderKind::OpenbaoTransit => ("read of keys/, update of encrypt/", "update of decrypt/"),
        ProviderKind::Pkcs11 => ("CKA_ENCRYPT", "CKA_DECRYPT"),
        ProviderKind::GcpKms => {
            ("cloudkms.cryptoKeys.get, cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt")
        }
        ProviderKind::AzureKeyVault => ("keys/get, keys/wrapKey (Managed HSM: keys/encrypt)", "keys/unwrapKey (Managed HSM: keys/decrypt)"),
    };
    let unusable = |what: &str| WrapperError::Misconfigured { reference: provider.to_string(), what: what.to_owned() };
    let data_key = envelope::new_data_key(&SystemRandom::default()).map_err(|error| (unusable(&error.to_string()), wraps))?;
    let made = wrapper.wrap(&data_key, &context).await.map_err(|error| (error, wraps))?;
    let unwrapped = wrapper.unwrap(&made.bytes, &context).await.map_err(|error| (error, unwraps))?;
    if unwrapped.data_key.same(&data_key) { Ok(()) } else { Err((unusable("it unwrapped another data key"), unwraps)) }
}
