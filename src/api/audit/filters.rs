//! The values of filters in the queries of the log, parsed from text. An error names the parameter and what to write.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    domain::{CertificateId, Dimension, JobId, Timestamp, WrapperKeyId},
    vault::Order,
};

/// Declares a value of a query that is parsed from text.
macro_rules! from_text {
    ($(#[$meta:meta])* $name:ident($inner:ty), $parse:expr, $what:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub(in crate::api) struct $name(pub(in crate::api) $inner);

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let parse: fn(&str) -> Option<$inner> = $parse;
                parse(&text).map(Self).ok_or($what)
            }
        }
    };
}

from_text!(
    /// The sequence number of an entry.
    Sequence(u64),
    |text| text.parse().ok().filter(|number| *number < 1 << 62),
    "after: supply the sequence number of an entry"
);

from_text!(
    /// SHA-256 of a certificate.
    CertificateDigest(CertificateId),
    |text| {
        let hex = text.replace(':', "").to_ascii_lowercase();
        let mut digest = [0; 32];
        (base16ct::lower::decode(&hex, &mut digest).ok()?.len() == 32).then_some(digest)
    },
    "certificate: supply SHA-256 of the certificate in hex, 64 digits"
);

from_text!(
    /// A time, or the beginning of a day in UTC.
    TimeOrDate(Timestamp),
    Timestamp::parse_time_or_date,
    "from, to: supply an RFC 3339 time or a date, such as 2026-01-31T12:00:00Z or 2026-01-31"
);

from_text!(
    /// A duration back from now.
    Age(Duration),
    |text| humantime::parse_duration(text).ok(),
    "since: supply a duration, such as 1d or 12h"
);

from_text!(
    /// Which entries come first.
    EntryOrder(Order),
    |text| match text {
        "oldest" => Some(Order::Oldest),
        "newest" => Some(Order::Newest),
        _ => None,
    },
    "order: supply oldest or newest"
);

from_text!(
    /// The id of a job.
    Job(JobId),
    |text| text.parse().ok(),
    "job: supply the id of a job, job- and 12 hex digits"
);

from_text!(
    /// The id of a wrapper key.
    WrapperKey(WrapperKeyId),
    |text| text.parse().ok(),
    "wrapper_key: supply the id of a wrapper key, wk- and 12 hex digits"
);

from_text!(
    /// A day in UTC, in days since 1970-01-01.
    Day(i64),
    |text| Timestamp::parse(&format!("{text}T00:00:00Z")).map(|time| time.seconds().div_euclid(24 * 3600)),
    "from, to: supply a date, such as 2026-01-31"
);

/// What a summary is counted by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::api) struct Dimensions(pub(in crate::api) Vec<Dimension>);

impl TryFrom<String> for Dimensions {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let all: Result<Vec<Dimension>, _> = text.split(',').map(str::parse).collect();
        all.map(Self).map_err(|_| "by: supply some of day, principal, certificate, node, key, operation, outcome, separated by commas")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        let digest = "AB:".repeat(31) + "ab";
        assert_eq!(CertificateDigest::try_from(digest), Ok(CertificateDigest([0xab; 32])));
        assert!(CertificateDigest::try_from("ab".repeat(31)).is_err());
        assert_eq!(TimeOrDate::try_from("2026-01-01".to_owned()), TimeOrDate::try_from("2026-01-01T00:00:00Z".to_owned()));
        assert!(TimeOrDate::try_from("2026-13-01".to_owned()).is_err());
        assert_eq!(Age::try_from("1d".to_owned()), Ok(Age(Duration::from_hours(24))));
        assert!(EntryOrder::try_from("random".to_owned()).is_err());
    }
}
