//! Reads a PKCS#8 private key of any supported scheme: it is parsed, checked by its scheme, and returned in the canonical form.

use crate::domain::{KeySpec, Purpose};

use super::{
    CryptoError, SecretBytes,
    pkcs8::{OTHER_SPEC, PrivateKeyInfo},
    scheme::SCHEMES,
};

/// Reads a PKCS#8 private key of a supported spec, detects the spec from its OID, and returns the canonical form.
///
/// `expected_spec` and `purpose` are checked if given. With a purpose, its scheme checks the key; otherwise any scheme of the spec.
///
/// # Errors
/// [`CryptoError::BadKey`]. The text names the fault and contains no part of the key.
pub fn read_pkcs8(
    expected_spec: Option<KeySpec>,
    purpose: Option<Purpose>,
    der: &SecretBytes,
) -> Result<(KeySpec, SecretBytes), CryptoError> {
    let key = PrivateKeyInfo::read(der)?;
    let spec = key.spec();
    if expected_spec.is_some_and(|expected| expected != spec) {
        return Err(OTHER_SPEC);
    }
    let scheme = SCHEMES
        .iter()
        .find(|scheme| scheme.spec() == spec && purpose.is_none_or(|purpose| scheme.purpose() == purpose))
        .ok_or(CryptoError::BadKey("keys of this spec cannot have this purpose"))?;
    // The scheme checks the input with its public keys, which the canonical form can omit.
    let parsed = scheme.parse(der)?;
    key.canonical(parsed.public_key()).map(|canonical| (spec, canonical))
}
