//! Nothing opens but what was sealed: the first 32 bytes are the data key, the rest is the sealed form.
#![no_main]

use canton_keyvault::{
    crypto::{
        SecretBytes,
        envelope::{commits, open},
    },
    domain::{EncryptionContext, SealedKey},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (data_key, sealed) = data.split_at(data.len().min(32));
    let context = EncryptionContext::new(vec![("version", "1".into()), ("vault", "fuzz".into())]);
    let (data_key, sealed) = (SecretBytes::copy_of(data_key), SealedKey::from_stored(sealed.to_vec()));
    let opened = open(&data_key, &sealed, &context);
    // What opens committed before; a fuzzer that finds one without the seed has found a collision of HMAC-SHA256.
    assert!(opened.is_err() || commits(&data_key, &sealed, &context));
});
