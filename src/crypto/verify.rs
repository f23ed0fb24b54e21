//! Verifies what others or the vault signed, given a public key alone: for tests, `dev` and the command line.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

use crate::domain::Algorithm;

use super::{
    curve::{P256, P384, SECP256K1},
    scheme::ed25519,
};

/// Whether `signature` is one of `message` under this public key (`SubjectPublicKeyInfo`, DER, EC points uncompressed).
///
/// Ed25519 signatures have 64 bytes; ECDSA ones are DER, with high or low S, as Canton takes both.
pub fn verify(algorithm: Algorithm, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let by_aws_lc = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    };
    match algorithm {
        Algorithm::Ed25519 => spki.strip_prefix(ed25519::SPKI_HEAD).is_some_and(|key| by_aws_lc(&ED25519, key)),
        Algorithm::EcdsaSha256 => match (P256.point_in(spki), SECP256K1.point_in(spki)) {
            (Some(point), _) => by_aws_lc(&ECDSA_P256_SHA256_ASN1, point),
            (_, Some(point)) => verify_secp256k1(point, message, signature).is_ok(),
            _ => false,
        },
        Algorithm::EcdsaSha384 => P384.point_in(spki).is_some_and(|point| by_aws_lc(&ECDSA_P384_SHA384_ASN1, point)),
        Algorithm::EciesP256 | Algorithm::RsaOaepSha256 | Algorithm::Aes256Gcm => false,
    }
}

/// k256 takes low S alone, so a high one is turned over first; both are signatures in FIPS 186-5.
fn verify_secp256k1(point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), k256::ecdsa::Error> {
    VerifyingKey::from_sec1_bytes(point)?.verify(message, &Signature::from_der(signature)?.normalize_s())
}
