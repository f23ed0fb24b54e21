//! The sender of Canton's ECIES, for the self-test of a key, for tests, `bench` and `dev`. The vault does not encrypt for callers with it.

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey as EcdhKey},
    cipher::{EncryptionContext, PaddedBlockEncryptingKey},
    iv::FixedLength,
};

use crate::crypto::curve::P256;

use super::{
    CryptoError, Random, SecretBytes,
    ecies_p256::{IV, MAC, POINT, derive, encryption_key, tag},
};

/// Encrypts to a P-256 public key (`SubjectPublicKeyInfo`, DER), as Canton does: `IV(16) ‖ V(65) ‖ C(16k) ‖ T(32)`.
///
/// # Errors
/// [`CryptoError::BadKey`] if the public key is none of P-256; [`CryptoError::Faulty`] if there is no randomness.
pub fn encrypt_to(spki: &[u8], plaintext: &[u8], random: &dyn Random) -> Result<Vec<u8>, CryptoError> {
    let mut iv = [0; IV];
    let mut scalar = SecretBytes::zeroed(P256.field);
    random.fill(&mut iv).map_err(|_| CryptoError::Faulty)?;
    random.fill(scalar.expose_mut()).map_err(|_| CryptoError::Faulty)?;
    encrypt_with(spki, plaintext, iv, &scalar)
}

/// Encrypts with a given IV (16 bytes) and ephemeral scalar (32 bytes), for known answers only. Use [`encrypt_to`] otherwise.
///
/// # Errors
/// [`CryptoError::BadKey`] if the public key is none of P-256; [`CryptoError::Faulty`] if the scalar is out of range.
pub fn encrypt_with(spki: &[u8], plaintext: &[u8], iv: [u8; IV], ephemeral: &SecretBytes) -> Result<Vec<u8>, CryptoError> {
    const NO_POINT: CryptoError = CryptoError::BadKey("the public key is no uncompressed point on P-256");
    let recipient: &[u8; POINT] = P256.point_in(spki).and_then(|point| point.try_into().ok()).ok_or(NO_POINT)?;
    let point: [u8; POINT] = P256.point(ephemeral.expose())?.try_into().map_err(|_| CryptoError::Faulty)?;
    let own = EcdhKey::from_private_key(&ECDH_P256, ephemeral.expose()).map_err(|_| CryptoError::Faulty)?;
    let derived = derive(&own, recipient, &point).ok_or(NO_POINT)?;
    let mut encrypted = Vec::with_capacity(plaintext.len() + 16);
    encrypted.extend_from_slice(plaintext);
    encryption_key(&derived)
        .and_then(|key| PaddedBlockEncryptingKey::cbc_pkcs7(key).ok())
        .and_then(|key| key.less_safe_encrypt(&mut encrypted, EncryptionContext::Iv128(FixedLength::from(&iv))).ok())
        .ok_or(CryptoError::Faulty)?;
    let mac = tag(&derived, &encrypted).ok_or(CryptoError::Faulty)?;
    let mut ciphertext = Vec::with_capacity(IV + POINT + encrypted.len() + MAC);
    for part in [&iv[..], &point, &encrypted, mac.as_ref()] {
        ciphertext.extend_from_slice(part);
    }
    Ok(ciphertext)
}
