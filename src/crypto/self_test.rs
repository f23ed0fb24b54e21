//! Self-test of an opened key before it is used.

use crate::domain::{Algorithm, Purpose};

use super::{CryptoError, PrivateKey, Scheme, SecretBytes, ecies_sender};

/// The message that is signed or encrypted. It identifies itself, and Canton hashes with another prefix.
const MESSAGE: &[u8] = b"canton-keyvault/self_test-on-load/v1";

/// Tests a key with its scheme. A signing key signs a fixed message, and the scheme verifies the signature with the public key. An ECIES
/// key decrypts what was encrypted to its public key. An RSA key was validated when it was parsed: the library checks that all numbers
/// belong together. A symmetric key needs no test, because any 32 bytes are a key. Takes well below a millisecond.
///
/// # Errors
/// [`CryptoError::Faulty`] if the key does not do what its public key promises.
pub fn self_test(key: &dyn PrivateKey, scheme: &dyn Scheme) -> Result<(), CryptoError> {
    let &algorithm = scheme.algorithms().first().ok_or(CryptoError::Faulty)?;
    match (scheme.purpose(), algorithm) {
        (Purpose::Signing, _) => key.sign(algorithm, MESSAGE).map(drop),
        (Purpose::Encryption, Algorithm::EciesP256) => {
            // The scalar of the sender is fixed, because nothing here is confidential.
            let public_key = key.public_key().ok_or(CryptoError::Faulty)?;
            let ciphertext = ecies_sender::encrypt_with(public_key, MESSAGE, [0; 16], &SecretBytes::copy_of(&[1; 32]))?;
            let plaintext = key.decrypt(algorithm, &ciphertext, &[]).map_err(|_| CryptoError::Faulty)?;
            if plaintext.expose() == MESSAGE { Ok(()) } else { Err(CryptoError::Faulty) }
        }
        (Purpose::Encryption | Purpose::Symmetric, _) => Ok(()),
    }
}
