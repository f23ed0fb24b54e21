//! Writes signed topology transactions, as in the `.cert` files of Canton (`SignedTopologyTransaction`).

use super::CantonHash;
use crate::domain::{Algorithm, Fingerprint, SignatureFormat};

/// A signature of a transaction, or of several.
pub struct TopologySignature<'a> {
    /// The bytes, in the format.
    pub bytes: &'a [u8],
    /// The format.
    pub format: SignatureFormat,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The fingerprint of the key.
    pub signed_by: Fingerprint,
}

impl TopologySignature<'_> {
    /// `Signature` of `crypto/v30/crypto.proto`.
    fn encode(&self) -> Vec<u8> {
        let format = match self.format {
            SignatureFormat::Der => 2,
            SignatureFormat::Concat => 3,
        };
        let algorithm = match self.algorithm {
            Algorithm::EcdsaSha256 => 2,
            Algorithm::EcdsaSha384 => 3,
            _ => 1,
        };
        [number(1, format), bytes(2, self.bytes), bytes(3, self.signed_by.to_string().as_bytes()), number(4, algorithm)].concat()
    }
}

/// A transaction with its signature, version 30, not a proposal. `others` are the hashes of the transactions that the signature covers
/// together with this one, including its own; empty if it covers this one alone.
pub fn signed_transaction(prepared: &[u8], others: &[CantonHash], signature: &TopologySignature<'_>) -> Vec<u8> {
    let signature = signature.encode();
    let signatures = if others.is_empty() {
        bytes(2, &signature)
    } else {
        let hashes = others.iter().map(|hash| bytes(1, hash.as_bytes())).collect::<Vec<_>>().concat();
        bytes(4, &[hashes, bytes(2, &signature)].concat())
    };
    [bytes(1, &[bytes(1, prepared), signatures].concat()), number(2, 30)].concat()
}

/// A field with a number below 16 and a number below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// A field with a number below 16 and its content.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![field << 3 | 2];
    let mut length = content.len();
    loop {
        let [low, ..] = length.to_le_bytes();
        if length <= 0x7f {
            encoded.push(low);
            break;
        }
        encoded.push(low | 0x80);
        length >>= 7;
    }
    encoded.extend_from_slice(content);
    encoded
}
