//! `backup` copies the store. `verify-backup` opens every key of such a copy, and changes neither the copy nor the store.

use std::{
    fs::DirBuilder,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    config::Config,
    crypto::{Random, SystemRandom},
    domain::{KeyId, NodeName},
    kms::Providers,
    storage::{KeyStore as _, Mode, copy},
    vault::{BackupKeyResult, Code, Vault, VaultConfig},
};

use super::{
    Failure, Format,
    progress::{Counts, Progress},
};
use crate::server::run::{clock, open_store, runtime};

/// Copy the store to a new file, while the vault serves requests
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The new file. It is complete and contains ciphertext only
    file: PathBuf,
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config).map_err(anyhow::Error::from)?;
    copy(&config.storage.path, &args.file).map_err(anyhow::Error::from)?;
    let bytes = std::fs::metadata(&args.file)?.len();
    match args.output {
        Format::Text => {
            writeln!(std::io::stdout(), "{0} ({bytes} bytes). Verify it with: canton-keyvault verify-backup {0}", args.file.display())?;
        }
        Format::Json => writeln!(std::io::stdout(), "{}", json!({ "file": args.file, "bytes": bytes }))?,
    }
    Ok(())
}

/// Open every key of a backup to verify it. Nothing is imported
#[derive(Debug, Args)]
pub struct VerifyBackupArgs {
    /// The backup. It is not changed
    file: PathBuf,
    /// The configuration of the vault, with access to its wrapper keys
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

/// A key that does not open.
#[derive(Serialize)]
struct FailedKey {
    key_id: KeyId,
    node: NodeName,
    code: Code,
    why: String,
}

#[derive(Default)]
struct BackupReport {
    opened: u64,
    destroyed: u64,
    failed: Vec<FailedKey>,
}

impl BackupReport {
    fn counts(&self, total: u64) -> Counts {
        let failed = u64::try_from(self.failed.len()).unwrap_or(u64::MAX);
        Counts { done: self.opened + self.destroyed, failed, total }
    }
}

pub(super) fn verify_backup(args: &VerifyBackupArgs) -> Result<(), Failure> {
    let mut config = Config::load(&args.config).map_err(anyhow::Error::from)?;
    let copied = TemporaryCopy::new(&args.file)?;
    copy(&args.file, &copied.file).map_err(anyhow::Error::from)?;
    config.storage.path.clone_from(&copied.file);
    let report = runtime()?.block_on(open_all(&config))?;
    let BackupReport { opened, destroyed, failed } = &report;
    match args.output {
        Format::Text => {
            for FailedKey { key_id, node, code, why } in failed {
                writeln!(std::io::stdout(), "{key_id} of {node} does not open: {code}: {why}")?;
            }
            writeln!(std::io::stdout(), "{opened} keys open, {} keys do not open, {destroyed} destroyed keys", failed.len())?;
        }
        Format::Json => {
            writeln!(std::io::stdout(), "{}", json!({ "opened": opened, "destroyed": destroyed, "failed": failed }))?;
        }
    }
    if report.failed.is_empty() { Ok(()) } else { Err(Failure::Other(anyhow::anyhow!("not every key of the backup opens"))) }
}

async fn open_all(config: &Config) -> Result<BackupReport, Failure> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    // The backup of a development store can be verified too.
    let store =
        open_store(config, Mode::Production, false, random.as_ref()).or_else(|_| open_store(config, Mode::Dev, false, random.as_ref()))?;
    let store = Arc::new(store);
    let providers = Arc::new(Providers::new(config.wrapper.clone(), Arc::clone(&random)).map_err(anyhow::Error::from)?);
    let vault = Vault::start(VaultConfig {
        id: config.vault.id.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        store: Arc::clone(&store) as _,
        providers,
        clock: clock(),
        random,
        policy: Arc::new(ArcSwap::from_pointee(config.policy().map_err(anyhow::Error::from)?)),
        cache: config.cache.clone(),
        limits: config.limits.clone(),
        jobs: config.jobs.clone(),
    })
    .await?;
    let total = store.keys_by_state().await.map_err(anyhow::Error::from)?.iter().map(|(_, keys)| keys).sum();
    let (mut report, mut progress) = (BackupReport::default(), Progress::new("verify-backup"));
    let count = |key_id: KeyId, node: &NodeName, result| {
        match result {
            BackupKeyResult::Opens => report.opened += 1,
            BackupKeyResult::Destroyed => report.destroyed += 1,
            BackupKeyResult::Fails(error) => {
                report.failed.push(FailedKey { key_id, node: node.clone(), code: error.code(), why: error.to_string() });
            }
        }
        progress.show(report.counts(total), Instant::now());
    };
    vault.verify_backup(count).await?;
    store.close().await;
    Ok(report)
}

/// A temporary copy beside the backup, deleted at the end. It contains ciphertext only.
struct TemporaryCopy {
    folder: PathBuf,
    file: PathBuf,
}

impl TemporaryCopy {
    fn new(beside: &Path) -> Result<Self, Failure> {
        let name = beside.file_name().map_or_else(|| "copy".into(), |name| name.to_string_lossy().into_owned());
        let folder = beside.with_file_name(format!(".{name}.verify-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| anyhow::anyhow!("{}: {error}", folder.display()))?;
        Ok(Self { file: folder.join("keyvault.db"), folder })
    }
}

impl Drop for TemporaryCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
