//! Identifiers. Each is validated when it is parsed.

use std::{fmt, str::FromStr, sync::Arc};

use super::text::{Hex, UnknownText};

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Neither a Canton fingerprint nor a symmetric key id.
    #[error("a key id is 1220 and 64 lower-case hex digits (a Canton fingerprint), or sym- and 32 lower-case hex digits")]
    KeyId,
    /// Not a node name.
    #[error("a node name matches [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}")]
    NodeName,
    /// Not a key name.
    #[error("a key name has 1 to 300 characters and no control characters")]
    KeyName,
    /// Not a vault id.
    #[error("a vault id matches [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}")]
    VaultId,
    /// Not a wrapper key id.
    #[error("a wrapper key id is wk- and 12 lower-case hex digits")]
    WrapperKeyId,
    /// Not the name of a wrapper key.
    #[error("the name of a wrapper key matches [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}, and does not begin with wk-")]
    WrapperKeyName,
    /// Not a job id.
    #[error("a job id is job- and 12 lower-case hex digits")]
    JobId,
    /// A text that is not a value of an enum.
    #[error(transparent)]
    Unknown(#[from] UnknownText),
}

/// Canton's fingerprint of a public key: the multihash `12 20 ‖ SHA-256`, shown as 68 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with this SHA-256 digest (32 bytes).
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1220")?;
        Hex(&self.0).fmt(f)
    }
}

/// The id of a key: a fingerprint for a key pair, 16 random bytes for a symmetric key. A hash would leak information about the symmetric
/// key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyId {
    /// `1220…`, 68 characters.
    Pair(Fingerprint),
    /// `sym-…`, 36 characters.
    Symmetric([u8; 16]),
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(fingerprint) => fingerprint.fmt(f),
            Self::Symmetric(random) => {
                f.write_str("sym-")?;
                Hex(random).fmt(f)
            }
        }
    }
}

impl FromStr for KeyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let pair = || text.strip_prefix("1220").and_then(parse_hex::<32>).map(|digest| Self::Pair(Fingerprint(digest)));
        let symmetric = || text.strip_prefix("sym-").and_then(parse_hex::<16>).map(Self::Symmetric);
        pair().or_else(symmetric).ok_or(IdError::KeyId)
    }
}

/// Declares a short random id: a prefix and 12 hex digits.
macro_rules! short_id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal, $error:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 6]);

        impl $name {
            /// The id with these 6 random bytes.
            pub const fn from_random(random: [u8; 6]) -> Self {
                Self(random)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                Hex(&self.0).fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix).and_then(parse_hex::<6>).map(Self).ok_or($error)
            }
        }
    };
}

short_id!(
    /// The id of a wrapper key in this vault: `wk-` and 12 hex digits, random.
    WrapperKeyId, "wk-", IdError::WrapperKeyId
);
short_id!(
    /// The id of a job: `job-` and 12 hex digits, random.
    JobId, "job-", IdError::JobId
);

/// Declares a text identifier that a function validates.
macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $error:expr, $check:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }
    };
}

text_id!(
    /// The Canton node (participant, sequencer, mediator) that a key belongs to: the unit of isolation.
    NodeName, IdError::NodeName, |text| is_plain_name(text) || text == THE_VAULT
);
text_id!(
    /// The id of a vault, from its configuration. It prevents that a staging vault accepts rows of a production vault.
    VaultId, IdError::VaultId, is_plain_name
);
text_id!(
    /// The name of a wrapper key: a label that commands take instead of its id. Not unique. It cannot look like an id.
    WrapperKeyName, IdError::WrapperKeyName, |text| is_plain_name(text) && !text.starts_with("wk-")
);
text_id!(
    /// The name of a key, up to 300 characters as in Canton. It is neither authenticated nor unique.
    KeyName, IdError::KeyName, |text| (1..=300).contains(&text.chars().count()) && !text.chars().any(char::is_control)
);

/// The name of the vault itself, which no configuration can declare.
const THE_VAULT: &str = "$vault";

impl NodeName {
    /// The vault itself, as the owner of the key that signs checkpoints of the log. It is no node: no grant covers it.
    pub fn vault() -> Self {
        Self(THE_VAULT.into())
    }

    /// Whether this is the vault itself.
    pub fn is_vault(&self) -> bool {
        self.as_str() == THE_VAULT
    }
}

fn is_plain_name(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Implements serde with the text of `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(KeyId, WrapperKeyId, JobId, NodeName, VaultId, KeyName, WrapperKeyName);

/// Lower-case hex digits of exactly `N` bytes.
fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let decoded = base16ct::lower::decode(text, &mut bytes).ok()?;
    (decoded.len() == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_read_back_as_written_and_nothing_else_is_one() {
        for text in ["1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809", "sym-00112233445566778899aabbccddeeff"] {
            assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1220",
            "1220A63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809",
            "sym-0",
            "sym-00112233445566778899aabbccddeeff0",
            "é220",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn node_names_are_plain() {
        assert!("participant-1.eu_west".parse::<NodeName>().is_ok());
        for text in ["", "-x", ".x", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }
}
