//! Canton's fingerprint of a public key (`Fingerprint` and `PublicKey.id` in `CryptoKeys.scala`).

use sha2::{Digest, Sha256};

use crate::domain::{Fingerprint, KeySpec, Purpose};

use super::scheme::ed25519;

/// `HashPurpose.PublicKeyFingerprint`.
const PUBLIC_KEY_FINGERPRINT: u32 = 12;

/// SHA-256 over the purpose (`u32be` 12) and the public key: the raw 32 bytes of an Ed25519 signing key, the `SubjectPublicKeyInfo` of any
/// other key. Length, usage and name are not included, so that a P-256 key has the same fingerprint for both purposes.
pub fn fingerprint(spec: KeySpec, purpose: Purpose, spki: &[u8]) -> Fingerprint {
    let hashed = match (spec, purpose) {
        (KeySpec::EcCurve25519, Purpose::Signing) => spki.strip_prefix(ed25519::SPKI_HEAD).unwrap_or(spki),
        _ => spki,
    };
    fingerprint_of_bytes(hashed)
}

/// The fingerprint over these bytes of a public key.
pub(super) fn fingerprint_of_bytes(bytes: &[u8]) -> Fingerprint {
    Fingerprint::from_digest(Sha256::new().chain_update(PUBLIC_KEY_FINGERPRINT.to_be_bytes()).chain_update(bytes).finalize().into())
}
