//! No export of the audit log causes a panic, and none is verified under a key that signed nothing.
#![no_main]

use canton_keyvault::audit::{
    VerifierKey,
    verify::{Depth, ExportVerifier, TrustedKeys},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = VerifierKey::log("dev/main/1", [7; 32]).expect("a name without spaces");
    let trust = TrustedKeys::new([key]).expect("one key");
    let mut export = ExportVerifier::new(trust, Vec::new(), Depth::Full);
    for line in data.split(|byte| *byte == b'\n') {
        if export.line(line).is_err() {
            return;
        }
    }
    assert!(export.finish().is_err());
});
