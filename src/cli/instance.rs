//! `--instance`: the name of one process of a vault, for replicas that share a configuration. The commands that read a configuration have it.

use std::path::Path;

use clap::Args;

use crate::{
    config::{Config, ConfigError},
    domain::VaultId,
};

/// The name of a process.
#[derive(Debug, Args)]
pub(super) struct InstanceArgs {
    /// The name of this process in the audit log, instead of `[vault] instance`: for replicas with one configuration
    #[arg(long, env = "KEYVAULT_INSTANCE")]
    pub(super) instance: Option<VaultId>,
}

impl InstanceArgs {
    /// Reads a configuration as this process uses it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(super) fn load(&self, file: &Path) -> Result<Config, ConfigError> {
        Config::load(file).map(|config| config.for_instance(self.instance.as_ref()))
    }
}
