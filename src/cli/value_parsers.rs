//! Parsers for options with a closed set of values. `--help` lists the values, and the error for a wrong value lists them.

use std::{str::FromStr, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    crypto::canton::CantonVersion,
    domain::{
        Algorithm, Class, Clock, Dimension, KeySpec, KeyState, MappingKind, Operation, Outcome, ProviderKind, Purpose, Timestamp,
        UnknownText, Usage,
    },
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

words!(Algorithm, CantonVersion, Class, Dimension, KeySpec, KeyState, MappingKind, Operation, Outcome, ProviderKind, Purpose, Usage);

/// A parser of the values of `T`.
pub(super) fn words<T: ClosedSet>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::all()).try_map(|word| word.parse::<T>())
}

/// A parser of times and dates.
pub(super) fn time_or_date(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse_time_or_date(text).ok_or("write an RFC 3339 time or a date, such as 2026-01-31T12:00:00Z or 2026-01-31")
}

/// A parser of dates.
pub(super) fn date(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(&format!("{text}T00:00:00Z")).ok_or("write a date, such as 2026-01-31")
}

/// The beginning of a period: a time, or a duration before now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Since {
    /// A time.
    Time(Timestamp),
    /// A duration before now, and the text of it.
    Age(Duration, String),
}

impl Since {
    /// The time.
    pub(super) fn time(&self, clock: &Clock) -> Timestamp {
        match self {
            Self::Time(time) => *time,
            Self::Age(age, _) => clock().minus(*age),
        }
    }
}

/// A parser of the beginning of a period.
pub(super) fn since(text: &str) -> Result<Since, &'static str> {
    let time = Timestamp::parse_time_or_date(text).map(Since::Time);
    let age = || humantime::parse_duration(text).ok().map(|age| Since::Age(age, text.to_owned()));
    time.or_else(age).ok_or("write a duration such as 7d or 12h, an RFC 3339 time or a date, such as 2026-01-31T12:00:00Z or 2026-01-31")
}

/// A check of a duration, which is sent as it is.
pub(super) fn age(text: &str) -> Result<String, &'static str> {
    humantime::parse_duration(text).map(|_| text.to_owned()).map_err(|_| "write a duration, such as 1d or 12h")
}

/// A check of SHA-256 in hex, with or without colons, which is sent as it is.
pub(super) fn certificate(text: &str) -> Result<String, &'static str> {
    let hex = text.replace(':', "");
    let good = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good {
        Ok(hex.to_ascii_lowercase())
    } else {
        Err("write SHA-256 of the certificate in hex: openssl x509 -noout -fingerprint -sha256")
    }
}

/// A parser of RFC 3339 times.
pub(super) fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("write an RFC 3339 time, such as 2026-01-31T12:00:00Z")
}
