//! RSA-2048 with OAEP (RFC 8017 §7.1), SHA-256 for both hashes, no label: decrypts 256 bytes to at most 190.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};

use crate::crypto::pkcs8;
use crate::domain::{Algorithm, KeySpec, Purpose};

use super::{CryptoError, PrivateKey, Random, Scheme, SecretBytes};

/// Length of the modulus, and of every ciphertext, in bytes.
const MODULUS: usize = 256;

/// Keys that decrypt with RSA-OAEP.
pub(super) struct RsaOaep;

impl Scheme for RsaOaep {
    fn spec(&self) -> KeySpec {
        KeySpec::Rsa2048
    }

    fn purpose(&self) -> Purpose {
        Purpose::Encryption
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::RsaOaepSha256]
    }

    /// An RSA-2048 decryption takes about a millisecond.
    fn is_expensive(&self) -> bool {
        true
    }

    /// Takes tens to hundreds of milliseconds. aws-lc generates the primes with its own random number generator.
    fn generate(&self, _: &dyn Random) -> Result<SecretBytes, CryptoError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| CryptoError::Faulty)?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| CryptoError::Faulty)?;
        Ok(SecretBytes::copy_of(der.as_ref()))
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let info @ pkcs8::PrivateKeyInfo::Rsa { .. } = pkcs8::PrivateKeyInfo::read(material)? else { return Err(pkcs8::OTHER_SPEC) };
        // Checks that the numbers belong together: n = pq, ed = 1 mod p-1 and q-1, and the CRT values (RSA_check_key).
        let key = PrivateDecryptingKey::from_pkcs8(info.canonical(None)?.expose())
            .map_err(|_| CryptoError::BadKey("its RSA numbers do not fit together"))?;
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| CryptoError::Faulty)?;
        let spki = spki.as_ref().to_vec();
        let key = OaepPrivateDecryptingKey::new(key).map_err(|_| CryptoError::Faulty)?;
        Ok(Box::new(RsaKey { key, spki }))
    }
}

struct RsaKey {
    key: OaepPrivateDecryptingKey,
    spki: Vec<u8>,
}

impl PrivateKey for RsaKey {
    fn public_key(&self) -> Option<&[u8]> {
        Some(&self.spki)
    }

    fn decrypt(&self, algorithm: Algorithm, ciphertext: &[u8], _: &[u8]) -> Result<SecretBytes, CryptoError> {
        if algorithm != Algorithm::RsaOaepSha256 {
            return Err(CryptoError::Unsupported(algorithm));
        }
        if ciphertext.len() != MODULUS {
            return Err(CryptoError::DecryptionFailed);
        }
        let mut buffer = SecretBytes::zeroed(MODULUS);
        let plaintext =
            self.key.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, buffer.expose_mut(), None).map_err(|_| CryptoError::DecryptionFailed)?;
        Ok(SecretBytes::copy_of(plaintext))
    }
}
