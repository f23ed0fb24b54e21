//! `backup` copies the store to a new file, while the vault serves requests.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use serde_json::json;

use crate::{config::Config, storage::copy};

use super::{Failure, Format};

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
    match &config.storage.path {
        Some(path) => copy(path, &args.file).map_err(anyhow::Error::from)?,
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
