//! Whatever a certificate says, the name that is read from it is one that a grant could be written for.
#![no_main]

use canton_keyvault::mtls::identity::{Identity, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(fields) = read(data) else { return };
    if let Ok(identity) = fields.identity {
        assert_eq!(identity.name().parse::<Identity>(), Ok(identity));
    }
});
