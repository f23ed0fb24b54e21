//! `verify-backup`: opens every key of a backup, and reports what it found and the KMS calls that it made. It changes no file that exists.

mod private_copy;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use clap::Args;

use crate::{
    config::Config,
    crypto::{Random, SystemRandom},
    kms::Providers,
    storage::{KeyRows, KeyStore as _, backup_head},
    vault::{BackupKeyResult, Code, MINIMUM_RETENTION, Sinks, Vault, VaultConfig},
};

use self::{
    private_copy::PrivateCopy,
    report::{FailedKey, LogComparison, Report},
};
use super::{Failure, Format, instance::InstanceArgs, progress::Progress};
use crate::server::{
    high_water_mark::HighWaterMark,
    run::{clock, rollback, runtime},
    store::open_sqlite,
};

/// Open every key of a backup to verify it. Nothing is imported
#[derive(Debug, Args)]
pub struct VerifyBackupArgs {
    /// The backup. It is not changed
    file: PathBuf,
    /// The configuration of the vault, with access to its wrapper keys
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The longest time for the whole verification. The report then has the keys so far
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Output format
    #[arg(long, env = "KEYVAULT_OUTPUT", value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

/// How long a verification that is ended waits for its calls of the KMS to be given up.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The report while the work goes on. It is printed even if the work does not end.
type SharedReport = Arc<Mutex<Report>>;

pub(super) fn verify_backup(args: &VerifyBackupArgs) -> Result<(), Failure> {
    let config = args.instance.load(&args.config).map_err(anyhow::Error::from)?;
    let report = Arc::new(Mutex::new(Report::new(&args.file, clock()())));
    let copied = PrivateCopy::beside(&args.file)?;
    let runtime = runtime()?;
    let worked = runtime.block_on(async {
        let mut work = tokio::spawn(verify(config, args.file.clone(), copied.file().to_owned(), Arc::clone(&report)));
        let ended = tokio::select! {
            worked = &mut work => worked.unwrap_or_else(|stopped| Err(anyhow::anyhow!("the verification was interrupted: {stopped}").into())),
            () = tokio::time::sleep(args.timeout) => Err(anyhow::anyhow!(
                "the verification did not end within {}. Allow more with --timeout, if the backup is yours",
                humantime::format_duration(args.timeout)
            ).into()),
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted("the verification was interrupted. The report has the keys so far".into())),
        };
        // A call of the KMS in progress is in the report.
        if !work.is_finished() {
            work.abort();
            let _ = tokio::time::timeout(LAST_CALLS, work).await;
        }
        ended
    });
    // A read of a hostile file or a call that hangs ends with the process.
    runtime.shutdown_background();
    drop(copied);
    let mut report = locked(&report);
    report.end(clock()(), worked.is_ok());
    report.print(args.output)?;
    worked?;
    if report.is_good() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("not every key of the backup opens, or its audit log is not that of the checkpoints").into())
    }
}

async fn verify(config: Config, file: PathBuf, copied: PathBuf, report: SharedReport) -> Result<(), Failure> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let (reads, source, for_store) = (Arc::clone(&report), Arc::clone(&random), config.clone());
    // These reads may take long and cannot be cancelled.
    let store = tokio::task::spawn_blocking(move || {
        let fingerprint = private_copy::copy(&file, &copied)?;
        locked(&reads).file = Some(fingerprint);
        let head = backup_head(&copied).map_err(|error| of_file(error, &copied, &file))?;
        let mode = head.mode;
        locked(&reads).head = Some(head);
        open_sqlite(&for_store, &copied, mode, false, source.as_ref()).map_err(|error| of_file(error, &copied, &file))
    });
    let store = Arc::new(store.await.map_err(|stopped| anyhow::anyhow!("the backup cannot be read: {stopped}"))??);
    let mark = config.audit.high_water_mark.clone().map(HighWaterMark::new);
    let rollback = rollback(&config, store.as_ref(), mark.as_ref()).await?;
    locked(&report).log = Some(LogComparison::of(rollback.as_ref()));
    let providers = Arc::new(Providers::new(config.wrapper.clone(), Arc::clone(&random)).map_err(anyhow::Error::from)?);
    providers.calls().keep_all();
    locked(&report).kms_calls = Some(Arc::clone(providers.calls()));
    let vault = Vault::start(VaultConfig {
        id: config.vault.id.clone(),
        instance: config.vault.instance().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        store: Arc::clone(&store) as _,
        providers,
        clock: clock(),
        random,
        policy: Arc::new(ArcSwap::from_pointee(config.policy().map_err(anyhow::Error::from)?)),
        cache: config.cache.clone(),
        limits: config.limits.clone(),
        jobs: config.jobs.clone(),
        checkpoint_sinks: Vec::new(),
        sinks: Sinks::default(),
        minimum_retention: MINIMUM_RETENTION,
        tracer: None,
    })
    .await?;
    let rows = store.key_rows().await.map_err(anyhow::Error::from)?;
    open_all(&vault, rows, &report).await;
    store.close().await;
    Ok(())
}

/// Opens every key that the table or the log has. A row that cannot be read, and a key without a row, is a failure.
async fn open_all(vault: &Vault, rows: KeyRows, report: &SharedReport) {
    let KeyRows { ids, unreadable, missing } = rows;
    let mut progress = Progress::new("verify-backup");
    {
        let mut report = locked(report);
        report.missing = missing.len() as u64;
        let lost = "the audit log knows this key, but the backup has no row of it";
        report.failed.extend(unreadable.into_iter().map(|why| FailedKey { key_id: None, node: None, code: Code::KeyQuarantined, why }));
        let missing = missing.into_iter().map(|id| FailedKey { key_id: Some(id), node: None, code: Code::NotFound, why: lost.into() });
        report.failed.extend(missing);
    }
    for id in ids {
        let verified = vault.verify_backup_key(id).await;
        let mut report = locked(report);
        match verified.result {
            BackupKeyResult::Opens => report.opened += 1,
            BackupKeyResult::Destroyed => report.destroyed += 1,
            BackupKeyResult::Fails { code, why } => report.failed.push(FailedKey { key_id: Some(id), node: verified.node, code, why }),
        }
        progress.show(report.counts(), Instant::now());
    }
}

/// The error about the private copy, as one about the backup.
fn of_file(error: impl Into<anyhow::Error>, copied: &Path, file: &Path) -> anyhow::Error {
    let text = format!("{:#}", error.into()).replace(&copied.display().to_string(), &file.display().to_string());
    let file = file.display().to_string();
    if text.contains(&file) { anyhow::anyhow!("{text}") } else { anyhow::anyhow!("{file}: {text}") }
}

fn locked(report: &SharedReport) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
