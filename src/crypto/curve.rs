//! The elliptic curves: one table of their encodings, sizes and arithmetic.

use aws_lc_rs::agreement;
use k256::elliptic_curve::sec1::ToSec1Point;

use crate::domain::KeySpec;

use super::{CryptoError, SecretBytes};

/// A named curve.
pub(super) struct Curve {
    /// The spec of its keys.
    pub(super) spec: KeySpec,
    /// The content bytes of its OID.
    pub(super) oid: &'static [u8],
    /// Length of a scalar and of a coordinate in bytes.
    pub(super) field: usize,
    /// PKCS#8 up to the scalar.
    pkcs8_head: &'static [u8],
    /// PKCS#8 between the scalar and the point: `ECParameters [0]` again, as Canton writes it, then the tag and length of the point `[1]`.
    pkcs8_middle: &'static [u8],
    /// `SubjectPublicKeyInfo` up to the uncompressed point.
    pub(super) spki_head: &'static [u8],
    /// The uncompressed point of a scalar. Refuses scalars out of range.
    point: fn(&[u8]) -> Option<Vec<u8>>,
}

/// All curves. A new curve is one line here.
pub(super) static CURVES: [&Curve; 3] = [&P256, &P384, &SECP256K1];

/// NIST P-256, FIPS 186-4 §D.1.2.3.
pub(super) static P256: Curve = Curve {
    spec: KeySpec::EcP256,
    oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    field: 32,
    pkcs8_head: &[
        0x30, 0x81, 0x93, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x79, 0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20,
    ],
    pkcs8_middle: &[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00],
    spki_head: &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
        0x07, 0x03, 0x42, 0x00,
    ],
    point: |scalar| nist_point(&agreement::ECDH_P256, scalar),
};

/// NIST P-384, FIPS 186-4 §D.1.2.4.
pub(super) static P384: Curve = Curve {
    spec: KeySpec::EcP384,
    oid: &[0x2b, 0x81, 0x04, 0x00, 0x22],
    field: 48,
    pkcs8_head: &[
        0x30, 0x81, 0xbf, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
        0x00, 0x22, 0x04, 0x81, 0xa7, 0x30, 0x81, 0xa4, 0x02, 0x01, 0x01, 0x04, 0x30,
    ],
    pkcs8_middle: &[0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0xa1, 0x64, 0x03, 0x62, 0x00],
    spki_head: &[
        0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62,
        0x00,
    ],
    point: |scalar| nist_point(&agreement::ECDH_P384, scalar),
};

/// secp256k1, SEC 2 §2.4.1.
pub(super) static SECP256K1: Curve = Curve {
    spec: KeySpec::EcSecp256k1,
    oid: &[0x2b, 0x81, 0x04, 0x00, 0x0a],
    field: 32,
    pkcs8_head: &[
        0x30, 0x81, 0x8d, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
        0x00, 0x0a, 0x04, 0x76, 0x30, 0x74, 0x02, 0x01, 0x01, 0x04, 0x20,
    ],
    pkcs8_middle: &[0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0xa1, 0x44, 0x03, 0x42, 0x00],
    spki_head: &[
        0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0x03, 0x42,
        0x00,
    ],
    point: |scalar| Some(k256::SecretKey::from_slice(scalar).ok()?.public_key().to_sec1_point(false).as_bytes().to_vec()),
};

impl Curve {
    /// The uncompressed point `04 ‖ X ‖ Y` of a scalar.
    ///
    /// # Errors
    /// [`CryptoError::BadKey`] unless the scalar has the field's length and is in 1..n.
    pub(super) fn point(&self, scalar: &[u8]) -> Result<Vec<u8>, CryptoError> {
        // The libraries treat scalars of other lengths differently: k256 pads short ones.
        Some(scalar)
            .filter(|scalar| scalar.len() == self.field)
            .and_then(self.point)
            .ok_or(CryptoError::BadKey("its scalar is out of range"))
    }

    /// PKCS#8 in its canonical form, which is the form that Canton writes: P-256 150, P-384 194, secp256k1 144 bytes.
    pub(super) fn pkcs8(&self, scalar: &[u8], point: &[u8]) -> SecretBytes {
        SecretBytes::concat(&[self.pkcs8_head, scalar, self.pkcs8_middle, point])
    }

    /// `SubjectPublicKeyInfo`, DER: P-256 91, P-384 120, secp256k1 88 bytes.
    pub(super) fn spki(&self, point: &[u8]) -> Vec<u8> {
        [self.spki_head, point].concat()
    }

    /// The uncompressed point in a `SubjectPublicKeyInfo` of this curve. Whether the point is on the curve is not checked.
    pub(super) fn point_in<'a>(&self, spki: &'a [u8]) -> Option<&'a [u8]> {
        spki.strip_prefix(self.spki_head).filter(|point| point.len() == 1 + 2 * self.field && point.first() == Some(&4))
    }
}

fn nist_point(curve: &'static agreement::Algorithm, scalar: &[u8]) -> Option<Vec<u8>> {
    let key = agreement::PrivateKey::from_private_key(curve, scalar).ok()?;
    Some(key.compute_public_key().ok()?.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC 2: the group orders, big-endian, which are the first scalars out of range.
    const ORDERS: [&str; 3] = [
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
    ];

    #[test]
    fn scalars_are_in_1_to_n() {
        for (curve, order) in CURVES.iter().zip(ORDERS) {
            let order: Vec<u8> = (0..order.len()).step_by(2).map(|i| u8::from_str_radix(&order[i..i + 2], 16).unwrap()).collect();
            let mut largest = order.clone();
            *largest.last_mut().unwrap() -= 1;
            let mut one = vec![0; curve.field];
            one[curve.field - 1] = 1;
            for good in [&one, &largest] {
                assert_eq!(curve.point(good).unwrap().len(), 1 + 2 * curve.field);
            }
            for bad in
                [&order, &vec![0; curve.field], &vec![0xff; curve.field], &vec![1; curve.field - 1], &vec![1; curve.field + 1], &vec![]]
            {
                assert!(curve.point(bad).is_err(), "{}", curve.spec);
            }
        }
    }
}
