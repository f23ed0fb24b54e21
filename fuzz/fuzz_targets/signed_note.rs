//! Everything that parses as a signed note is written as the same bytes, and no note, checkpoint, rotation or verifier key causes a panic.
#![no_main]

use canton_keyvault::audit::{Checkpoint, KeyRotation, SignedNote, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = KeyRotation::verify(text);
        if let Ok(key) = text.parse::<VerifierKey>() {
            assert_eq!(key.to_string().parse::<VerifierKey>(), Ok(key));
        }
    }
    let Ok(note) = SignedNote::parse(data) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
        assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
    }
    assert_eq!(SignedNote::parse(note.to_string().as_bytes()).map(|again| again.to_string()), Ok(note.to_string()));
});
