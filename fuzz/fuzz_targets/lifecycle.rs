//! Everything that parses as the lifecycle of a key is displayed as the same text: each lifecycle has one text.
#![no_main]

use canton_keyvault::domain::{KeyState, Lifecycle, Transition};
use libfuzzer_sys::fuzz_target;

const STEPS: [Transition; 7] = [
    Transition::Disable,
    Transition::Enable,
    Transition::Supersede,
    Transition::Quarantine,
    Transition::ScheduleDeletion,
    Transition::CancelDeletion,
    Transition::Destroy,
];

fuzz_target!(|text: &str| {
    let Ok(lifecycle) = text.parse::<Lifecycle>() else { return };
    assert_eq!(lifecycle.to_string(), text);
    for step in STEPS {
        let Ok(next) = lifecycle.after(step) else { continue };
        assert_eq!(next.to_string().parse(), Ok(next));
        assert!(!lifecycle.is_destroyed(), "nothing comes after the end");
        assert!(next.can_sign() <= (next.state() == KeyState::Active));
    }
});
