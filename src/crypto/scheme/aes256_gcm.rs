//! AES-256-GCM under a symmetric key: `0x01 ‖ nonce(12) ‖ ciphertext ‖ tag(16)`, bound to additional data.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::domain::{Algorithm, KeySpec, Purpose};

use super::{CryptoError, MAX_MESSAGE, PrivateKey, Random, Scheme, SecretBytes};

/// The version byte of every ciphertext.
const VERSION: u8 = 1;
const HEAD: usize = 1 + NONCE_LEN;
const TAG: usize = 16;

/// Symmetric keys of 32 bytes.
pub(super) struct Aes256Gcm;

impl Scheme for Aes256Gcm {
    fn spec(&self) -> KeySpec {
        KeySpec::Aes256
    }

    fn purpose(&self) -> Purpose {
        Purpose::Symmetric
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::Aes256Gcm]
    }

    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
        let mut key = SecretBytes::zeroed(32);
        random.fill(key.expose_mut()).map_err(|_| CryptoError::Faulty)?;
        Ok(key)
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let key = UnboundKey::new(&AES_256_GCM, material.expose()).map_err(|_| CryptoError::BadKey("it does not have 32 bytes"))?;
        Ok(Box::new(AesKey(LessSafeKey::new(key))))
    }
}

struct AesKey(LessSafeKey);

impl PrivateKey for AesKey {
    fn public_key(&self) -> Option<&[u8]> {
        None
    }

    fn encrypt(&self, algorithm: Algorithm, plaintext: &[u8], aad: &[u8], random: &dyn Random) -> Result<Vec<u8>, CryptoError> {
        check(algorithm)?;
        if plaintext.len() > MAX_MESSAGE {
            return Err(CryptoError::TooLong(MAX_MESSAGE));
        }
        // Random nonces: 2^32 encryptions under one key stay within the limit of NIST SP 800-38D §8.3.
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).map_err(|_| CryptoError::Faulty)?;
        // The capacity is exactly that of the result, so that the plaintext is overwritten in place and never moved.
        let mut sealed = Vec::with_capacity(HEAD + plaintext.len() + TAG);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let (_, in_out) = sealed.split_at_mut_checked(HEAD).ok_or(CryptoError::Faulty)?;
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .map_err(|_| CryptoError::Faulty)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    fn decrypt(&self, algorithm: Algorithm, ciphertext: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
        check(algorithm)?;
        let Some(([VERSION], rest)) = ciphertext.split_first_chunk() else { return Err(CryptoError::DecryptionFailed) };
        let (&nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(CryptoError::DecryptionFailed)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG>().ok_or(CryptoError::DecryptionFailed)?;
        let mut plaintext = SecretBytes::zeroed(sealed.len());
        self.0
            .open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed, tag, plaintext.expose_mut())
            .map_err(|_| CryptoError::DecryptionFailed)?;
        Ok(plaintext)
    }
}

fn check(algorithm: Algorithm) -> Result<(), CryptoError> {
    if algorithm == Algorithm::Aes256Gcm { Ok(()) } else { Err(CryptoError::Unsupported(algorithm)) }
}
