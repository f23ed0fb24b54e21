//! A private key of a Canton node outside the vault: its id, its default name, and its row in Canton's table of KMS keys.

use crate::{
    cli::Failure,
    crypto::{
        SecretBytes, SystemRandom,
        canton::{CantonFileError, CantonKeyPair, CantonVersion, KeyPairToWrite, usage_database_numbers, write_key_pair},
    },
    domain::{Fingerprint, KeyName, NodeName, Purpose, Usage, Usages},
};

/// A private key of a node, read and validated.
pub(super) struct NodeKey {
    pair: CantonKeyPair,
    public_key: Vec<u8>,
    /// The id in Canton and in the vault.
    pub(super) id: Fingerprint,
}

impl NodeKey {
    /// Computes the id.
    pub(super) fn new(pair: CantonKeyPair) -> Result<Self, CantonFileError> {
        let (id, public_key) = pair.public_key()?;
        Ok(Self { pair, public_key, id })
    }

    pub(super) const fn purpose(&self) -> Purpose {
        self.pair.purpose
    }

    pub(super) const fn usages(&self) -> Usages {
        self.pair.usages
    }

    pub(super) fn spec(&self) -> &'static str {
        self.pair.spec.as_str()
    }

    /// The key as an unprotected key-pair file, as the import of the vault reads it.
    pub(super) fn file(&self) -> Result<SecretBytes, CantonFileError> {
        write_key_pair(&self.to_write(), CantonVersion::V3_5, None, &SystemRandom::default())
    }

    /// The unencrypted column `data` of its row in Canton's private key store.
    #[cfg(feature = "postgresql")]
    pub(super) fn row(&self) -> Result<SecretBytes, CantonFileError> {
        crate::crypto::canton::write_private_key_row(&self.to_write())
    }

    fn to_write(&self) -> KeyPairToWrite<'_> {
        let CantonKeyPair { purpose, spec, usages, pkcs8 } = &self.pair;
        KeyPairToWrite { purpose: *purpose, spec: *spec, usages: *usages, pkcs8, public_key: &self.public_key, fingerprint: self.id }
    }
}

/// The names that Canton gives to the first keys of a node (`CantonNodeBootstrapImpl`), by usage, in the order in which the first one that
/// applies is taken.
const NAMES: [(Usage, &str); 3] =
    [(Usage::Protocol, "signing"), (Usage::SequencerAuthentication, "sequencer-auth"), (Usage::Namespace, "namespace")];

/// The name of a key in the vault: its own, otherwise the one that Canton gives to the first key of this usage.
pub(super) fn name(own: Option<&str>, node: &NodeName, purpose: Purpose, usages: Usages) -> Result<KeyName, Failure> {
    let by_usage = || {
        let word = match purpose {
            Purpose::Signing => NAMES.iter().find(|(usage, _)| usages.contains(*usage)).map_or("signing", |(_, word)| word),
            _ => "encryption",
        };
        format!("{node}-{word}")
    };
    let text = own.map(str::to_owned).filter(|own| !own.is_empty()).unwrap_or_else(by_usage);
    text.parse().map_err(|error| Failure::Unexpected(format!("the name `{text}`: {error}")))
}

/// A row of Canton's table `common_kms_metadata_store`: the key of a node that a KMS holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KmsMetadataRow {
    /// The fingerprint, which is also the id of the key in the vault.
    pub(super) fingerprint: String,
    /// 0 signing, 1 encryption.
    pub(super) purpose: i16,
    /// The usages of a signing key. `None` for an encryption key.
    pub(super) key_usage: Option<Vec<i32>>,
}

impl KmsMetadataRow {
    /// The row of `key`.
    pub(super) fn of(key: &NodeKey) -> Result<Self, CantonFileError> {
        let signing = key.purpose() == Purpose::Signing;
        let key_usage = signing.then(|| usage_database_numbers(key.usages())).transpose()?;
        Ok(Self { fingerprint: key.id.to_string(), purpose: purpose_number(key.purpose()), key_usage })
    }

    /// The statement that inserts it. A repetition changes nothing.
    pub(super) fn sql(&self) -> String {
        let Self { fingerprint, purpose, key_usage } = self;
        let usage = key_usage.as_ref().map_or_else(
            || "NULL".to_owned(),
            |numbers| format!("'{{{}}}'", numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")),
        );
        format!(
            "INSERT INTO common_kms_metadata_store (fingerprint, kms_key_id, purpose, key_usage) \
             VALUES ('{fingerprint}', '{fingerprint}', {purpose}, {usage}) ON CONFLICT (fingerprint) DO NOTHING;"
        )
    }
}

/// The number of the purpose in Canton's tables (`KeyPurpose` in `CryptoKeys.scala`).
pub(super) const fn purpose_number(purpose: Purpose) -> i16 {
    match purpose {
        Purpose::Signing => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_name_gets_the_one_that_canton_gives() {
        let node: NodeName = "p1".parse().unwrap();
        let named = |own, purpose, usages: &[Usage]| name(own, &node, purpose, usages.iter().copied().collect()).unwrap().to_string();
        assert_eq!(named(None, Purpose::Signing, &[Usage::Namespace]), "p1-namespace");
        assert_eq!(named(None, Purpose::Signing, &[Usage::SequencerAuthentication, Usage::ProofOfOwnership]), "p1-sequencer-auth");
        assert_eq!(named(None, Purpose::Signing, &[Usage::Namespace, Usage::Protocol]), "p1-signing");
        assert_eq!(named(Some(""), Purpose::Encryption, &[]), "p1-encryption");
        assert_eq!(named(Some("own"), Purpose::Encryption, &[]), "own");
        assert!(name(Some("a\u{7}"), &node, Purpose::Signing, Usages::NONE).is_err());
    }

    #[test]
    fn the_statement_names_every_column() {
        let row = KmsMetadataRow { fingerprint: "1220ab".into(), purpose: 0, key_usage: Some(vec![2, 4]) };
        assert!(row.sql().ends_with("VALUES ('1220ab', '1220ab', 0, '{2,4}') ON CONFLICT (fingerprint) DO NOTHING;"));
        let row = KmsMetadataRow { purpose: 1, key_usage: None, ..row };
        assert!(row.sql().contains("1, NULL)"));
    }
}
