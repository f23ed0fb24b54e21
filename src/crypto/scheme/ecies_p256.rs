//! Canton's ECIES over P-256: ECDH, KDF2-SHA256, AES-128-CBC, HMAC-SHA256. It contains no HKDF, despite its name.
//!
//! `IV(16) ‖ V(65) ‖ C(16k) ‖ T(32)`, as Bouncy Castle's `ECIESwithSHA256andAES-CBC` makes it for Canton's `JcePureCrypto`:
//!
//! ```text
//! V     = ephemeral point, uncompressed          Z = x-coordinate of the shared point, 32 bytes
//! K     = KDF2-SHA256(V ‖ Z, 80 bytes)           k_enc = K[..16], k_mac = K[16..]
//! C     = AES-128-CBC(k_enc, IV, PKCS#7 padded)  T = HMAC-SHA256(k_mac, C ‖ 8 zero bytes)
//! ```
//!
//! Canton also decrypts ciphertexts whose V is compressed (33 bytes) or hybrid (65 bytes). The KDF then uses V as sent.
//!
//! The MAC does not cover the IV: a changed IV changes the first block of the plaintext. This is Canton's format.

use std::borrow::Cow;

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey as EcdhKey, UnparsedPublicKey, agree},
    cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    hmac,
    iv::FixedLength,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::crypto::{curve::P256, pkcs8::PrivateKeyInfo};
use crate::domain::{Algorithm, KeySpec, Purpose};

use super::{CryptoError, PrivateKey, Random, Scheme, SecretBytes, generate_ec};

pub(super) const IV: usize = 16;
pub(super) const POINT: usize = 65;
pub(super) const MAC: usize = 32;
/// Length of the AES key in bytes. The other 64 of the 80 derived bytes are the MAC key.
const ENCRYPTION_KEY: usize = 16;
const DERIVED: usize = 80;

/// Keys that decrypt with Canton's ECIES.
pub(super) struct EciesP256;

impl Scheme for EciesP256 {
    fn spec(&self) -> KeySpec {
        KeySpec::EcP256
    }

    fn purpose(&self) -> Purpose {
        Purpose::Encryption
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::EciesP256]
    }

    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
        generate_ec(&P256, random)
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let (scalar, point) = PrivateKeyInfo::read(material)?.ec(&P256)?;
        let key = EcdhKey::from_private_key(&ECDH_P256, scalar).map_err(|_| CryptoError::Faulty)?;
        Ok(Box::new(EciesKey { key, spki: P256.spki(&point) }))
    }
}

struct EciesKey {
    key: EcdhKey,
    spki: Vec<u8>,
}

impl PrivateKey for EciesKey {
    fn public_key(&self) -> Option<&[u8]> {
        Some(&self.spki)
    }

    fn decrypt(&self, algorithm: Algorithm, ciphertext: &[u8], _: &[u8]) -> Result<SecretBytes, CryptoError> {
        if algorithm != Algorithm::EciesP256 {
            return Err(CryptoError::Unsupported(algorithm));
        }
        self.open(ciphertext).ok_or(CryptoError::DecryptionFailed)
    }
}

impl EciesKey {
    /// `None` for any fault. The MAC is compared before the padding is checked, so that there is no padding oracle.
    fn open(&self, ciphertext: &[u8]) -> Option<SecretBytes> {
        let (iv, rest) = ciphertext.split_first_chunk::<IV>()?;
        let (point, rest) = rest.split_at_checked(point_length(*rest.first()?)?)?;
        let (encrypted, mac) = rest.split_last_chunk::<MAC>()?;
        // Whole blocks only. CBC would report a wrong length after the MAC, but the length is public.
        if encrypted.is_empty() || !encrypted.len().is_multiple_of(16) {
            return None;
        }
        let derived = derive(&self.key, &usable_point(point)?, point)?;
        if !bool::from(tag(&derived, encrypted)?.as_ref().ct_eq(mac)) {
            return None;
        }
        let mut plaintext = SecretBytes::copy_of(encrypted);
        let length = PaddedBlockDecryptingKey::cbc_pkcs7(encryption_key(&derived)?)
            .ok()?
            .decrypt(plaintext.expose_mut(), DecryptionContext::Iv128(FixedLength::from(iv)))
            .ok()?
            .len();
        plaintext.truncate(length);
        Some(plaintext)
    }
}

/// Length in bytes of a point with this first byte (SEC 1 §2.3.3). `None` for infinity and for bytes that start no point.
const fn point_length(first: u8) -> Option<usize> {
    match first {
        2 | 3 => Some(1 + POINT / 2),
        4 | 6 | 7 => Some(POINT),
        _ => None,
    }
}

/// The point in a form that the library reads: a hybrid point as an uncompressed one, after a check of its parity bit.
fn usable_point(point: &[u8]) -> Option<Cow<'_, [u8]>> {
    match (point.first()?, point.last()?) {
        (hybrid @ (6 | 7), last) => {
            let (_, coordinates) = point.split_first()?;
            (hybrid & 1 == last & 1).then(|| Cow::Owned([&[4], coordinates].concat()))
        }
        _ => Some(Cow::Borrowed(point)),
    }
}

/// The 80 derived bytes of an ephemeral point V (as sent) and the point of the other side. `None` if the point is infinity or not on the
/// curve.
pub(super) fn derive(own: &EcdhKey, other: &[u8], ephemeral: &[u8]) -> Option<SecretBytes> {
    // The library also reads X.509 keys, which are no points.
    point_length(*other.first()?).filter(|length| *length == other.len())?;
    agree(own, UnparsedPublicKey::new(&ECDH_P256, other), (), |shared| Ok(kdf2(ephemeral, shared))).ok()
}

/// KDF2 of IEEE P1363a / ISO 18033-2 with SHA-256: blocks SHA-256(V ‖ Z ‖ u32be counter), counted from 1, cut to 80 bytes.
fn kdf2(point: &[u8], shared: &[u8]) -> SecretBytes {
    let mut derived = SecretBytes::zeroed(DERIVED);
    for (counter, block) in (1_u32..).zip(derived.expose_mut().chunks_mut(32)) {
        let mut hash = Sha256::new().chain_update(point).chain_update(shared).chain_update(counter.to_be_bytes()).finalize();
        for (to, from) in block.iter_mut().zip(&hash) {
            *to = *from;
        }
        zeroize::Zeroize::zeroize(hash.as_mut_slice());
    }
    derived
}

/// HMAC over the encrypted bytes and the length in bits (u64be) of an encoding vector, which is empty in Canton.
pub(super) fn tag(derived: &SecretBytes, encrypted: &[u8]) -> Option<hmac::Tag> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, derived.expose().get(ENCRYPTION_KEY..)?);
    let mut context = hmac::Context::with_key(&key);
    context.update(encrypted);
    context.update(&[0; 8]);
    Some(context.sign())
}

/// The AES key in the derived bytes.
pub(super) fn encryption_key(derived: &SecretBytes) -> Option<UnboundCipherKey> {
    UnboundCipherKey::new(&AES_128, derived.expose().get(..ENCRYPTION_KEY)?).ok()
}
