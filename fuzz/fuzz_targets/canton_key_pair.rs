//! Everything that parses as a Canton key pair is written as a file that reads as the same key pair.
#![no_main]

use canton_keyvault::crypto::{
    SecretBytes, SystemRandom,
    canton::{CantonVersion, KeyPairToWrite, read_key_pair, write_key_pair},
    fingerprint, scheme,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(pair) = read_key_pair(&SecretBytes::copy_of(data), None) else { return };
    let scheme = scheme(pair.spec, pair.purpose).expect("what is read has a scheme");
    let key = scheme.parse(&pair.pkcs8).expect("what is read was checked");
    let public_key = key.public_key().expect("a pair has a public key");
    let to_write = KeyPairToWrite {
        purpose: pair.purpose,
        spec: pair.spec,
        usages: pair.usages,
        pkcs8: &pair.pkcs8,
        public_key,
        fingerprint: fingerprint(pair.spec, pair.purpose, public_key),
    };
    let file = write_key_pair(&to_write, CantonVersion::V3_3, None, &SystemRandom::default()).expect("what is read can be written");
    let again = read_key_pair(&file, None).expect("what is written can be read");
    assert!(again.purpose == pair.purpose && again.spec == pair.spec && again.usages == pair.usages);
    assert!(again.pkcs8.expose() == pair.pkcs8.expose());
});
