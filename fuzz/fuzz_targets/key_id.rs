//! Everything that parses as an identifier is displayed as the same text.
#![no_main]

use std::{fmt::Display, str::FromStr};

use canton_keyvault::domain::{KeyId, KeyName, NodeName, Usages, VaultId, WrapperKeyId};
use libfuzzer_sys::fuzz_target;

fn same<T: Display + FromStr>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}

fuzz_target!(|text: &str| {
    same::<KeyId>(text);
    same::<WrapperKeyId>(text);
    same::<NodeName>(text);
    same::<VaultId>(text);
    same::<KeyName>(text);
    // A set may be written in any order; it is read as itself once sorted.
    if let Ok(usages) = text.parse::<Usages>() {
        assert_eq!(usages.to_string().parse(), Ok(usages));
    }
});
