//! `backup` copies the store to a new file, while the vault serves requests. Progress is on standard error.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use crate::{config::Config, storage::copy};

use super::{
    Failure, Format,
    instance::InstanceArgs,
    progress::{Counts, Progress, Unit},
};

/// The time between two looks at the size of the copy.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Copy the store to a new file, while the vault serves requests
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The new file. It is complete and contains ciphertext only
    file: PathBuf,
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Output format
    #[arg(long, env = "KEYVAULT_OUTPUT", value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let config = args.instance.load(&args.config).map_err(anyhow::Error::from)?;
    match &config.storage.path {
        Some(path) => copy_with_progress(path, &args.file)?,
        None => copy_database(&config, &args.file)?,
    }
    let bytes = std::fs::metadata(&args.file)?.len();
    match args.output {
        Format::Text => {
            writeln!(std::io::stdout(), "{0} ({bytes} bytes). Verify it with: canton-keyvault verify-backup {0}", args.file.display())?;
        }
        Format::Json => writeln!(std::io::stdout(), "{}", json!({ "file": args.file, "bytes": bytes }))?,
    }
    Ok(())
}

/// Copies the store in a thread of its own. The size of the copy, compared with that of the store, is the progress.
fn copy_with_progress(from: &Path, to: &Path) -> Result<(), Failure> {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len().div_ceil(1 << 20));
    let (total, waiting) = (size(from), thread::current());
    thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let copied = copy(from, to);
            waiting.unpark();
            copied
        });
        let mut progress = Progress::of(Unit::Mebibytes, "backup");
        loop {
            thread::park_timeout(LOOK_EVERY);
            if copying.is_finished() {
                break;
            }
            progress.show(Counts { done: size(to).min(total), failed: 0, total }, Instant::now());
        }
        drop(progress);
        let copied = copying.join().map_err(|_| Failure::Unexpected("the thread that copies the store failed".into()))?;
        copied.map_err(|error| anyhow::Error::from(error).into())
    })
}

/// A copy of a store in PostgreSQL in the same format.
#[cfg(feature = "postgresql")]
fn copy_database(config: &Config, to: &std::path::Path) -> anyhow::Result<()> {
    use crate::{
        server::{run::runtime, store::postgres_config},
        storage::{Mode, backup_postgres},
    };
    let options = postgres_config(config, Mode::Production).ok_or_else(|| anyhow::anyhow!("[storage] names no store"))?;
    runtime()?.block_on(backup_postgres(&options, config.vault.instance(), to))?;
    Ok(())
}

#[cfg(not(feature = "postgresql"))]
fn copy_database(_: &Config, _: &std::path::Path) -> anyhow::Result<()> {
    Err(anyhow::anyhow!("[storage] names no store"))
}
