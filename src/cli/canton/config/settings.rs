//! What a Canton node must be told so that its keys are in the vault, as a tree that the formats write.

use super::{
    hocon::{Field, Value},
    values::{CantonName, FilePath, NodeKind, Schemes, VaultUrl},
};
use crate::domain::NodeName;

/// The settings of one node.
pub(super) struct Settings {
    /// The kind of the node.
    pub(super) kind: NodeKind,
    /// Its name in the configuration of Canton.
    pub(super) canton_name: CantonName,
    /// Its name in the vault.
    pub(super) node: NodeName,
    /// The vaults, in the order to try.
    pub(super) urls: Vec<VaultUrl>,
    /// The certificates of the CAs of the vault.
    pub(super) trust: FilePath,
    /// The client certificate.
    pub(super) certificate: FilePath,
    /// Its private key.
    pub(super) key: FilePath,
    /// The schemes of new keys.
    pub(super) schemes: Schemes,
}

impl Settings {
    /// `canton.participants.participant1.crypto`.
    pub(super) fn path(&self) -> String {
        let name = self.canton_name.as_str();
        let plain = name.starts_with(|first: char| first.is_ascii_alphabetic());
        let quotes = if plain { "" } else { "\"" };
        format!("canton.{}s.{quotes}{name}{quotes}.crypto", self.kind.as_str())
    }

    /// The whole section `crypto`.
    pub(super) fn crypto(&self) -> Vec<Field> {
        let mut fields = vec![
            Field::because(
                &["The node creates and uses its private keys in the vault. Its database holds none."],
                "provider",
                Value::Word("kms"),
            ),
            Field::new("kms", Value::Section(self.kms())),
        ];
        fields.extend(self.schemes());
        fields
    }

    /// The section `crypto.kms`.
    pub(super) fn kms(&self) -> Vec<Field> {
        vec![
            Field::new("type", Value::Word("driver")),
            Field::because(
                &["The name of the driver in the jar, which must be on the class path of the node."],
                "name",
                Value::Word("canton-keyvault"),
            ),
            Field::new("config", Value::Section(self.driver())),
        ]
    }

    /// The section `crypto.kms.config`, which the driver reads.
    pub(super) fn driver(&self) -> Vec<Field> {
        let file = |path: &FilePath| Value::Text(path.as_str().to_owned());
        vec![
            Field::because(
                &["The vaults, in the order to try. All must have the same keys."],
                "urls",
                Value::Texts(self.urls.iter().map(|url| url.as_str().to_owned()).collect()),
            ),
            Field::because(
                &["New keys belong to this node of the vault. The principal of the certificate below needs the role `node` on it."],
                "node",
                Value::Text(self.node.to_string()),
            ),
            Field::because(
                &["The driver reads changed files again. A relative path starts at the working directory of the node."],
                "tls",
                Value::Section(vec![
                    Field::because(&["The CA of the vault."], "trust-collection-file", file(&self.trust)),
                    Field::because(&["The client certificate, then its intermediates."], "cert-chain-file", file(&self.certificate)),
                    Field::because(&["Its private key: PKCS#8, not encrypted."], "private-key-file", file(&self.key)),
                ]),
            ),
        ]
    }

    /// The sections `crypto.signing` and `crypto.encryption`.
    pub(super) fn schemes(&self) -> Vec<Field> {
        let (why, signing, encryption): (&'static [&'static str], _, _) = match self.schemes {
            Schemes::Ed25519Ecies => (
                &[
                    "The schemes of new keys: those of a node without a KMS, so that a node that moves its keys to the vault keeps them.",
                    "Without these lines, Canton takes ECDSA P-256 and RSA-2048 for a node with a KMS.",
                ],
                ("ed-25519", "ec-curve-25519"),
                ("ecies-hkdf-hmac-sha-256-aes-128-cbc", "ec-p-256"),
            ),
            Schemes::P256Rsa => (
                &["The schemes of new keys: Canton's defaults for a node with a KMS."],
                ("ec-dsa-sha-256", "ec-p-256"),
                ("rsa-oaep-sha-256", "rsa-2048"),
            ),
        };
        let defaults = |(algorithm, key)| {
            Value::Section(vec![Field::new("algorithms.default", Value::Word(algorithm)), Field::new("keys.default", Value::Word(key))])
        };
        vec![Field::because(why, "signing", defaults(signing)), Field::new("encryption", defaults(encryption))]
    }
}
