//! The identity of a key in Azure: the host of its vault and its name. Never a version, because a rotation makes a new one.
//!
//! A key that was purged and made again has the same identity, but other versions. A wrap names its version, so that the new key does not open it.

use std::{fmt, str::FromStr};

/// The host of a vault, such as `canton.vault.azure.net` or `canton.managedhsm.azure.net`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct VaultHost(String);

/// A key. Shown and stored as `azure:<host of the vault>:<name>`; its reference is `https://<host of the vault>/keys/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct AzureKey {
    pub(in crate::kms) vault: VaultHost,
    pub(in crate::kms) name: String,
}

/// The version of a key: 32 hexadecimal digits.
pub(in crate::kms) type Version = [u8; 16];

/// The text does not have the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write https://<name of the vault>.vault.azure.net/keys/<key> (or .managedhsm.azure.net), without a port and a version")]
pub(in crate::kms) struct NotAKeyAddress;

impl VaultHost {
    /// Whether it is a Managed HSM, which has symmetric keys.
    pub(in crate::kms) fn is_managed_hsm(&self) -> bool {
        self.service().starts_with("managedhsm.")
    }

    /// For whom an access token must be: the host without the name of the vault.
    pub(in crate::kms) fn audience(&self) -> String {
        format!("https://{}", self.service())
    }

    fn service(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, service)| service)
    }
}

impl fmt::Display for VaultHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VaultHost {
    type Err = NotAKeyAddress;

    /// Reads the host alone, in lower case.
    fn from_str(text: &str) -> Result<Self, NotAKeyAddress> {
        let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let good = text.len() <= 253 && text.split('.').count() >= 3 && text.split('.').all(label);
        // An IP address has no name in front of the service.
        if good && text.parse::<std::net::IpAddr>().is_err() { Ok(Self(text.to_owned())) } else { Err(NotAKeyAddress) }
    }
}

impl AzureKey {
    /// A key in a vault.
    pub(in crate::kms) fn new(vault: &VaultHost, name: &str) -> Result<Self, NotAKeyAddress> {
        let good = (1..=127).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good { Ok(Self { vault: vault.clone(), name: name.to_owned() }) } else { Err(NotAKeyAddress) }
    }

    /// Reads `https://<host>/keys/<name>`. Azure compares names without case; here a key has one text.
    pub(in crate::kms) fn from_reference(reference: &str) -> Result<Self, NotAKeyAddress> {
        let (vault, name) = reference.strip_prefix("https://").and_then(|rest| rest.split_once("/keys/")).ok_or(NotAKeyAddress)?;
        Self::new(&vault.parse()?, name)
    }

    /// `https://<host>/keys/<name>`
    pub(in crate::kms) fn reference(&self) -> String {
        format!("https://{}/keys/{}", self.vault, self.name)
    }

    /// The version in a key id (`kid`), if it is one of this key.
    pub(in crate::kms) fn version_in(&self, kid: &str) -> Option<Version> {
        let text = kid.strip_prefix(&self.reference())?.strip_prefix('/')?;
        let mut version: Version = [0; 16];
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        (lower && base16ct::mixed::decode(text, &mut version).is_ok_and(|read| read.len() == 16)).then_some(version)
    }
}

impl fmt::Display for AzureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "azure:{}:{}", self.vault, self.name)
    }
}

impl FromStr for AzureKey {
    type Err = NotAKeyAddress;

    fn from_str(identity: &str) -> Result<Self, NotAKeyAddress> {
        let (vault, name) = identity.strip_prefix("azure:").and_then(|rest| rest.split_once(':')).ok_or(NotAKeyAddress)?;
        Self::new(&vault.parse()?, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "https://canton.vault.azure.net/keys/vault-1";

    #[test]
    fn an_address_is_an_identity_and_back() {
        let key = AzureKey::from_reference(REFERENCE).unwrap();
        assert_eq!(key.to_string(), "azure:canton.vault.azure.net:vault-1");
        assert_eq!((key.reference().as_str(), &key.to_string().parse::<AzureKey>().unwrap()), (REFERENCE, &key));
        let version = "0123456789abcdef0123456789abcdef";
        assert_eq!(key.version_in(&format!("{REFERENCE}/{version}")).map(|version| version[..2].to_vec()), Some(vec![0x01, 0x23]));
        for kid in [
            REFERENCE.to_owned(),
            format!("{REFERENCE}/{}", &version[2..]),
            format!("{REFERENCE}2/{version}"),
            format!("{REFERENCE}/{}", version.to_uppercase()),
        ] {
            assert_eq!(key.version_in(&kid), None, "{kid}");
        }
    }

    #[test]
    fn another_form_is_refused() {
        for text in [
            "http://canton.vault.azure.net/keys/vault",
            "https://canton.vault.azure.net:443/keys/vault",
            "https://canton.vault.azure.net/keys/vault/0123456789abcdef0123456789abcdef",
            "https://canton.vault.azure.net/keys/",
            "https://canton.vault.azure.net/secrets/vault",
            "https://Canton.vault.azure.net/keys/vault",
            "https://localhost/keys/vault",
            "https://127.0.0.1/keys/vault",
            "https://user@canton.vault.azure.net/keys/vault",
            "azure:canton.vault.azure.net:vault",
        ] {
            assert_eq!(AzureKey::from_reference(text), Err(NotAKeyAddress), "{text}");
        }
        for text in ["azure:canton.vault.azure.net", "azure:canton.vault.azure.net:a:b", "gcp:canton.vault.azure.net:a"] {
            assert_eq!(text.parse::<AzureKey>(), Err(NotAKeyAddress), "{text}");
        }
    }

    #[test]
    fn the_audience_is_that_of_the_service() {
        for (host, audience, hsm) in [
            ("canton.vault.azure.net", "https://vault.azure.net", false),
            ("canton.managedhsm.azure.net", "https://managedhsm.azure.net", true),
            ("canton.vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net", false),
        ] {
            let host: VaultHost = host.parse().unwrap();
            assert_eq!((host.audience().as_str(), host.is_managed_hsm()), (audience, hsm));
        }
    }
}
