//! Pure Ed25519 (RFC 8032): signs messages without prehashing, 64-byte signatures.

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};

use crate::crypto::pkcs8;
use crate::domain::{Algorithm, KeySpec, Purpose, SignatureFormat};

use super::{CryptoError, PrivateKey, Random, Scheme, SecretBytes, check_message, ed25519_verifier::Ed25519Verifier};

/// `SubjectPublicKeyInfo` up to the 32 bytes of the key (RFC 8410 §4).
pub(in crate::crypto) const SPKI_HEAD: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Whether the signature (64 bytes) of the message is by the owner of the public key (32 bytes). `false` for any other length.
pub fn verify_ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    ParsedPublicKey::new(&ED25519, public_key).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

/// Keys that sign with Ed25519.
pub(super) struct Ed25519;

impl Scheme for Ed25519 {
    fn spec(&self) -> KeySpec {
        KeySpec::EcCurve25519
    }

    fn purpose(&self) -> Purpose {
        Purpose::Signing
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::Ed25519]
    }

    fn signature_format(&self) -> Option<SignatureFormat> {
        Some(SignatureFormat::Concat)
    }

    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
        let mut seed = SecretBytes::zeroed(32);
        random.fill(seed.expose_mut()).map_err(|_| CryptoError::Faulty)?;
        Ok(pkcs8::write_ed25519(seed.expose()))
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let pkcs8::PrivateKeyInfo::Ed25519 { seed, public } = pkcs8::PrivateKeyInfo::read(material)? else {
            return Err(pkcs8::OTHER_SPEC);
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| CryptoError::BadKey("its seed gives no key"))?;
        let own = pair.public_key().as_ref();
        pkcs8::check_public(own, &[public])?;
        let spki = [SPKI_HEAD, own].concat();
        let verifier = Ed25519Verifier::new(own)?;
        Ok(Box::new(Ed25519Key { pair, verifier, spki }))
    }
}

struct Ed25519Key {
    pair: Ed25519KeyPair,
    verifier: Arc<Ed25519Verifier>,
    spki: Vec<u8>,
}

impl PrivateKey for Ed25519Key {
    fn public_key(&self) -> Option<&[u8]> {
        Some(&self.spki)
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if algorithm != Algorithm::Ed25519 {
            return Err(CryptoError::Unsupported(algorithm));
        }
        check_message(message)?;
        let signature = self.pair.try_sign(message).map_err(|_| CryptoError::Faulty)?;
        // A faulty signature of a deterministic scheme can reveal the private key (RFC 8032 §8.2, and the literature on fault attacks).
        if !self.verifier.verifies(message, signature.as_ref()) {
            return Err(CryptoError::Faulty);
        }
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_that_does_not_verify_is_not_returned() {
        let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let other = Ed25519Verifier::new(pair(2).public_key().as_ref()).unwrap();
        let key = Ed25519Key { pair: pair(1), verifier: other, spki: Vec::new() };
        // More signatures than a table needs, so that both ways of verification are used.
        for _ in 0..200 {
            assert!(matches!(key.sign(Algorithm::Ed25519, b"m"), Err(CryptoError::Faulty)));
        }
    }
}
