//! PKCS#8 (RFC 5208, and RFC 5958 with the public key): parses any valid encoding, and writes one canonical form for each spec. The parser
//! borrows all secrets and copies none.
//!
//! The canonical forms are those that Canton writes: Ed25519, 48 bytes, seed only (RFC 8410); EC, named curve, scalar, `ECParameters` inside
//! `ECPrivateKey` too, and uncompressed point (RFC 5915); RSA, two primes with CRT values. All are version 1 without attributes.

use crate::domain::KeySpec;

use super::{
    CryptoError, SecretBytes,
    curve::{CURVES, Curve},
    der::{self, BIT_STRING, INTEGER, NULL, NotDer, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE},
};

/// The key has another spec than its scheme reads.
pub(super) const OTHER_SPEC: CryptoError = CryptoError::BadKey("it is of another spec than stated");

/// OIDs, content bytes.
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// The tags `[0]` and `[1]`: explicit inside an EC key, implicit in PKCS#8.
const EXPLICIT_0: u8 = 0xa0;
const EXPLICIT_1: u8 = 0xa1;
const IMPLICIT_1: u8 = 0x81;

/// A parsed PKCS#8 private key. It borrows its secrets.
pub(super) enum PrivateKeyInfo<'a> {
    /// RFC 8410.
    Ed25519 {
        /// The 32-byte seed.
        seed: &'a [u8],
        /// The public key in the encoding, if there is one. Its length is not checked here.
        public: Option<&'a [u8]>,
    },
    /// RFC 5915 over a named curve.
    Ec {
        /// The curve.
        curve: &'static Curve,
        /// The scalar, big-endian, as long as the field of the curve. Its range is not checked here.
        scalar: &'a [u8],
        /// The public points in the encoding. They are not checked here.
        public: [Option<&'a [u8]>; 2],
    },
    /// RFC 8017 `RSAPrivateKey`, DER. Size, exponent and form are checked. The consistency of the numbers is not.
    Rsa {
        /// The DER of `RSAPrivateKey`.
        key: &'a [u8],
    },
}

impl<'a> PrivateKeyInfo<'a> {
    /// Parses PKCS#8.
    ///
    /// # Errors
    /// [`CryptoError::BadKey`] unless it is strict DER of a known kind of key.
    pub(super) fn read(material: &'a SecretBytes) -> Result<Self, CryptoError> {
        const SHAPE: CryptoError = CryptoError::BadKey("it is not an unencrypted PKCS#8 private key in DER");
        let Outer { algorithm, parameters, key, public } = Outer::read(material.expose()).map_err(|NotDer| SHAPE)?;
        match algorithm {
            ED25519 => read_ed25519(parameters, key, public),
            EC_PUBLIC_KEY => read_ec(parameters, key, public),
            RSA_ENCRYPTION => read_rsa(parameters, key, public),
            _ => Err(CryptoError::BadKey("its algorithm is none of Ed25519, EC and RSA")),
        }
    }

    /// The spec.
    pub(super) const fn spec(&self) -> KeySpec {
        match self {
            Self::Ed25519 { .. } => KeySpec::EcCurve25519,
            Self::Ec { curve, .. } => curve.spec,
            Self::Rsa { .. } => KeySpec::Rsa2048,
        }
    }

    /// The scalar and the public point of an EC key of this spec, which belong together.
    ///
    /// # Errors
    /// [`CryptoError::BadKey`] if it is another kind of key, if the scalar is out of range, or if a public key inside is not its own.
    pub(super) fn ec(self, wanted: &'static Curve) -> Result<(&'a [u8], Vec<u8>), CryptoError> {
        let Self::Ec { curve, scalar, public } = self else { return Err(OTHER_SPEC) };
        if curve.spec != wanted.spec {
            return Err(OTHER_SPEC);
        }
        let point = curve.point(scalar)?;
        check_public(&point, &public)?;
        Ok((scalar, point))
    }

    /// The canonical form. Only EC keys need `spki`.
    ///
    /// # Errors
    /// [`CryptoError::Faulty`] if `spki` is not of its curve.
    pub(super) fn canonical(&self, spki: Option<&[u8]>) -> Result<SecretBytes, CryptoError> {
        Ok(match self {
            Self::Ed25519 { seed, .. } => write_ed25519(seed),
            Self::Ec { curve, scalar, .. } => curve.pkcs8(scalar, spki.and_then(|spki| curve.point_in(spki)).ok_or(CryptoError::Faulty)?),
            Self::Rsa { key } => write_rsa(key),
        })
    }
}

/// Checks that each public key in the encoding belongs to the private key.
pub(super) fn check_public(own: &[u8], came_with_it: &[Option<&[u8]>]) -> Result<(), CryptoError> {
    if came_with_it.iter().flatten().all(|point| *point == own) {
        Ok(())
    } else {
        Err(CryptoError::BadKey("the public key inside is not its own, or not an uncompressed point"))
    }
}

/// `PrivateKeyInfo` or `OneAsymmetricKey`, before the algorithm is examined.
struct Outer<'a> {
    algorithm: &'a [u8],
    parameters: Reader<'a>,
    key: &'a [u8],
    public: Option<&'a [u8]>,
}

impl<'a> Outer<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, NotDer> {
        let mut outer = Reader::new(bytes);
        let mut info = Reader::new(outer.take(SEQUENCE)?);
        outer.end()?;
        let version = info.take(INTEGER)?;
        let mut parameters = Reader::new(info.take(SEQUENCE)?);
        let algorithm = parameters.take(OBJECT_IDENTIFIER)?;
        let key = info.take(OCTET_STRING)?;
        // Attributes do not concern the key and are dropped.
        info.take_optional(EXPLICIT_0)?;
        let public = match version {
            [0] => None,
            [1] => info.take_optional(IMPLICIT_1)?.map(der::whole_bytes).transpose()?,
            _ => return Err(NotDer),
        };
        info.end()?;
        Ok(Self { algorithm, parameters, key, public })
    }
}

fn read_ed25519<'a>(parameters: Reader<'_>, key: &'a [u8], public: Option<&'a [u8]>) -> Result<PrivateKeyInfo<'a>, CryptoError> {
    let seed = || -> Result<&'a [u8], NotDer> {
        parameters.end()?;
        let mut reader = Reader::new(key);
        let seed = reader.take(OCTET_STRING)?;
        reader.end()?;
        if seed.len() == 32 { Ok(seed) } else { Err(NotDer) }
    };
    seed().map(|seed| PrivateKeyInfo::Ed25519 { seed, public }).map_err(|NotDer| CryptoError::BadKey("its Ed25519 seed is not 32 bytes"))
}

fn read_ec<'a>(mut parameters: Reader<'_>, key: &'a [u8], outer: Option<&'a [u8]>) -> Result<PrivateKeyInfo<'a>, CryptoError> {
    const CURVE: CryptoError = CryptoError::BadKey("its curve is not named, or none of P-256, P-384 and secp256k1");
    let curve = parameters.take(OBJECT_IDENTIFIER).map_err(|NotDer| CURVE)?;
    parameters.end().map_err(|NotDer| CURVE)?;
    let curve = CURVES.iter().find(|known| known.oid == curve).ok_or(CURVE)?;
    let (scalar, inner) = ec_private_key(key, curve.oid).map_err(|NotDer| CryptoError::BadKey("its ECPrivateKey is malformed"))?;
    if scalar.len() != curve.field {
        return Err(CryptoError::BadKey("its scalar is not as long as the field of its curve"));
    }
    Ok(PrivateKeyInfo::Ec { curve, scalar, public: [inner, outer] })
}

/// RFC 5915 §3: the scalar and the public point. Inner parameters, if present, must name the same curve.
fn ec_private_key<'a>(bytes: &'a [u8], curve: &[u8]) -> Result<(&'a [u8], Option<&'a [u8]>), NotDer> {
    let mut outer = Reader::new(bytes);
    let mut key = Reader::new(outer.take(SEQUENCE)?);
    outer.end()?;
    if key.take(INTEGER)? != [1] {
        return Err(NotDer);
    }
    let scalar = key.take(OCTET_STRING)?;
    if let Some(repeated) = key.take_optional(EXPLICIT_0)? {
        let mut repeated = Reader::new(repeated);
        if repeated.take(OBJECT_IDENTIFIER)? != curve {
            return Err(NotDer);
        }
        repeated.end()?;
    }
    let public = match key.take_optional(EXPLICIT_1)? {
        None => None,
        Some(explicit) => {
            let mut explicit = Reader::new(explicit);
            let bits = explicit.take(BIT_STRING)?;
            explicit.end()?;
            Some(der::whole_bytes(bits)?)
        }
    };
    key.end()?;
    Ok((scalar, public))
}

fn read_rsa<'a>(mut parameters: Reader<'_>, key: &'a [u8], public: Option<&[u8]>) -> Result<PrivateKeyInfo<'a>, CryptoError> {
    const SHAPE: CryptoError = CryptoError::BadKey("its RSAPrivateKey is not one of two primes with CRT values");
    parameters.take_optional(NULL).and_then(|_| parameters.end()).map_err(|NotDer| SHAPE)?;
    let [modulus, exponent, _, p, q, _, _, _] = rsa_numbers(key).map_err(|NotDer| SHAPE)?;
    if public.is_some() {
        return Err(CryptoError::BadKey("its public key stands outside, though an RSAPrivateKey holds it"));
    }
    if bits(modulus) != 2048 {
        return Err(CryptoError::BadKey("its RSA modulus does not have 2048 bits"));
    }
    if exponent != [1, 0, 1] {
        return Err(CryptoError::BadKey("its RSA exponent is not 65537"));
    }
    if bits(p) != 1024 || bits(q) != 1024 {
        return Err(CryptoError::BadKey("its RSA primes do not have 1024 bits each"));
    }
    Ok(PrivateKeyInfo::Rsa { key })
}

/// RFC 8017 §A.1.2 `RSAPrivateKey`, version 0: n, e, d, p, q, d mod p-1, d mod q-1, 1/q mod p.
fn rsa_numbers(bytes: &[u8]) -> Result<[&[u8]; 8], NotDer> {
    let mut outer = Reader::new(bytes);
    let mut key = Reader::new(outer.take(SEQUENCE)?);
    outer.end()?;
    if !key.unsigned()?.is_empty() {
        return Err(NotDer);
    }
    let mut numbers: [&[u8]; 8] = [&[]; 8];
    for number in &mut numbers {
        *number = key.unsigned()?;
    }
    key.end()?;
    Ok(numbers)
}

fn bits(magnitude: &[u8]) -> usize {
    magnitude.first().map_or(0, |first| magnitude.len() * 8 - first.leading_zeros() as usize)
}

/// `302e020100300506032b657004220420 ‖ seed(32)`: 48 bytes.
pub(super) fn write_ed25519(seed: &[u8]) -> SecretBytes {
    const HEAD: &[u8] = &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    SecretBytes::concat(&[HEAD, seed])
}

/// `3082 … 020100 300d06092a864886f70d0101010500 0482 … ‖ RSAPrivateKey`: about 1217 bytes.
fn write_rsa(key: &[u8]) -> SecretBytes {
    const MIDDLE: &[u8] =
        &[0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x04, 0x82];
    // The modulus has 2048 bits and the key at most 65535 bytes, so that two bytes are the shortest form of the length.
    let length = |extra: usize| u16::try_from(key.len() + extra).unwrap_or(u16::MAX).to_be_bytes();
    SecretBytes::concat(&[&[0x30, 0x82], &length(MIDDLE.len() + 2), MIDDLE, &length(0), key])
}
