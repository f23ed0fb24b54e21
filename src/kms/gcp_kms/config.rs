//! `[wrapper.gcp_kms]`: how Cloud KMS of Google is reached, and the credentials of the vault.

use std::path::{Path, PathBuf};

use super::key_reference::KeyRingName;
use crate::kms::{EndpointUrl, http::Address};

/// The `[wrapper.gcp_kms]` section. It is used whenever a key of Cloud KMS is a wrapper key.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcpKmsConfig {
    /// PEM file of the CAs that may sign the certificates of `endpoint` and of the servers that `credentials_file` names. The CAs of the system are not used unless
    /// this names their file. Read for every connection.
    pub ca: PathBuf,
    /// The address of Cloud KMS: another one for Private Service Connect, or for a test. Plain `http` only on loopback.
    #[serde(default = "endpoint")]
    pub endpoint: EndpointUrl,
    /// The key file of a service account, or a configuration of workload identity federation (JSON, `type` `service_account` or `external_account`). It is
    /// read at each request for an access token. Without it, the metadata server gives the tokens: of the service account of the machine, or of the pod with
    /// Workload Identity Federation for GKE.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// The address of the metadata server. Used only without `credentials_file`.
    #[serde(default = "metadata")]
    pub metadata: EndpointUrl,
    /// The key ring in which new wrapper keys are created: `projects/<project>/locations/<location>/keyRings/<ring>`. They are created
    /// in an HSM.
    #[serde(default)]
    pub key_ring: Option<String>,
}

impl GcpKmsConfig {
    /// Makes file names relative to the folder of the configuration.
    pub(in crate::kms) fn resolve(&mut self, folder: &Path) {
        self.ca = folder.join(&self.ca);
        if let Some(file) = &mut self.credentials_file {
            *file = folder.join(&file);
        }
    }

    /// The addresses of Cloud KMS and of the metadata server, if the options are consistent. Otherwise the fault and its fix.
    pub(in crate::kms) fn check(&self) -> Result<(Address, Address), String> {
        let wrong = |what: &str| Err(format!("[wrapper.gcp_kms] {what}"));
        let (Ok(endpoint), Ok(metadata)) = (self.endpoint.as_str().parse::<Address>(), self.metadata.as_str().parse::<Address>()) else {
            return wrong("endpoint and metadata: write https://host:port, with nothing after the port");
        };
        if !endpoint.tls && !endpoint.is_loopback() {
            return wrong("endpoint: plain http would show the access token and every data key to the network; write https");
        }
        if self.key_ring.as_ref().is_some_and(|ring| ring.parse::<KeyRingName>().is_err()) {
            return wrong("key_ring: write projects/<project id>/locations/<location>/keyRings/<ring>");
        }
        Ok((endpoint, metadata))
    }
}

fn endpoint() -> EndpointUrl {
    EndpointUrl::known("https://cloudkms.googleapis.com")
}

fn metadata() -> EndpointUrl {
    EndpointUrl::known("http://metadata.google.internal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_section_is_refused_with_its_fix() {
        for (text, says) in [
            ("", ""),
            ("endpoint = 'https://kms.example.org:8443'\ncredentials_file = 'key.json'", ""),
            ("endpoint = 'http://127.0.0.1:8080'\nmetadata = 'http://127.0.0.1:8081'", ""),
            ("endpoint = 'http://kms.example.org'", "write https"),
            ("endpoint = 'https://kms.example.org/v1'", "nothing after the port"),
            ("key_ring = 'canton'", "key_ring"),
        ] {
            let error = toml::from_str::<GcpKmsConfig>(&format!("ca = 'ca.pem'\n{text}")).unwrap().check().err().unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{text}: {error}");
        }
    }

    #[test]
    fn files_lie_beside_the_configuration() {
        let mut config: GcpKmsConfig = toml::from_str("ca = 'ca.pem'\ncredentials_file = '/run/key.json'").unwrap();
        config.resolve(Path::new("/etc/keyvault"));
        assert_eq!((config.ca, config.credentials_file), ("/etc/keyvault/ca.pem".into(), Some("/run/key.json".into())));
    }
}
