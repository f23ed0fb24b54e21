//! The spec, purpose, usages, class and origin of a key, and its algorithms, in Canton's terms.

use std::{fmt, str::FromStr};

use super::text::{UnknownText, text_enum};

text_enum!(
    /// The spec of a key.
    KeySpec as "key spec" {
        /// Ed25519.
        EcCurve25519 = "ec-curve25519",
        /// NIST P-256.
        EcP256 = "ec-p256",
        /// NIST P-384.
        EcP384 = "ec-p384",
        /// SEC 2 secp256k1.
        EcSecp256k1 = "ec-secp256k1",
        /// RSA with a modulus of 2048 bits and exponent 65537.
        Rsa2048 = "rsa-2048",
        /// 32 random bytes for AES-256.
        Aes256 = "aes-256",
    }
);

text_enum!(
    /// The format of a signature.
    SignatureFormat as "signature format" {
        /// `R ‖ S`, 64 bytes: Ed25519 (RFC 8032).
        Concat = "concat",
        /// ASN.1 DER `SEQUENCE { r, s }`: ECDSA (RFC 3279).
        Der = "der",
    }
);

text_enum!(
    /// The algorithm of an operation.
    Algorithm as "algorithm" {
        /// Pure Ed25519, RFC 8032; signature of 64 bytes.
        Ed25519 = "ed25519",
        /// ECDSA with SHA-256 over P-256 or secp256k1; DER signature.
        EcdsaSha256 = "ecdsa-sha256",
        /// ECDSA with SHA-384 over P-384; DER signature.
        EcdsaSha384 = "ecdsa-sha384",
        /// Canton's ECIES over P-256. It contains no HKDF, despite its name.
        EciesP256 = "ecies-hkdf-hmac-sha256-aes128-cbc",
        /// RFC 8017 OAEP with SHA-256 for both hashes and no label.
        RsaOaepSha256 = "rsa-oaep-sha256",
        /// AES-256-GCM under a symmetric key.
        Aes256Gcm = "aes-256-gcm",
    }
);

text_enum!(
    /// The purpose of a key. It is fixed at creation, and a key has exactly one.
    Purpose as "purpose" {
        /// Signs.
        Signing = "signing",
        /// Decrypts what was encrypted to its public key.
        Encryption = "encryption",
        /// Encrypts and decrypts under a shared secret.
        Symmetric = "symmetric",
    }
);

text_enum!(
    /// The usages of a signing key in Canton.
    Usage as "usage" {
        /// Signs topology transactions of its namespace.
        Namespace = "namespace",
        /// Answers the challenge of the sequencer.
        SequencerAuthentication = "sequencer-authentication",
        /// Signs protocol messages.
        Protocol = "protocol",
        /// Proves possession when it is added to a mapping.
        ProofOfOwnership = "proof-of-ownership",
    }
);

text_enum!(
    /// The class of a key.
    Class as "class" {
        /// Replaced by a successor.
        LongTerm = "long-term",
        /// A namespace root: it is the identity of the node and cannot be rotated.
        Permanent = "permanent",
    }
);

text_enum!(
    /// The origin of a key. An imported key existed outside the vault, and keeps this origin permanently.
    Origin as "origin" {
        /// Generated in this vault.
        Generated = "generated",
        /// Imported.
        Imported = "imported",
    }
);

/// A set of usages, shown sorted and comma-joined. This is also the bound form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usages(u8);

impl Usages {
    /// No usage.
    pub const NONE: Self = Self(0);

    /// Whether `usage` is in the set.
    pub const fn contains(self, usage: Usage) -> bool {
        self.0 & (1 << usage as u8) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The usages, sorted by name.
    pub fn iter(self) -> impl Iterator<Item = Usage> {
        let mut all: Vec<Usage> = Usage::ALL.iter().copied().filter(|usage| self.contains(*usage)).collect();
        all.sort_by_key(|usage| usage.as_str());
        all.into_iter()
    }
}

impl FromIterator<Usage> for Usages {
    fn from_iter<I: IntoIterator<Item = Usage>>(usages: I) -> Self {
        Self(usages.into_iter().fold(0, |set, usage| set | 1 << usage as u8))
    }
}

impl fmt::Display for Usages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Usage::as_str).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Usages {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl serde::Serialize for Usages {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> serde::Deserialize<'de> for Usages {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Usage>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_are_sorted_by_bytes_whatever_their_order() {
        let usages: Usages =
            [Usage::SequencerAuthentication, Usage::Namespace, Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect();
        assert_eq!(usages.to_string(), "namespace,proof-of-ownership,protocol,sequencer-authentication");
        assert_eq!(usages.to_string().parse(), Ok(usages));
        assert_eq!("".parse(), Ok(Usages::NONE));
        assert!("namespace,root".parse::<Usages>().is_err());
    }
}
