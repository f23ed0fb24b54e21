//! Reads a public key in each form that Canton reads, and checks it as Canton does (`CryptoKeyValidation.scala`).

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, ParsedPublicKey, UnparsedPublicKey};
use curve25519_dalek::edwards::CompressedEdwardsY;

use crate::crypto::{
    curve::CURVES,
    der::{self, BIT_STRING, INTEGER, NULL, NotDer, OBJECT_IDENTIFIER, Reader, SEQUENCE},
    fingerprint_of_bytes,
    pkcs8::{EC_PUBLIC_KEY, ED25519, RSA_ENCRYPTION},
};
use crate::domain::{Fingerprint, KeySpec, Purpose};

use super::{
    CantonFileError,
    messages::{FORMAT_DER, FORMAT_RAW, FORMAT_SPKI},
    names::{ENCRYPTION_KEY_SCHEME, ENCRYPTION_KEY_SPEC, SIGNING_KEY_SCHEME, SIGNING_KEY_SPEC},
};

/// A `SigningPublicKey` or `EncryptionPublicKey` of Canton, undecoded.
pub struct PublicKeyMessage<'a> {
    /// Signing or encryption.
    pub purpose: Purpose,
    /// `CryptoKeyFormat`.
    pub format: i32,
    /// The key in this format.
    pub bytes: &'a [u8],
    /// The deprecated scheme, which is read where the spec is 0.
    pub scheme: i32,
    /// The spec, or 0.
    pub key_spec: i32,
}

/// A public key that Canton reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CantonPublicKey {
    /// The spec.
    pub spec: KeySpec,
    /// Canton's fingerprint, which follows the bytes as given. An Ed25519 key has the fingerprint of its raw 32 bytes.
    pub fingerprint: Fingerprint,
}

/// `id-RSASSA-PSS` and `id-RSAES-OAEP`, content bytes. Canton reads keys with these OIDs too.
const OTHER_RSA: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07]];

const fn fault(what: &'static str) -> CantonFileError {
    CantonFileError::PublicKey(what)
}

/// Reads a public key. EC points can be compressed or hybrid. Explicit curve parameters, which Canton reads, are refused.
///
/// # Errors
/// [`CantonFileError::Unsupported`] or [`CantonFileError::PublicKey`].
pub fn read_public_key(key: &PublicKeyMessage<'_>) -> Result<CantonPublicKey, CantonFileError> {
    let (specs, schemes) = match key.purpose {
        Purpose::Signing => (SIGNING_KEY_SPEC, SIGNING_KEY_SCHEME),
        _ => (ENCRYPTION_KEY_SPEC, ENCRYPTION_KEY_SCHEME),
    };
    let spec = if key.key_spec == 0 { schemes.spec(key.scheme)? } else { specs.spec(key.key_spec)? };
    let hashed = match (key.format, spec) {
        (FORMAT_RAW, KeySpec::EcCurve25519) => check_ed25519(key.bytes)?,
        (FORMAT_SPKI, _) | (FORMAT_DER, KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::Rsa2048) => check_spki(spec, key.bytes)?,
        (number, _) => return Err(CantonFileError::Unsupported { what: "public key format", number, name: "" }),
    };
    Ok(CantonPublicKey { spec, fingerprint: fingerprint_of_bytes(hashed) })
}

/// Checks a `SubjectPublicKeyInfo`. Returns the bytes that the fingerprint covers.
fn check_spki(spec: KeySpec, spki: &[u8]) -> Result<&[u8], CantonFileError> {
    const SHAPE: CantonFileError = fault("it is not a SubjectPublicKeyInfo in DER");
    let PublicKeyInfo { algorithm, parameters, key } = parse(spki).map_err(|NotDer| SHAPE)?;
    match spec {
        KeySpec::EcCurve25519 => {
            let null_or_nothing = parameters.is_empty() || Reader::new(parameters).take(NULL).is_ok();
            if algorithm != ED25519 || !null_or_nothing {
                return Err(fault("it is not an Ed25519 key"));
            }
            check_ed25519(key)
        }
        KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcSecp256k1 => {
            const OTHER: CantonFileError = fault("it is not a key on the named curve of its spec");
            let mut reader = Reader::new(parameters);
            let named = reader.take(OBJECT_IDENTIFIER).and_then(|oid| reader.end().map(|()| oid)).map_err(|NotDer| OTHER)?;
            let curve = CURVES.iter().find(|curve| curve.spec == spec).ok_or(OTHER)?;
            if algorithm != EC_PUBLIC_KEY || named != curve.oid {
                return Err(OTHER);
            }
            check_point(spec, curve.field, key)?;
            Ok(spki)
        }
        KeySpec::Rsa2048 => {
            let is_rsa = algorithm == RSA_ENCRYPTION && (parameters.is_empty() || Reader::new(parameters).take(NULL).is_ok());
            let is_other = OTHER_RSA.contains(&algorithm) && parameters.is_empty();
            if !is_rsa && !is_other {
                return Err(fault("it is not an RSA key"));
            }
            check_rsa(key).map_err(|NotDer| fault("it is not an RSA key with a modulus of 2048 bits and the exponent 65537"))?;
            Ok(spki)
        }
        KeySpec::Aes256 => Err(SHAPE),
    }
}

/// The parts of a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
struct PublicKeyInfo<'a> {
    algorithm: &'a [u8],
    parameters: &'a [u8],
    key: &'a [u8],
}

fn parse(spki: &[u8]) -> Result<PublicKeyInfo<'_>, NotDer> {
    let mut outer = Reader::new(spki);
    let mut info = Reader::new(outer.take(SEQUENCE)?);
    outer.end()?;
    let mut identifier = Reader::new(info.take(SEQUENCE)?);
    let algorithm = identifier.take(OBJECT_IDENTIFIER)?;
    let key = der::whole_bytes(info.take(BIT_STRING)?)?;
    info.end()?;
    Ok(PublicKeyInfo { algorithm, parameters: identifier.rest(), key })
}

/// A canonical point in the prime-order subgroup, as Bouncy Castle's `validatePublicKeyFull` requires.
fn check_ed25519(raw: &[u8]) -> Result<&[u8], CantonFileError> {
    const FAULT: CantonFileError = fault("it is not a valid Ed25519 point of 32 bytes");
    let compressed = CompressedEdwardsY::from_slice(raw).map_err(|_| FAULT)?;
    let point = compressed.decompress().ok_or(FAULT)?;
    let valid = point.compress() == compressed && !point.is_small_order() && point.is_torsion_free();
    if valid { Ok(raw) } else { Err(FAULT) }
}

/// A point on the curve: uncompressed, compressed, or hybrid with the right parity (SEC 1 §2.3.3). Not infinity.
fn check_point(spec: KeySpec, field: usize, point: &[u8]) -> Result<(), CantonFileError> {
    const FAULT: CantonFileError = fault("it is not a point on its curve");
    let (form, coordinates) = point.split_first().ok_or(FAULT)?;
    let (expected, parity_holds) = match form {
        2 | 3 => (field, true),
        4 => (2 * field, true),
        6 | 7 => (2 * field, coordinates.last().is_some_and(|last| last & 1 == form & 1)),
        _ => return Err(FAULT),
    };
    if coordinates.len() != expected || !parity_holds {
        return Err(FAULT);
    }
    let plain = if matches!(form, 6 | 7) { [&[4], coordinates].concat() } else { point.to_vec() };
    let on_curve = match spec {
        KeySpec::EcP256 => ParsedPublicKey::try_from(&UnparsedPublicKey::new(&ECDH_P256, &plain)).is_ok(),
        KeySpec::EcP384 => ParsedPublicKey::try_from(&UnparsedPublicKey::new(&ECDH_P384, &plain)).is_ok(),
        _ => k256::PublicKey::from_sec1_bytes(&plain).is_ok(),
    };
    if on_curve { Ok(()) } else { Err(FAULT) }
}

/// RFC 8017 §A.1.1 `RSAPublicKey`.
fn check_rsa(key: &[u8]) -> Result<(), NotDer> {
    let mut outer = Reader::new(key);
    let mut numbers = Reader::new(outer.take(SEQUENCE)?);
    outer.end()?;
    let modulus = numbers.unsigned()?;
    let exponent = numbers.take(INTEGER)?;
    numbers.end()?;
    let is_2048 = modulus.len() == 256 && modulus.first().is_some_and(|first| *first >= 0x80);
    if is_2048 && exponent == [1, 0, 1] { Ok(()) } else { Err(NotDer) }
}
