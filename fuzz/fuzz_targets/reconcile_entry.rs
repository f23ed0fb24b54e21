//! No audit entry causes a panic in a comparison with the log of a KMS, whatever its request ids and subject are.
#![no_main]

use canton_keyvault::audit::{
    Entry,
    reconcile::{CallSet, Period, Reconciliation, WrapperKeySet},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut found = Reconciliation::new(CallSet::new(8), Period::default(), &WrapperKeySet::default(), (true, true));
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(entry) = Entry::decode(line) {
            found.entry(&entry);
        }
    }
    assert!(found.finish().is_good(), "there are no calls, and no period in which one is missing");
});
