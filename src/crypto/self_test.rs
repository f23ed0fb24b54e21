//! Proves that an opened key works before it is trusted with anything.

use crate::domain::{Algorithm, Purpose};

use super::{CryptoError, PrivateKey, Scheme, SecretBytes, ecies_sender};

/// What is signed or encrypted. It names itself, so that a stray signature of it could be told, and Canton hashes with another prefix.
const MESSAGE: &[u8] = b"canton-keyvault/self_test-on-load/v1";

/// Proves a key with its scheme:
/// signing keys sign a fixed message, which verifies it with the public key; ECIES keys decrypt what was encrypted to their public key;
/// RSA keys were proven when parsed (the library checks that all numbers fit together, which a decryption would not show better);
/// symmetric keys have nothing to prove: any 32 bytes are one. Well below a millisecond.
///
/// # Errors
/// [`CryptoError::Faulty`] if the key does not do what its public key promises.
pub fn self_test(key: &dyn PrivateKey, scheme: &dyn Scheme) -> Result<(), CryptoError> {
    let &algorithm = scheme.algorithms().first().ok_or(CryptoError::Faulty)?;
    match (scheme.purpose(), algorithm) {
        (Purpose::Signing, _) => key.sign(algorithm, MESSAGE).map(drop),
        (Purpose::Encryption, Algorithm::EciesP256) => {
            // A fixed sender: a known answer needs no randomness, and nothing here is confidential.
            let public_key = key.public_key().ok_or(CryptoError::Faulty)?;
            let ciphertext = ecies_sender::encrypt_with(public_key, MESSAGE, [0; 16], &SecretBytes::copy_of(&[1; 32]))?;
            let plaintext = key.decrypt(algorithm, &ciphertext, &[]).map_err(|_| CryptoError::Faulty)?;
            if plaintext.expose() == MESSAGE { Ok(()) } else { Err(CryptoError::Faulty) }
        }
        (Purpose::Encryption | Purpose::Symmetric, _) => Ok(()),
    }
}
