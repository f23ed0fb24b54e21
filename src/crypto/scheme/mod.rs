//! The joint of all schemes: how a key is made, read and used. A new scheme is one file and one line in the table.

use crate::domain::{Algorithm, KeySpec, Purpose};

use super::{Random, SecretBytes};

/// Why key material was refused, or an operation was not done. Every way a decryption can fail is `DecryptionFailed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// This key does not do that, whatever the input.
    #[error("a key of this spec and purpose does not do {0}")]
    Unsupported(Algorithm),
    /// Point, MAC, padding, length, tag: one error for all.
    #[error("the ciphertext does not decrypt under this key")]
    DecryptionFailed,
    /// The material is no key of the scheme; the text names the fault and holds no part of the key.
    #[error("not a usable key: {0}")]
    BadKey(&'static str),
    /// The input is longer than the algorithm takes.
    #[error("at most {0} bytes fit")]
    TooLong(usize),
    /// A signature did not verify, or the generator failed: nothing left the vault.
    #[error("the computation failed its own check")]
    Faulty,
}

/// What a key is for, and which algorithms it answers to.
pub trait Scheme: Sync {
    /// What its keys are.
    fn spec(&self) -> KeySpec;
    /// What its keys are for.
    fn purpose(&self) -> Purpose;
    /// The algorithms its keys answer to; the first is the default.
    fn algorithms(&self) -> &'static [Algorithm];
    /// New key material: PKCS#8 (as Canton writes it) for a key pair, 32 raw bytes for a symmetric key.
    ///
    /// # Errors
    /// [`CryptoError::Faulty`] if there is no randomness.
    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError>;
    /// Reads key material, and checks all that can be checked.
    ///
    /// # Errors
    /// [`CryptoError::BadKey`], naming the fault.
    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError>;
}

/// A parsed, ready-to-use key. It can be used; it cannot be read. Wipes itself on drop.
pub trait PrivateKey: Send + Sync {
    /// X.509 `SubjectPublicKeyInfo`, DER, EC points uncompressed; `None` for a symmetric key.
    fn public_key(&self) -> Option<&[u8]>;

    /// Signs a *message* of at most 4096 bytes (never a digest), and verifies before returning.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`], or [`CryptoError::Faulty`] if the signature does not verify.
    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let _ = message;
        Err(CryptoError::Unsupported(algorithm))
    }

    /// Decrypts. `aad` is bound by symmetric keys alone.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`] or [`CryptoError::DecryptionFailed`].
    fn decrypt(&self, algorithm: Algorithm, ciphertext: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
        let _ = (ciphertext, aad);
        Err(CryptoError::Unsupported(algorithm))
    }

    /// Encrypts under a symmetric key: `0x01 ‖ nonce(12) ‖ ciphertext ‖ tag(16)`.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`], or [`CryptoError::Faulty`] if there is no randomness.
    fn encrypt(&self, algorithm: Algorithm, plaintext: &[u8], aad: &[u8], random: &dyn Random) -> Result<Vec<u8>, CryptoError> {
        let _ = (plaintext, aad, random);
        Err(CryptoError::Unsupported(algorithm))
    }
}
