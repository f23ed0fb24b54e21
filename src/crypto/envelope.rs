//! The envelope: seals a private key under its own data key, bound to its attributes. It opens only with the same data key and attributes.
//!
//! Version 1 is `0x01 ‖ salt(32) ‖ commitment(32) ‖ AES-256-GCM ciphertext ‖ tag(16)` with
//!
//! ```text
//! seal key ‖ commitment ‖ row key = HKDF-SHA256(ikm = data key, salt, info = "canton-keyvault/seal/v1" ‖ context)    3 × 32 bytes
//! ciphertext ‖ tag                = AES-256-GCM(seal key, nonce = 12 zero bytes, material, AAD = context)
//! ```
//!
//! The nonce can be constant, because every salt gives another seal key, which encrypts once. AES-GCM does not commit to its key. The
//! commitment does, and is compared before the decryption.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use aws_lc_rs::hmac;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::{EncryptionContext, SealedKey};

use super::{CryptoError, Random, SecretBytes};

/// Length of a data key in bytes.
pub const DATA_KEY_LENGTH: usize = 32;

const VERSION: u8 = 1;
const SALT: usize = 32;
const COMMITMENT: usize = 32;
const TAG: usize = 16;
const INFO: &[u8] = b"canton-keyvault/seal/v1";

/// An opened key.
///
/// ```compile_fail
/// fn show(opened: &canton_keyvault::crypto::envelope::Opened) -> String {
///     format!("{opened:?}")
/// }
/// ```
pub struct Opened {
    /// PKCS#8, or the raw bytes of a symmetric key.
    pub material: SecretBytes,
    /// Authenticates the mutable state of the row.
    pub row_key: RowKey,
}

/// Why a sealed key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The version is unknown: the bytes were written by a newer program, or are not a sealed key.
    #[error("the sealed key has a version that this program does not support")]
    UnknownVersion,
    /// The bytes are too short, or the data key does not have 32 bytes.
    #[error("the sealed key or its data key has a wrong length")]
    Malformed,
    /// The data key belongs to another key, or the salt, the commitment or a bound attribute was edited.
    #[error("the sealed key was not sealed under this data key with these attributes")]
    Commitment,
    /// The data key is right, but the ciphertext was edited.
    #[error("the sealed key was edited")]
    Sealed,
}

/// A new random data key.
///
/// # Errors
/// [`CryptoError::Faulty`] if there is no randomness.
pub fn new_data_key(random: &dyn Random) -> Result<SecretBytes, CryptoError> {
    let mut key = SecretBytes::zeroed(DATA_KEY_LENGTH);
    random.fill(key.expose_mut()).map_err(|_| CryptoError::Faulty)?;
    Ok(key)
}

/// Seals `material` under a data key of 32 bytes, bound to `context`. The row key authenticates the first row.
///
/// # Errors
/// [`CryptoError::Faulty`] if there is no randomness, [`CryptoError::BadKey`] if the data key has another length.
pub fn seal(
    data_key: &SecretBytes,
    material: &SecretBytes,
    context: &EncryptionContext,
    random: &dyn Random,
) -> Result<(SealedKey, RowKey), CryptoError> {
    let context = context.canonical_bytes();
    let mut salt = [0; SALT];
    random.fill(&mut salt).map_err(|_| CryptoError::Faulty)?;
    let derived = Derived::new(data_key, &salt, &context).ok_or(CryptoError::BadKey("a data key has 32 bytes"))?;

    // The capacity is exactly that of the result, so that the material is overwritten in place and never moved.
    let mut sealed = Vec::with_capacity(1 + SALT + COMMITMENT + material.expose().len() + TAG);
    sealed.push(VERSION);
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(derived.commitment.expose());
    let head = sealed.len();
    sealed.extend_from_slice(material.expose());
    let (_, in_out) = sealed.split_at_mut_checked(head).ok_or(CryptoError::Faulty)?;
    let tag = derived
        .cipher()
        .and_then(|cipher| cipher.encrypt_inout_detached(&Nonce::default(), &context, in_out.into()).ok())
        .ok_or(CryptoError::Faulty)?;
    sealed.extend_from_slice(&tag);
    Ok((SealedKey::from_stored(sealed), RowKey(derived.row_key)))
}

/// Opens a sealed key. It opens only with its own data key and the context that it was sealed with.
///
/// # Errors
/// [`OpenError`], of which each tells what is wrong.
pub fn open(data_key: &SecretBytes, sealed: &SealedKey, context: &EncryptionContext) -> Result<Opened, OpenError> {
    let parts = Parts::split(sealed)?;
    let context = context.canonical_bytes();
    let derived = parts.derive(data_key, &context)?;
    let mut material = SecretBytes::copy_of(parts.ciphertext);
    derived
        .cipher()
        .ok_or(OpenError::Malformed)?
        .decrypt_inout_detached(&Nonce::default(), &context, material.expose_mut().into(), &Tag::from(*parts.tag))
        .map_err(|_| OpenError::Sealed)?;
    Ok(Opened { material, row_key: RowKey(derived.row_key) })
}

/// Whether `sealed` commits to this data key and context. This verifies a wrap without opening the private key.
pub fn commits(data_key: &SecretBytes, sealed: &SealedKey, context: &EncryptionContext) -> bool {
    Parts::split(sealed).and_then(|parts| parts.derive(data_key, &context.canonical_bytes())).is_ok()
}

/// Authenticates the mutable state of a row. It is wiped on drop.
///
/// ```compile_fail
/// fn show(key: &canton_keyvault::crypto::envelope::RowKey) -> String {
///     format!("{key:?}")
/// }
/// ```
pub struct RowKey(SecretBytes);

impl RowKey {
    /// HMAC-SHA256 over `KeyRecord::tagged_bytes`.
    pub fn tag(&self, bytes: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        // SHA-256 gives 32 bytes. With another length the zeros would never verify.
        if let Ok(bytes) = hmac::sign(&self.key(), bytes).as_ref().try_into() {
            tag = bytes;
        }
        tag
    }

    /// Whether `tag` is the tag of `bytes`, compared in constant time.
    pub fn verify(&self, bytes: &[u8], tag: &[u8; 32]) -> bool {
        hmac::verify(&self.key(), bytes, tag).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose())
    }
}

/// The parts of a sealed key of version 1.
struct Parts<'a> {
    salt: &'a [u8; SALT],
    commitment: &'a [u8; COMMITMENT],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    fn split(sealed: &'a SealedKey) -> Result<Self, OpenError> {
        let Some(([VERSION], rest)) = sealed.as_bytes().split_first_chunk() else { return Err(OpenError::UnknownVersion) };
        let (salt, rest) = rest.split_first_chunk().ok_or(OpenError::Malformed)?;
        let (commitment, rest) = rest.split_first_chunk().ok_or(OpenError::Malformed)?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or(OpenError::Malformed)?;
        Ok(Self { salt, commitment, ciphertext, tag })
    }

    /// Derives the keys, and compares the commitment in constant time.
    fn derive(&self, data_key: &SecretBytes, context: &[u8]) -> Result<Derived, OpenError> {
        let derived = Derived::new(data_key, self.salt, context).ok_or(OpenError::Malformed)?;
        if bool::from(derived.commitment.expose().ct_eq(self.commitment)) { Ok(derived) } else { Err(OpenError::Commitment) }
    }
}

/// The keys derived from a data key.
struct Derived {
    seal_key: SecretBytes,
    commitment: SecretBytes,
    row_key: SecretBytes,
}

impl Derived {
    fn new(data_key: &SecretBytes, salt: &[u8; SALT], context: &[u8]) -> Option<Self> {
        if data_key.expose().len() != DATA_KEY_LENGTH {
            return None;
        }
        let mut bytes = SecretBytes::zeroed(96);
        Hkdf::<Sha256>::new(Some(salt), data_key.expose()).expand_multi_info(&[INFO, context], bytes.expose_mut()).ok()?;
        let ([seal_key, commitment, row_key], []) = bytes.expose().as_chunks::<32>() else { return None };
        let [seal_key, commitment, row_key] = [seal_key, commitment, row_key].map(|part| SecretBytes::copy_of(part));
        Some(Self { seal_key, commitment, row_key })
    }

    fn cipher(&self) -> Option<Aes256Gcm> {
        Aes256Gcm::new_from_slice(self.seal_key.expose()).ok()
    }
}
