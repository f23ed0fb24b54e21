//! `[[wrapper.azure_key_vault]]`: a vault, how it is reached, and how the vault logs in.

use std::path::{Path, PathBuf};

use super::key_reference::VaultHost;
use crate::kms::{EndpointUrl, http::Address};

/// One entry of `[[wrapper.azure_key_vault]]`: a vault in Azure. It is used whenever one of its keys is a wrapper key.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureKeyVaultConfig {
    /// The address of the vault or Managed HSM: `https://<name>.vault.azure.net` or `https://<name>.managedhsm.azure.net`.
    pub vault: EndpointUrl,
    /// PEM file of the CAs that may sign the certificates of the vault and of `login`. The CAs of the system are not used unless this names
    /// their file. Read for every connection.
    pub ca: PathBuf,
    /// Where connections go instead of `vault`, for a proxy or a test. Plain `http` only on loopback.
    #[serde(default)]
    pub endpoint: Option<EndpointUrl>,
    /// The id of the tenant (Microsoft Entra ID) in which the vault logs in. Required with `federated_token_file` and `client_secret_file`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The id of the application, or of a user-assigned managed identity.
    #[serde(default)]
    pub client_id: Option<String>,
    /// File of a token of another issuer, with which the vault logs in (workload identity federation): the projected token of a pod. Read
    /// at each login.
    #[serde(default)]
    pub federated_token_file: Option<PathBuf>,
    /// File of the client secret of the application. Read at each login. Without this and `federated_token_file`, the managed identity of
    /// the machine is used.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The address of Microsoft Entra ID: another one in a national cloud.
    #[serde(default = "login")]
    pub login: EndpointUrl,
    /// The address of the metadata server, which gives the tokens of a managed identity.
    #[serde(default = "metadata")]
    pub metadata: EndpointUrl,
}

/// A checked entry.
pub(in crate::kms) struct CheckedVault {
    pub(in crate::kms) host: VaultHost,
    pub(in crate::kms) address: Address,
    pub(in crate::kms) login: Address,
    pub(in crate::kms) metadata: Address,
}

impl AzureKeyVaultConfig {
    /// Makes file names relative to the folder of the configuration.
    pub(in crate::kms) fn resolve(&mut self, folder: &Path) {
        self.ca = folder.join(&self.ca);
        for file in [&mut self.federated_token_file, &mut self.client_secret_file].into_iter().flatten() {
            *file = folder.join(&file);
        }
    }

    /// The addresses, if the options are consistent. Otherwise the fault and its fix.
    pub(in crate::kms) fn check(&self) -> Result<CheckedVault, String> {
        let wrong = |what: &str| Err(format!("[[wrapper.azure_key_vault]] {what}"));
        let host = self.vault.as_str().strip_prefix("https://").map(|host| host.trim_end_matches('/'));
        let Some(Ok(host)) = host.map(str::parse::<VaultHost>) else {
            return wrong(
                "vault: write https://<name>.vault.azure.net, or https://<name>.managedhsm.azure.net, in lower case and without a port",
            );
        };
        let endpoint = self.endpoint.as_ref().unwrap_or(&self.vault);
        let (Ok(address), Ok(login), Ok(metadata)) =
            (endpoint.as_str().parse::<Address>(), self.login.as_str().parse::<Address>(), self.metadata.as_str().parse::<Address>())
        else {
            return wrong("endpoint, login and metadata: write https://host:port, with nothing after the port");
        };
        if [&address, &login].into_iter().any(|address| !address.tls && !address.is_loopback()) {
            return wrong("endpoint and login: plain http would show access tokens and data keys to the network; write https");
        }
        let is_id = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !self.tenant.iter().chain(&self.client_id).all(is_id) {
            return wrong("tenant and client_id are ids such as 00000000-0000-0000-0000-000000000000");
        }
        match (&self.federated_token_file, &self.client_secret_file) {
            (Some(_), Some(_)) => return wrong("needs either federated_token_file or client_secret_file, not both"),
            (None, None) if self.tenant.is_some() => {
                return wrong(
                    "tenant belongs to federated_token_file or client_secret_file: the metadata server knows the tenant of a managed identity",
                );
            }
            (None, None) => {}
            _ if self.tenant.is_none() || self.client_id.is_none() => {
                return wrong("needs tenant and client_id for the login with federated_token_file or client_secret_file");
            }
            _ => {}
        }
        Ok(CheckedVault { host, address, login, metadata })
    }
}

fn login() -> EndpointUrl {
    EndpointUrl::known("https://login.microsoftonline.com")
}

fn metadata() -> EndpointUrl {
    EndpointUrl::known("http://169.254.169.254")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_entry_is_refused_with_its_fix() {
        const VAULT: &str = "vault = 'https://canton.vault.azure.net'\nca = 'ca.pem'";
        for (text, says) in [
            (VAULT.to_owned(), ""),
            (format!("{VAULT}\nclient_id = '0-1'"), ""),
            (format!("{VAULT}\ntenant = '0-1'\nclient_id = '0-2'\nclient_secret_file = 's'"), ""),
            (format!("{VAULT}\ntenant = '0-1'\nclient_id = '0-2'\nfederated_token_file = 't'\nendpoint = 'http://127.0.0.1:1'"), ""),
            (VAULT.replace("canton.vault.azure.net", "canton.vault.azure.net:8443"), "without a port"),
            (VAULT.replace("https:", "http:"), "vault: write https"),
            (format!("{VAULT}\nendpoint = 'http://kv.example.org'"), "plain http"),
            (format!("{VAULT}\nlogin = 'https://login.example.org/x'"), "nothing after the port"),
            (format!("{VAULT}\ntenant = '0-1'"), "tenant belongs"),
            (format!("{VAULT}\nclient_secret_file = 's'\nclient_id = '0-1'"), "needs tenant"),
            (format!("{VAULT}\ntenant = 'a/b'\nclient_id = '0-2'\nclient_secret_file = 's'"), "ids such as"),
            (format!("{VAULT}\ntenant = '0'\nclient_id = '1'\nclient_secret_file = 's'\nfederated_token_file = 't'"), "not both"),
        ] {
            let error = toml::from_str::<AzureKeyVaultConfig>(&text).unwrap().check().err().unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{text}: {error}");
        }
    }
}
