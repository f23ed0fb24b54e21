//! One macro for all enums with a text form: the enum, its names, and the conversions in both directions.

/// A word that is not a value of the enum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {set} {word:?}; expected one of {known}")]
pub struct UnknownText {
    /// What was expected, in lower case: "algorithm".
    pub set: &'static str,
    /// The word, at most 64 characters of it.
    pub word: String,
    /// All values, comma-separated.
    pub known: String,
}

/// Bytes as lower-case hex digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut buffer = [0; 64];
        match base16ct::lower::encode_str(self.0, &mut buffer) {
            Ok(text) => f.write_str(text),
            Err(_) => f.write_str(&base16ct::lower::encode_string(self.0)),
        }
    }
}

/// Declares an enum with a text form, with `ALL`, `as_str`, `Display`, `FromStr`, serde and an OpenAPI schema.
macro_rules! text_enum {
    // The texts are `tt` and not `literal`, because the derive of the schema does not see a literal that arrives in a group.
    ($(#[$meta:meta])* $name:ident as $set:literal { $($(#[$vmeta:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The text form, in the store and in the API.
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
