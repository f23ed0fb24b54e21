//! The attributes of a key: whether it may wrap, and with which algorithm.

use serde::Deserialize;

use super::key_reference::{AzureKey, Version};
use crate::kms::Denial;

/// The answer of `GET /keys/<name>`, with the fields that are used here. It is about the current version.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyInfo {
    pub(super) key: JsonWebKey,
    pub(super) attributes: Attributes,
}

/// The public part of a key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct JsonWebKey {
    /// The address of the version.
    pub(super) kid: String,
    pub(super) kty: String,
    pub(super) key_ops: Vec<String>,
}

/// What the vault keeps about a version.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attributes {
    pub(super) enabled: bool,
    /// Seconds since 1970.
    pub(super) exp: Option<i64>,
    pub(super) exportable: bool,
    #[serde(rename = "recoveryLevel")]
    pub(super) recovery_level: String,
    #[serde(rename = "recoverableDays")]
    pub(super) recoverable_days: u32,
}

/// How a key wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// AES-256-GCM, with the context as associated data.
    Gcm,
    /// RSA-OAEP-256, with a digest of the context in the plaintext.
    RsaOaep,
}

impl Algorithm {
    const fn operations(self) -> [&'static str; 2] {
        match self {
            Self::Gcm => ["encrypt", "decrypt"],
            Self::RsaOaep => ["wrapKey", "unwrapKey"],
        }
    }
}

impl KeyInfo {
    /// How it wraps. `None` for a key of another kind, or one that may not be used for it.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = match self.key.kty.as_str() {
            "oct-HSM" => Algorithm::Gcm,
            "RSA" | "RSA-HSM" => Algorithm::RsaOaep,
            _ => return None,
        };
        let permitted = |operation: &&str| self.key.key_ops.iter().any(|permitted| permitted == operation);
        algorithm.operations().iter().all(permitted).then_some(algorithm)
    }

    /// The current version.
    pub(super) fn version(&self, key: &AzureKey) -> Option<Version> {
        key.version_in(&self.key.kid)
    }

    /// Why nothing may be wrapped under it, if so.
    pub(super) fn refusal(&self) -> Option<Denial> {
        if self.algorithm().is_none() {
            Some(Denial::WrongKind)
        } else if !self.attributes.enabled {
            Some(Denial::Disabled)
        } else if self.attributes.exportable {
            Some(Denial::Exportable)
        } else {
            None
        }
    }

    /// What to register instead of a key that cannot be.
    pub(super) fn unfit(&self, key: &AzureKey) -> Option<String> {
        if self.version(key).is_none() {
            return Some(
                "Azure calls this key by another address; use the one that `az keyvault key show` prints, without the version".to_owned(),
            );
        }
        if self.attributes.exportable {
            return Some("the key is exportable, so that it can leave Azure; make one that is not".to_owned());
        }
        self.algorithm().is_none().then(|| {
            format!(
                "a key of the kind {} with these key_ops cannot wrap; make one by `az keyvault key create --kty RSA-HSM --size 3072 --ops wrapKey \
                 unwrapKey`, or in a Managed HSM `--kty oct-HSM --size 256 --ops encrypt decrypt`",
                self.kind()
            )
        })
    }

    /// The kind as Azure reports it, if it has the form of one.
    pub(super) fn kind(&self) -> &str {
        let plain = (1..=16).contains(&self.key.kty.len()) && self.key.kty.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain { &self.key.kty } else { "unknown" }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kms::azure_key_vault) fn key() -> AzureKey {
        AzureKey::from_reference("https://canton.vault.azure.net/keys/vault").unwrap()
    }

    /// A key as Azure shows it, with changes.
    pub(in crate::kms::azure_key_vault) fn key_info(key: &str, attributes: &str) -> KeyInfo {
        let mut info = serde_json::json!({
            "key": {
                "kid": "https://canton.vault.azure.net/keys/vault/0123456789abcdef0123456789abcdef", "kty": "RSA-HSM",
                "key_ops": ["wrapKey", "unwrapKey"], "n": "AQAB", "e": "AQAB",
            },
            "attributes": {
                "enabled": true, "created": 1_790_000_000, "updated": 1_790_000_000, "recoveryLevel": "Recoverable", "recoverableDays": 90,
                "exportable": false,
            },
        });
        for (part, change) in [("key", key), ("attributes", attributes)] {
            info[part].as_object_mut().unwrap().extend(serde_json::from_str::<serde_json::Map<_, _>>(change).unwrap());
        }
        serde_json::from_value(info).unwrap()
    }

    #[test]
    fn a_key_wraps_if_its_kind_operations_and_state_permit_it() {
        let symmetric = r#"{ "kty": "oct-HSM", "key_ops": ["decrypt", "encrypt"] }"#;
        assert_eq!(key_info(symmetric, "{}").algorithm(), Some(Algorithm::Gcm));
        assert_eq!(key_info("{}", "{}").algorithm(), Some(Algorithm::RsaOaep));
        for (change, attributes, expected) in [
            ("{}", "{}", None),
            (symmetric, "{}", None),
            (r#"{ "kty": "EC-HSM" }"#, "{}", Some(Denial::WrongKind)),
            (r#"{ "kty": "oct" }"#, "{}", Some(Denial::WrongKind)),
            (r#"{ "key_ops": ["wrapKey"] }"#, "{}", Some(Denial::WrongKind)),
            ("{}", r#"{ "enabled": false }"#, Some(Denial::Disabled)),
            ("{}", r#"{ "exportable": true }"#, Some(Denial::Exportable)),
        ] {
            let info = key_info(change, attributes);
            assert_eq!(info.refusal(), expected, "{change} {attributes}");
            let fits = !matches!(expected, Some(Denial::WrongKind | Denial::Exportable));
            assert_eq!(info.unfit(&key()).is_none(), fits, "{change} {attributes}");
        }
        let other = key_info(r#"{ "kid": "https://canton.vault.azure.net/keys/Vault/0123456789abcdef0123456789abcdef" }"#, "{}");
        assert!(other.unfit(&key()).unwrap().contains("another address"));
    }
}
