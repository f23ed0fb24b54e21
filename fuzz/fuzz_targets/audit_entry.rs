//! Everything that parses as an audit entry is encoded as bytes that read as the same entry.
#![no_main]

use canton_keyvault::audit::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::decode(data) else { return };
    let _ = entry.state_change();
    let bytes = entry.encode().expect("every entry is encoded");
    assert_eq!(Entry::decode(&bytes).expect("what is encoded is read"), entry);
});
