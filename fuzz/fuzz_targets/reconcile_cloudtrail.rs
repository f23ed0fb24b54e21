//! No file of CloudTrail causes a panic, and what is read stays within the limit.
#![no_main]

use canton_keyvault::audit::reconcile::{CallSet, Period, Reconciliation, WrapperKeySet, read_cloudtrail};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut keys = WrapperKeySet::default();
    keys.add("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab").expect("an ARN");
    let mut calls = CallSet::new(8);
    let _ = read_cloudtrail(data, &keys, &mut calls);
    assert!(calls.len() <= 8);
    let number = calls.len() as u64;
    let found = Reconciliation::new(calls, Period::default(), &keys, (true, false)).finish();
    // Without entries, nothing is explained.
    assert_eq!(found.too_new.total + found.changes.total + found.reads.total, number);
});
