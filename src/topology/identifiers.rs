//! The identifiers of Canton: fingerprints of namespaces, unique identifiers, members and physical synchronizers (`topology/Identifier.scala`,
//! `topology/Member.scala`). A value of each type is one that Canton reads.

use std::fmt;

use serde::{Serialize, Serializer};

use super::TopologyError;

const DELIMITER: &str = "::";
/// `String68`, `String185` and the limit of a Daml-LF party.
const MAX_FINGERPRINT: usize = 68;
const MAX_IDENTIFIER: usize = 185;

/// A namespace, by the fingerprint of its root key. A decentralized namespace has a hash of its owners.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace(String);

/// `identifier::namespace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIdentifier {
    identifier: String,
    /// The namespace.
    pub namespace: Namespace,
}

/// A member of a synchronizer: `PAR::identifier::namespace`, `MED::…` or `SEQ::…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `PAR`, `MED` or `SEQ`.
    pub code: &'static str,
    /// The unique identifier.
    pub uid: UniqueIdentifier,
}

/// `identifier::namespace::protocol version-serial`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalSynchronizer {
    /// The synchronizer.
    pub logical: UniqueIdentifier,
    suffix: String,
}

impl Namespace {
    pub(super) fn read(field: &str, text: &str) -> Result<Self, TopologyError> {
        check(field, text, MAX_FINGERPRINT)?;
        Ok(Self(text.to_owned()))
    }

    /// The fingerprint.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) const fn computed(hash: String) -> Self {
        Self(hash)
    }
}

impl UniqueIdentifier {
    pub(super) fn read(field: &str, text: &str) -> Result<Self, TopologyError> {
        let Some((identifier, namespace)) = text.split_once(DELIMITER) else {
            return Err(TopologyError::invalid(field, "it is not of the form identifier::namespace"));
        };
        check(field, identifier, MAX_IDENTIFIER)?;
        Ok(Self { identifier: identifier.to_owned(), namespace: Namespace::read(field, namespace)? })
    }

    /// A participant. Older transactions have the code `PAR` in front.
    pub(super) fn read_participant(field: &str, text: &str) -> Result<Self, TopologyError> {
        match Member::read(field, text) {
            Ok(Member { code: "PAR", uid }) => Ok(uid),
            _ => Self::read(field, text),
        }
    }
}

impl Member {
    pub(super) fn read(field: &str, text: &str) -> Result<Self, TopologyError> {
        let (code, uid) = text.split_once(DELIMITER).unwrap_or_default();
        let code = ["PAR", "MED", "SEQ"].into_iter().find(|known| *known == code);
        let code =
            code.ok_or_else(|| TopologyError::invalid(field, "it is not a participant (PAR::), mediator (MED::) or sequencer (SEQ::)"))?;
        Ok(Self { code, uid: UniqueIdentifier::read(field, uid)? })
    }
}

impl PhysicalSynchronizer {
    pub(super) fn read(field: &str, text: &str) -> Result<Self, TopologyError> {
        let fault = || TopologyError::invalid(field, "it is not of the form identifier::namespace::version-serial");
        // Canton splits at every delimiter, from the left.
        let parts: Vec<&str> = text.split(DELIMITER).collect();
        let [identifier, namespace, suffix] = parts.as_slice() else { return Err(fault()) };
        let (version, serial) = suffix.split_once('-').ok_or_else(fault)?;
        // Canton also reads "dev" as a protocol version.
        let is_version = version == "dev" || number(version).is_some_and(|version| version >= 34);
        if !is_version || number(serial).is_none() {
            return Err(fault());
        }
        let logical = UniqueIdentifier::read(field, &format!("{identifier}{DELIMITER}{namespace}"))?;
        Ok(Self { logical, suffix: (*suffix).to_owned() })
    }
}

/// A non-negative number as Canton writes it.
fn number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number: &i32| number.to_string() == text && *number >= 0)
}

/// A text that can be a part of an identifier: the characters of a Daml-LF party, not empty, without the delimiter.
fn check(field: &str, text: &str, limit: usize) -> Result<(), TopologyError> {
    let fault = |why| Err(TopologyError::invalid(field, why));
    if text.is_empty() {
        fault("it is empty")
    } else if text.contains(DELIMITER) {
        fault("it contains the delimiter ::")
    } else if text.len() > limit {
        fault("it is too long")
    } else if !text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, ':' | '-' | '_' | ' ')) {
        fault("it has other characters than letters, digits, colon, hyphen, underscore and space")
    } else {
        Ok(())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UniqueIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DELIMITER}{}", self.identifier, self.namespace)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DELIMITER}{}", self.code, self.uid)
    }
}

impl fmt::Display for PhysicalSynchronizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DELIMITER}{}", self.logical, self.suffix)
    }
}

macro_rules! serialize_as_text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

serialize_as_text!(Namespace, UniqueIdentifier, Member, PhysicalSynchronizer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_those_that_canton_reads() {
        assert_eq!(UniqueIdentifier::read("f", "a b-c_d::1220ff").unwrap().to_string(), "a b-c_d::1220ff");
        assert_eq!(UniqueIdentifier::read_participant("f", "PAR::p::1220ff").unwrap().to_string(), "p::1220ff");
        assert_eq!(Member::read("f", "SEQ::s::1220ff").unwrap().to_string(), "SEQ::s::1220ff");
        assert_eq!(PhysicalSynchronizer::read("f", "s::1220ff::35-3").unwrap().to_string(), "s::1220ff::35-3");
        for text in ["", "a", "::n", "a::", "a::b::c", "é::n", "a/b::n", "a::n\n"] {
            assert!(UniqueIdentifier::read("f", text).is_err(), "{text:?}");
        }
        for text in ["XYZ::p::n", "PAR::p", "par::p::n", "PAR", ""] {
            assert!(Member::read("f", text).is_err(), "{text:?}");
        }
        for text in ["s::n", "s::n::35", "s::n::35-", "s::n::-1-0", "s::n::35-01", "s::n::x-1"] {
            assert!(PhysicalSynchronizer::read("f", text).is_err(), "{text:?}");
        }
    }
}
