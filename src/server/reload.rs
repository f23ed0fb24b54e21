//! Live reload of the configuration and every file that it names. A reload takes effect as a whole or not at all.
//!
//! Contents are compared once a second and on SIGHUP. Times and inodes are not used, so that an edit, a rename and a symlink swap of
//! Kubernetes work alike. If one part is not valid, nothing changes: the fault is logged once, and `keyvault_last_reload_success` is 0.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError},
    domain::{Clock, Policy},
    mtls::{DenyConfig, Expiry, ExpiryKind, FileError, Files, TlsConfig, TlsMaterial, Trust},
};

use super::checks;

/// What a running vault reads from its configuration: the sections as they were at start, and the current trust and policy.
pub struct Live {
    /// As it was at start. `trust` and `policy` hold the reloaded parts.
    pub config: Config,
    /// Certificates, client CAs, revocation lists, deny-list.
    pub trust: Arc<Trust>,
    /// Nodes and grants.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Updates the two while it [runs](Reloader::run).
    pub reloader: Reloader,
}

/// Why a configuration did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file that it names.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadedParts {
    /// The new revision of the policy.
    pub revision: Arc<str>,
    /// Which parts differ: `server-certificate`, `client-cas`, `crl`, `deny`, `policy`.
    pub parts: Vec<&'static str>,
}

/// The result of one comparison of the files.
#[derive(Debug)]
pub enum Look {
    /// Unchanged since the last comparison.
    Same,
    /// Reloaded.
    Changed(ReloadedParts),
    /// Not valid. The previous configuration stays in effect.
    Refused(ReloadError),
}

/// Watches one configuration.
pub struct Reloader {
    file: PathBuf,
    started_with: Config,
    trust: Arc<Trust>,
    policy: Arc<ArcSwap<Policy>>,
    clock: Clock,
    current: Reading,
    refused: Option<[u8; 32]>,
}

/// Loads everything for the first time.
///
/// # Errors
/// [`ReloadError`].
pub fn load(file: &Path, clock: Clock) -> Result<Live, ReloadError> {
    let (reading, files) = Reading::take(file)?;
    let policy = Arc::new(ArcSwap::from_pointee(reading.config.policy()?));
    let trust = Trust::new(TlsMaterial::new(&reading.config.tls, &files, &clock)?, Arc::clone(&clock));
    let config = reading.config.clone();
    let reloader = Reloader {
        file: file.to_owned(),
        started_with: config.clone(),
        trust: Arc::clone(&trust),
        policy: Arc::clone(&policy),
        clock,
        current: reading,
        refused: None,
    };
    Ok(Live { config, trust, policy, reloader })
}

impl Reloader {
    /// Compares once a second and on SIGHUP until `shutdown`, and updates the gauges. Each change is in effect before `on_change` is
    /// awaited: a withdrawal of trust, like a freeze, does not wait for its entry.
    ///
    /// # Errors
    /// If the system does not let us listen for SIGHUP.
    pub async fn run<F>(mut self, shutdown: CancellationToken, mut on_change: F) -> std::io::Result<()>
    where
        F: FnMut(ReloadedParts) -> BoxFuture<'static, ()> + Send,
    {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut seconds = interval(EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut said, mut expiring) = (None, Vec::new());
        self.tell_taken_over();
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = seconds.tick() => false,
                asked = received(&mut hangup) => asked,
            };
            if asked {
                // A signal is always answered with a log line, also if nothing changed.
                (self.refused, said) = (None, None);
            }
            // Small files and a few signature checks: short, but too long for an async thread.
            let mut looking = tokio::task::spawn_blocking(move || (self.look(), self));
            let (look, reloader) = loop {
                tokio::select! {
                    looked = &mut looking => break looked?,
                    // A change that is in effect by now gets its entry. A disk that does not answer is not waited for.
                    () = shutdown.cancelled() => match timeout(GRACE, &mut looking).await {
                        Ok(looked) => break looked?,
                        Err(_) => return Ok(()),
                    },
                    () = sleep(SLOW) => {
                        metrics::gauge!("keyvault_last_reload_success").set(0.0);
                        tracing::error!(seconds = SLOW.as_secs(), "the files of the configuration cannot be read in time: \
                            changes do not take effect until the disk or network file system answers");
                    }
                }
            };
            self = reloader;
            match look {
                Look::Same if self.refused.is_none() => said = None,
                Look::Same => {}
                Look::Changed(change) => {
                    said = None;
                    self.tell_taken_over();
                    tracing::info!(revision = %change.revision, parts = ?change.parts, "configuration reloaded");
                    for finding in checks::of_settings(&self.current.config, &self.trust) {
                        tracing::warn!(check = finding.check.name, "{}", finding.sentence);
                    }
                    on_change(change).await;
                }
                Look::Refused(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the new configuration is not valid; the previous one stays in effect");
                        said = Some(text);
                    }
                }
            }
            metrics::gauge!("keyvault_last_reload_success").set(if said.is_none() { 1.0 } else { 0.0 });
            tell_expiries(&self.trust, &mut expiring);
        }
    }

    fn tell_taken_over(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285 million years")]
        metrics::gauge!("keyvault_last_reload_timestamp_seconds").set((self.clock)().seconds() as f64);
    }

    /// Compares once, and reloads if the files changed and are valid.
    pub fn look(&mut self) -> Look {
        let (reading, files) = match Reading::take(&self.file) {
            Ok(taken) => taken,
            Err(error) => return Look::Refused(error),
        };
        if reading.digest == self.current.digest {
            self.refused = None;
            return Look::Same;
        }
        if self.refused == Some(reading.digest) {
            return Look::Same;
        }
        match self.take_over(reading, &files) {
            Ok(change) => Look::Changed(change),
            Err((digest, error)) => {
                self.refused = Some(digest);
                Look::Refused(error)
            }
        }
    }

    fn take_over(&mut self, reading: Reading, files: &Files) -> Result<ReloadedParts, ([u8; 32], ReloadError)> {
        let refused = |error| (reading.digest, error);
        let policy = reading.config.policy().map_err(|error| refused(error.into()))?;
        let material = TlsMaterial::new(&reading.config.tls, files, &self.clock).map_err(|error| refused(error.into()))?;
        let restart = self.started_with.needs_restart(&reading.config);
        if !restart.is_empty() && restart != self.started_with.needs_restart(&self.current.config) {
            tracing::warn!(sections = ?restart, "these sections changed; restart the vault to apply them");
        }
        let mut parts = self.current.differing_parts(&reading);
        let revision = Arc::clone(policy.revision());
        if revision != *self.policy.load().revision() {
            parts.push("policy");
        }
        self.trust.replace(material);
        self.policy.store(Arc::new(policy));
        self.current = reading;
        self.refused = None;
        Ok(ReloadedParts { revision, parts })
    }
}

/// A configuration, with the digest of the files that it names.
struct Reading {
    config: Config,
    digest: [u8; 32],
    files: Vec<(PathBuf, [u8; 32])>,
}

impl Reading {
    fn take(file: &Path) -> Result<(Self, Files), ReloadError> {
        let text = Files::read(std::iter::once(file))?;
        let utf8 = std::str::from_utf8(text.bytes(file)).map_err(|error| FileError::new(file, error))?;
        let config = Config::parse(utf8, file)?;
        let files = Files::read(std::iter::once(file).chain(config.tls.files()))?;
        if files.bytes(file) != text.bytes(file) {
            return Err(FileError::new(file, "changed while it was read; it is read again in a moment").into());
        }
        Ok((Self { digest: files.digest(), files: files.digests(), config }, files))
    }

    fn differing_parts(&self, new: &Self) -> Vec<&'static str> {
        PARTS.iter().filter(|(_, part)| self.part(*part) != new.part(*part)).map(|(name, _)| *name).collect()
    }

    /// The contents of the files of one part, and its options.
    fn part(&self, part: fn(&TlsConfig) -> (Vec<&Path>, String)) -> (Vec<[u8; 32]>, String) {
        let (paths, said) = part(&self.config.tls);
        let digest = |path: &Path| self.files.iter().find(|(file, _)| file == path).map_or([0; 32], |(_, digest)| *digest);
        (paths.into_iter().map(digest).collect(), said)
    }
}

/// The files and options of one part of `[tls]`.
type Part = fn(&TlsConfig) -> (Vec<&Path>, String);

const PARTS: &[(&str, Part)] = &[
    ("server-certificate", |tls| (vec![tls.certificate.as_path(), tls.key.as_path()], format!("{:?}", tls.min_version))),
    ("client-cas", |tls| {
        let said = tls.client_cas.iter().map(|ca| (&ca.trust_domains, &ca.dns)).collect::<Vec<_>>();
        (tls.client_cas.iter().map(|ca| ca.file.as_path()).collect(), format!("{said:?}"))
    }),
    ("crl", |tls| {
        let said = tls.client_cas.iter().map(|ca| ca.crl.len()).collect::<Vec<_>>();
        (tls.client_cas.iter().flat_map(|ca| &ca.crl).map(PathBuf::as_path).collect(), format!("{said:?}"))
    }),
    ("deny", |tls| match &tls.deny {
        DenyConfig::File(file) => (vec![file.as_path()], String::new()),
        DenyConfig::Entries(entries) => (vec![], format!("{entries:?}")),
    }),
];

async fn received(signal: &mut Signal) -> bool {
    match signal.recv().await {
        Some(()) => true,
        None => std::future::pending().await,
    }
}

/// Updates the gauges, and logs once when something has expired or will expire soon.
fn tell_expiries(trust: &Trust, told: &mut Vec<(ExpiryKind, bool)>) {
    for expiry in trust.expiries() {
        let Expiry { kind, seconds, .. } = expiry;
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285 million years")]
        metrics::gauge!("keyvault_certificate_expiry_seconds", "kind" => kind.as_str()).set(seconds as f64);
        let expired = seconds <= 0;
        match checks::of_expiry(&expiry) {
            None => told.retain(|(of, _)| *of != kind),
            Some(finding) if !told.contains(&(kind, expired)) => {
                told.push((kind, expired));
                let check = finding.check.name;
                if expired {
                    tracing::error!(check, "{}", finding.sentence);
                } else {
                    tracing::warn!(check, "{}", finding.sentence);
                }
            }
            Some(_) => {}
        }
    }
}

const EVERY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the comparison that runs.
const GRACE: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(30);
