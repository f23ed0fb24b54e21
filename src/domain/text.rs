//! One macro for every closed set of words: the enum, its table of names, and both directions between them.

/// A word that is not in the table of the set it was read for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {set} {word:?}; known are: {known}")]
pub struct UnknownText {
    /// What kind of word was expected, in lower case: "algorithm".
    pub set: &'static str,
    /// What was read.
    pub word: String,
    /// All words of the set, comma-separated.
    pub known: String,
}

/// Bytes as lower-case hex digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const fn digit(nibble: u8) -> char {
            (if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }) as char
        }
        // In one piece: every entry and answer holds some, and each piece costs the JSON writer more than the digits in it.
        let digits = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        f.write_str(&digits.collect::<String>())
    }
}

/// Declares a closed set of words as an enum with `ALL`, `as_str`, `Display`, `FromStr`, serde and an OpenAPI schema.
macro_rules! text_enum {
    // The words are `tt`, not `literal`: a literal reaches the derive of the schema inside a group, where it is not seen.
    ($(#[$meta:meta])* $name:ident as $set:literal { $($(#[$vmeta:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word for it, as stored and as on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownText;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|member| member.as_str() == word).ok_or_else(|| $crate::domain::UnknownText {
                    set: $set,
                    word: word.chars().take(64).collect(),
                    known: Self::ALL.iter().map(|member| member.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

pub(crate) use text_enum;

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;

    use crate::domain::KeySpec;

    #[test]
    fn text_wire_and_schema_have_the_same_words() {
        let schema = serde_json::to_value(KeySpec::schema()).unwrap();
        let words: Vec<&str> = KeySpec::ALL.iter().map(|spec| spec.as_str()).collect();
        assert_eq!(schema["enum"], serde_json::json!(words));
        for spec in KeySpec::ALL {
            assert_eq!(serde_json::to_value(spec).unwrap(), spec.as_str());
            assert_eq!(spec.as_str().parse(), Ok(*spec));
        }
    }
}
