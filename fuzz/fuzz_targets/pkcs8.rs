//! Everything that parses as PKCS#8 has a canonical form that is read as itself, and that its scheme takes.
#![no_main]

use canton_keyvault::{
    crypto::{SCHEMES, SecretBytes, read_pkcs8},
    domain::Purpose,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = SecretBytes::copy_of(data);
    if let Ok((spec, canonical)) = read_pkcs8(None, None, &bytes) {
        let (again, same) = read_pkcs8(Some(spec), None, &canonical).expect("the canonical form is read");
        assert!(again == spec && same.expose() == canonical.expose());
    }
    for scheme in SCHEMES.iter().filter(|scheme| scheme.purpose() != Purpose::Symmetric) {
        if let Ok(key) = scheme.parse(&bytes) {
            assert!(key.public_key().is_some());
            assert!(read_pkcs8(Some(scheme.spec()), Some(scheme.purpose()), &bytes).is_ok());
        }
    }
});
