//! Parsers for options with a closed set of values. `--help` lists the values, and the error for a wrong value lists them.

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    crypto::canton::CantonVersion,
    domain::{Algorithm, Class, KeySpec, KeyState, MappingKind, Operation, Outcome, ProviderKind, Purpose, Timestamp, UnknownText, Usage},
};

/// A closed set of values.
pub(super) trait ClosedSet: FromStr<Err = UnknownText> + Clone + Send + Sync + 'static {
    /// All values.
    fn all() -> Vec<&'static str>;
}

macro_rules! words {
    ($($name:ty),+) => {$(
        impl ClosedSet for $name {
            fn all() -> Vec<&'static str> {
                Self::ALL.iter().map(|member| member.as_str()).collect()
            }
        }
    )+};
}

words!(Algorithm, CantonVersion, Class, KeySpec, KeyState, MappingKind, Operation, Outcome, ProviderKind, Purpose, Usage);

/// A parser of the values of `T`.
pub(super) fn words<T: ClosedSet>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::all()).try_map(|word| word.parse::<T>())
}

/// A parser of RFC 3339 times.
pub(super) fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("write an RFC 3339 time, such as 2026-01-31T12:00:00Z")
}
