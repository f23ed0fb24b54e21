//! Verifies signatures under a public key alone, without code of the vault.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use canton_keyvault::domain::Algorithm;
use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

/// The DER of a `SubjectPublicKeyInfo` up to the key or the uncompressed point (RFC 5480, RFC 8410).
const ED25519_HEAD: &str = "302a300506032b6570032100";
const P256_HEAD: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const P384_HEAD: &str = "3076301006072a8648ce3d020106052b81040022036200";
const SECP256K1_HEAD: &str = "3056301006072a8648ce3d020106052b8104000a034200";

/// Whether `signature` is a signature of `message` under this public key (`SubjectPublicKeyInfo`, DER, EC points uncompressed).
///
/// Ed25519 signatures have 64 bytes. ECDSA signatures are DER with a high or low S, because Canton accepts both.
pub(crate) fn verify(algorithm: Algorithm, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = |head: &str| spki.strip_prefix(base16ct::lower::decode_vec(head).unwrap().as_slice());
    let with_aws_lc = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    };
    match algorithm {
        Algorithm::Ed25519 => key(ED25519_HEAD).is_some_and(|key| with_aws_lc(&ED25519, key)),
        Algorithm::EcdsaSha256 => match (key(P256_HEAD), key(SECP256K1_HEAD)) {
            (Some(point), _) => with_aws_lc(&ECDSA_P256_SHA256_ASN1, point),
            (_, Some(point)) => verify_secp256k1(point, message, signature).is_ok(),
            _ => false,
        },
        Algorithm::EcdsaSha384 => key(P384_HEAD).is_some_and(|point| with_aws_lc(&ECDSA_P384_SHA384_ASN1, point)),
        Algorithm::EciesP256 | Algorithm::RsaOaepSha256 | Algorithm::Aes256Gcm => false,
    }
}

/// The k256 crate accepts a low S only, so that a high S is normalized first. FIPS 186-5 allows both.
fn verify_secp256k1(point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), k256::ecdsa::Error> {
    VerifyingKey::from_sec1_bytes(point)?.verify(message, &Signature::from_der(signature)?.normalize_s())
}
