//! `[[wrapper.openbao]]`: an OpenBao cluster, how it is reached, and how the vault logs in.

use std::path::{Path, PathBuf};

use super::key_reference::is_path;
use crate::kms::{EndpointUrl, http::Address};

/// One entry of `[[wrapper.openbao]]`: a cluster. It is used whenever one of its transit keys is a wrapper key.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenbaoConfig {
    /// Its servers, `https://host:port`, in the order to try. Plain `http` only on loopback.
    pub addresses: Vec<EndpointUrl>,
    /// PEM file of the CAs that may sign server certificates. The CAs of the system are not used. Required for `https`. Read for every
    /// connection.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// File that holds the token and nothing else. It is read again when it changes. The vault renews the token before it expires.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM file of a client certificate, leaf first. With it, the vault logs in by TLS certificate (`auth/cert/login`) instead of by token.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key of `certificate`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The certificate role to log in to. Without it, the server chooses a role that matches.
    #[serde(default)]
    pub role: Option<String>,
    /// The mount of the certificate login, below `auth/`.
    #[serde(default = "cert")]
    pub auth_mount: String,
    /// The namespace to log in to. References name keys by their whole path, including namespaces.
    #[serde(default)]
    pub namespace: String,
    /// The transit mount in which new wrapper keys are created, with its namespaces in front.
    #[serde(default = "transit")]
    pub mount: String,
}

impl OpenbaoConfig {
    /// Makes file names relative to the folder of the configuration.
    pub(in crate::kms) fn resolve(&mut self, folder: &Path) {
        for file in [&mut self.ca, &mut self.token_file, &mut self.certificate, &mut self.key].into_iter().flatten() {
            *file = folder.join(&file);
        }
    }

    /// The server addresses, if the options are consistent. Otherwise the fault and its fix.
    pub(in crate::kms) fn check(&self) -> Result<Vec<Address>, String> {
        let wrong = |what: &str| Err(format!("[[wrapper.openbao]] {what}"));
        let addresses = self.addresses.iter().map(|address| address.as_str().parse::<Address>()).collect::<Result<Vec<_>, _>>();
        let Ok(addresses) = addresses else {
            return wrong("addresses: write https://host:port, with nothing after the port");
        };
        if addresses.is_empty() {
            return wrong("addresses is empty; name the servers of the cluster");
        }
        if addresses.iter().any(|address| !address.tls && !address.is_loopback()) {
            return wrong("addresses: plain http would show the token and every data key to the network; write https");
        }
        if addresses.iter().any(|address| address.tls) && self.ca.is_none() {
            return wrong("ca is missing: name the PEM file of the CA that vouches for the servers");
        }
        match (&self.token_file, &self.certificate, &self.key) {
            (Some(_), None, None) if self.role.is_some() => return wrong("role belongs to a certificate login, and token_file is set"),
            (Some(_), None, None) => {}
            (None, Some(_), Some(_)) if addresses.iter().all(|address| address.tls) => {}
            (None, Some(_), Some(_)) => return wrong("certificate logs in over https only"),
            _ => return wrong("needs either token_file, or certificate and key"),
        }
        if !is_path(&self.mount) || !is_path(&self.auth_mount) || !(self.namespace.is_empty() || is_path(&self.namespace)) {
            return wrong("mount, auth_mount and namespace are paths like team/transit, without a slash at either end");
        }
        Ok(addresses)
    }
}

fn cert() -> String {
    "cert".to_owned()
}

fn transit() -> String {
    "transit".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_beside_the_configuration() {
        let mut config: OpenbaoConfig = toml::from_str("addresses = []\nca = 'pki/ca.pem'\ntoken_file = '/run/token'").unwrap();
        config.resolve(Path::new("/etc/keyvault"));
        assert_eq!((config.ca, config.token_file), (Some("/etc/keyvault/pki/ca.pem".into()), Some("/run/token".into())));
        assert_eq!((config.mount.as_str(), config.auth_mount.as_str(), config.namespace.as_str()), ("transit", "cert", ""));
    }

    #[test]
    fn an_invalid_entry_is_refused_with_its_fix() {
        for (text, says) in [
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'\ntoken_file = 't'", ""),
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'\ncertificate = 'c'\nkey = 'k'\nrole = 'vault'", ""),
            ("addresses = ['http://127.0.0.1:8200']\ntoken_file = 't'\nnamespace = 'a/b'", ""),
            ("addresses = []\ntoken_file = 't'", "empty"),
            ("addresses = ['http://bao:8200']\ntoken_file = 't'", "https"),
            ("addresses = ['https://bao:8200/v1']\nca = 'ca.pem'\ntoken_file = 't'", "nothing after the port"),
            ("addresses = ['https://bao:8200']\ntoken_file = 't'", "ca is missing"),
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'", "either"),
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'\ntoken_file = 't'\ncertificate = 'c'\nkey = 'k'", "either"),
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'\ncertificate = 'c'", "either"),
            ("addresses = ['https://bao:8200']\nca = 'ca.pem'\ntoken_file = 't'\nrole = 'r'", "role"),
            ("addresses = ['http://localhost']\ncertificate = 'c'\nkey = 'k'", "https only"),
            ("addresses = ['http://localhost']\ntoken_file = 't'\nmount = '/transit'", "slash"),
        ] {
            let error = toml::from_str::<OpenbaoConfig>(text).unwrap().check().err().unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{text}: {error}");
        }
    }
}
