//! Canton's hashes: SHA-256 with a purpose, as a multihash (`crypto/Hash.scala`, `HashBuilder.scala`, `HashPurpose.scala`).

use std::fmt;

use sha2::{Digest, Sha256};

use crate::domain::Hex;

/// The purposes that occur in a topology transaction.
#[derive(Clone, Copy)]
pub(super) enum HashPurpose {
    TopologyTransactionSignature = 11,
    DecentralizedNamespace = 37,
    TopologyMappingUniqueKey = 43,
    MultiTopologyTransaction = 55,
}

/// A hash of Canton: `12 20` and 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CantonHash([u8; 34]);

impl CantonHash {
    /// The 34 bytes. A key signs them as a message.
    pub const fn as_bytes(&self) -> &[u8; 34] {
        &self.0
    }
}

impl fmt::Display for CantonHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl serde::Serialize for CantonHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Collects the content of a hash.
pub(super) struct HashBuilder(Sha256);

impl HashBuilder {
    pub(super) fn new(purpose: HashPurpose) -> Self {
        Self(Sha256::new().chain_update((purpose as u32).to_be_bytes()))
    }

    /// Bytes without a length.
    pub(super) fn raw(self, bytes: &[u8]) -> Self {
        Self(self.0.chain_update(bytes))
    }

    /// Four bytes, big-endian.
    pub(super) fn int(self, number: i32) -> Self {
        self.raw(&number.to_be_bytes())
    }

    /// The length as an int, then the bytes. A transaction has at most 64 KiB, so that every length fits.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.int(i32::try_from(bytes.len()).unwrap_or(i32::MAX)).raw(bytes)
    }

    pub(super) fn finish(self) -> CantonHash {
        let mut hash = [0; 34];
        let (head, digest) = hash.split_at_mut(2);
        head.copy_from_slice(&[0x12, 0x20]);
        digest.copy_from_slice(&self.0.finalize());
        CantonHash(hash)
    }
}
