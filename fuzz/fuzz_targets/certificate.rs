//! The name that is parsed from any certificate is valid in a grant.
#![no_main]

use canton_keyvault::mtls::identity::{Identity, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(fields) = read(data) else { return };
    if let Ok(identity) = fields.identity {
        assert_eq!(identity.name().parse::<Identity>(), Ok(identity));
    }
});
