//! No ciphertext makes an ECIES key do anything but decrypt or answer with the one error.
#![no_main]

use std::sync::LazyLock;

use canton_keyvault::{
    crypto::{CryptoError, PrivateKey, Random, RandomFailed, scheme},
    domain::{Algorithm, KeySpec, Purpose},
};
use libfuzzer_sys::fuzz_target;

struct Sevens;

impl Random for Sevens {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomFailed> {
        bytes.fill(7);
        Ok(())
    }
}

static KEY: LazyLock<Box<dyn PrivateKey>> = LazyLock::new(|| {
    let scheme = scheme(KeySpec::EcP256, Purpose::Encryption).expect("the table has it");
    let material = scheme.generate(&Sevens).expect("the scalar 07…07 is in range");
    scheme.parse(&material).expect("what is generated is read")
});

fuzz_target!(|data: &[u8]| {
    match KEY.decrypt(Algorithm::EciesP256, data, b"") {
        Ok(plaintext) => assert!(data.len() == 113 + 16 * (plaintext.expose().len() / 16 + 1)),
        Err(error) => assert_eq!(error, CryptoError::DecryptionFailed),
    }
});
