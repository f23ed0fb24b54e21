//! The options of every command that calls a vault: its address, the client certificate, the output format.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Failure, input::NewFile, profile::ProfileArgs};
use crate::client::{Answer, Client, ClientError, ConnectOptions, Endpoint, Endpoints};

/// The options of a call: address, client certificate, output format.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// URL of the vault, https://host:port. Several, repeated or separated by commas: the first one that works is used
    #[arg(
        long = "url",
        env = "KEYVAULT_URL",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "https://127.0.0.1:8443",
        global = true,
        help_heading = "Connection"
    )]
    pub urls: Vec<String>,
    /// PEM file of the certificate authority of the vault's server certificate
    #[arg(long, env = "KEYVAULT_CA", value_name = "FILE", global = true, help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate
    #[arg(long, env = "KEYVAULT_CERT", value_name = "FILE", global = true, help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// PEM file of the client certificate's private key
    #[arg(long, env = "KEYVAULT_KEY", value_name = "FILE", global = true, help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// The profile that supplies what is not given.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// How long to wait for the answer of each URL
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = humantime::parse_duration, global = true, help_heading = "Connection")]
    pub timeout: Duration,
    /// How to print results and errors
    #[arg(long, env = "KEYVAULT_OUTPUT", value_enum, default_value_t = Format::Text, global = true)]
    pub output: Format,
    /// Print tables with all columns and whole values, however wide
    #[arg(long, global = true)]
    pub wide: bool,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    #[value(alias = "table")]
    Text,
    /// JSON for programs
    Json,
}

impl ConnectionArgs {
    /// The URLs that the options name, with the certificate to use there.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for a flag that is missing or does not fit.
    pub fn endpoints(&self) -> Result<Endpoints, ClientError> {
        let given = |path: &Option<PathBuf>, flag: &str, variable: &str| {
            path.clone().ok_or_else(|| ClientError::Usage(format!("say {flag} FILE, or set {variable}")))
        };
        let mut urls = self.urls.iter().map(|url| url.trim());
        let preferred = Endpoint::new(&ConnectOptions {
            url: urls.next().unwrap_or_default().to_owned(),
            ca: given(&self.ca, "--ca", "KEYVAULT_CA")?,
            cert: given(&self.cert, "--cert", "KEYVAULT_CERT")?,
            key: given(&self.key, "--key", "KEYVAULT_KEY")?,
        })?;
        let others = urls.map(|url| preferred.at(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Endpoints::new(preferred, others))
    }

    /// A client of the vault, and its output.
    ///
    /// # Errors
    /// As [`ConnectionArgs::endpoints`].
    pub(super) fn remote(&self) -> Result<Remote, ClientError> {
        Ok(Remote { client: Client::of(self.endpoints()?, self.timeout), format: self.output, wide: self.wide })
    }
}

/// What a client command needs.
pub(super) struct Remote {
    /// The client of the vault.
    pub(super) client: Client,
    /// The output.
    pub(super) format: Format,
    /// Whether tables are not fitted to the terminal.
    pub(super) wide: bool,
}

impl Remote {
    /// Writes a secret to its file or to standard output: as raw bytes, or the whole answer if JSON was requested.
    pub(super) fn write_secret(&self, answer: &Answer, out: NewFile, secret: &[u8]) -> Result<(), Failure> {
        let as_json = out.is_standard() && self.format == Format::Json;
        let path = out.finish(if as_json { &answer.body } else { secret })?;
        self.written(path, secret.len())
    }

    /// Reports which file was written.
    pub(super) fn written(&self, path: Option<PathBuf>, bytes: usize) -> Result<(), Failure> {
        path.map_or(Ok(()), |path| self.print(&json!({ "file": path.to_string_lossy(), "bytes": bytes })))
    }
}
