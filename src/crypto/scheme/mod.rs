//! The `Scheme` trait and the table of schemes. A new scheme is one file and one line in the table.

use crate::domain::{Algorithm, KeySpec, Purpose, SignatureFormat};

use super::{CryptoError, Random, SecretBytes, curve::Curve};

mod aes256_gcm;
mod ecdsa;
mod ecdsa_secp256k1;
mod ecies_p256;
pub mod ecies_sender;
pub(super) mod ed25519;
mod ed25519_verifier;
mod rsa_oaep;

pub use self::ed25519::verify_ed25519;

/// All schemes.
pub const SCHEMES: &[&dyn Scheme] = &[
    &ed25519::Ed25519,
    &ecdsa::P256,
    &ecdsa::P384,
    &ecdsa_secp256k1::EcdsaSecp256k1,
    &ecies_p256::EciesP256,
    &rsa_oaep::RsaOaep,
    &aes256_gcm::Aes256Gcm,
];

/// Maximum length in bytes of a message to sign or of a plaintext, as in Canton's driver contract (`ByteString4096`).
pub const MAX_MESSAGE: usize = 4096;

/// The scheme of this spec and purpose. A P-256 key either signs or decrypts, never both.
pub fn scheme(spec: KeySpec, purpose: Purpose) -> Option<&'static dyn Scheme> {
    SCHEMES.iter().copied().find(|scheme| scheme.spec() == spec && scheme.purpose() == purpose)
}

/// A scheme: how keys of one spec and purpose are generated and parsed, and what they support.
pub trait Scheme: Sync {
    /// The spec of its keys.
    fn spec(&self) -> KeySpec;
    /// The purpose of its keys.
    fn purpose(&self) -> Purpose;
    /// The algorithms that its keys support. The first is the default.
    fn algorithms(&self) -> &'static [Algorithm];
    /// The format of its signatures. `None` if its keys do not sign.
    fn signature_format(&self) -> Option<SignatureFormat> {
        None
    }
    /// Whether one operation takes more than about 100 µs. Such an operation runs on a blocking thread and has its own limit.
    fn is_expensive(&self) -> bool {
        false
    }
    /// Generates key material: PKCS#8 (as Canton writes it) for a key pair, 32 raw bytes for a symmetric key.
    ///
    /// # Errors
    /// [`CryptoError::Faulty`] if there is no randomness.
    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError>;
    /// Parses and validates key material.
    ///
    /// # Errors
    /// [`CryptoError::BadKey`], naming the fault.
    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError>;
}

/// A parsed key. It can be used but not read. It is wiped on drop.
pub trait PrivateKey: Send + Sync {
    /// X.509 `SubjectPublicKeyInfo`, DER, EC points uncompressed; `None` for a symmetric key.
    fn public_key(&self) -> Option<&[u8]>;

    /// Signs a *message* of at most 4096 bytes (never a digest), and verifies the signature before it returns.
    ///
    /// # Errors
    /// [`CryptoError::Unsupported`], [`CryptoError::TooLong`], or [`CryptoError::Faulty`] if the signature does not verify.
    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let _ = message;
        Err(CryptoError::Unsupported(algorithm))
    }

    /// Decrypts. Only symmetric keys use `aad`.
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
    /// [`CryptoError::Unsupported`], [`CryptoError::TooLong`] above 4096 bytes, or [`CryptoError::Faulty`] if there is no randomness.
    fn encrypt(&self, algorithm: Algorithm, plaintext: &[u8], aad: &[u8], random: &dyn Random) -> Result<Vec<u8>, CryptoError> {
        let _ = (plaintext, aad, random);
        Err(CryptoError::Unsupported(algorithm))
    }
}

fn check_message(message: &[u8]) -> Result<(), CryptoError> {
    if message.len() > MAX_MESSAGE { Err(CryptoError::TooLong(MAX_MESSAGE)) } else { Ok(()) }
}

/// A uniform scalar by rejection sampling (FIPS 186-5 §A.2.2), as canonical PKCS#8.
fn generate_ec(curve: &Curve, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
    let mut scalar = SecretBytes::zeroed(curve.field);
    // A scalar is out of range with a probability below 2^-31. A generator that fails eight times is broken.
    for _ in 0..8 {
        random.fill(scalar.expose_mut()).map_err(|_| CryptoError::Faulty)?;
        if let Ok(point) = curve.point(scalar.expose()) {
            return Ok(curve.pkcs8(scalar.expose(), &point));
        }
    }
    Err(CryptoError::Faulty)
}
