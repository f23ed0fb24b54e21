//! What a key is (spec, purpose, usages, class, origin) and what may be asked of it (algorithm), in Canton's terms.

use std::{fmt, str::FromStr};

use super::text::{UnknownText, text_enum};

text_enum!(
    /// What a key *is*.
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
    /// What one asks of a key.
    Algorithm as "algorithm" {
        /// Pure Ed25519, RFC 8032; signature of 64 bytes.
        Ed25519 = "ed25519",
        /// ECDSA with SHA-256 over P-256 or secp256k1; DER signature.
        EcdsaSha256 = "ecdsa-sha256",
        /// ECDSA with SHA-384 over P-384; DER signature.
        EcdsaSha384 = "ecdsa-sha384",
        /// Canton's ECIES over P-256, which has no HKDF in spite of the name.
        EciesP256 = "ecies-hkdf-hmac-sha256-aes128-cbc",
        /// RFC 8017 OAEP with SHA-256 for both hashes and no label.
        RsaOaepSha256 = "rsa-oaep-sha256",
        /// AES-256-GCM under a symmetric key.
        Aes256Gcm = "aes-256-gcm",
    }
);

text_enum!(
    /// What a key is for: fixed at creation, and never crossed.
    Purpose as "purpose" {
        /// Signs.
        Signing = "signing",
        /// Decrypts what others encrypted to its public key.
        Encryption = "encryption",
        /// Encrypts and decrypts under a shared secret.
        Symmetric = "symmetric",
    }
);

text_enum!(
    /// What Canton uses a signing key for.
    Usage as "usage" {
        /// Signs topology transactions of its namespace.
        Namespace = "namespace",
        /// Answers the sequencer's challenge.
        SequencerAuthentication = "sequencer-authentication",
        /// Signs protocol messages.
        Protocol = "protocol",
        /// Proves possession when it is added to a mapping.
        ProofOfOwnership = "proof-of-ownership",
    }
);

text_enum!(
    /// How long a key lives.
    Class as "class" {
        /// Rotated by a successor.
        LongTerm = "long-term",
        /// A namespace root: it is the node's identity and cannot be rotated.
        Permanent = "permanent",
    }
);

text_enum!(
    /// Where a key was born. Imported keys say so for ever: they existed outside.
    Origin as "origin" {
        /// Made in this vault.
        Generated = "generated",
        /// Brought in from outside.
        Imported = "imported",
    }
);

/// A set of usages, shown byte-sorted and comma-joined, which is also its bound form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usages(u8);

impl Usages {
    /// No usage stated.
    pub const NONE: Self = Self(0);

    /// Whether `usage` is in the set.
    pub const fn contains(self, usage: Usage) -> bool {
        self.0 & (1 << usage as u8) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, byte-sorted by name.
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
