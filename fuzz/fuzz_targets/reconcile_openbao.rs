//! No line of an OpenBao audit file causes a panic.
#![no_main]

use canton_keyvault::audit::reconcile::{CallSet, WrapperKeySet, read_openbao_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut keys = WrapperKeySet::default();
    keys.add("openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:transit:canton:1").expect("an identity");
    let mut calls = CallSet::new(8);
    for line in data.split(|byte| *byte == b'\n') {
        let _ = read_openbao_line(line, &keys, &mut calls);
    }
    assert!(calls.len() <= 8);
});
