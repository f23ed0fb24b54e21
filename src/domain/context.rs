//! The encryption context: the attributes that are bound to a wrap and to a sealed key, with one canonical encoding.

/// The attributes that a ciphertext is bound to, as ordered pairs. Absent attributes are empty.
///
/// The canonical bytes are the AAD and the HKDF info of a sealed key. The non-empty pairs are the KMS encryption context. The names are a
/// published contract: IAM policies use them as conditions, and CloudTrail shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionContext {
    attributes: Vec<(&'static str, String)>,
}

impl EncryptionContext {
    /// A context of attributes in their fixed order.
    pub const fn new(attributes: Vec<(&'static str, String)>) -> Self {
        Self { attributes }
    }

    /// For each attribute in order: `u32be length ‖ UTF-8`. The encoding is unambiguous, because the version fixes the number and the
    /// order.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        canonical_bytes(self.attributes.iter().map(|(_, value)| value.as_str()))
    }

    /// The pairs for a KMS, without empty values, which AWS refuses.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.attributes.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, value.as_str()))
    }
}

/// `u32be length ‖ UTF-8` for each text in order: the encoding of the context and of the fields under a row tag.
pub(crate) fn canonical_bytes<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    texts.fold(Vec::with_capacity(256), |mut bytes, text| {
        // Names and attributes have at most a few hundred bytes, so that the length always fits.
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_facts_changes_the_bytes() {
        let one = EncryptionContext::new(vec![("a", "bc".into()), ("d", String::new())]);
        let two = EncryptionContext::new(vec![("a", "b".into()), ("d", "c".into())]);
        assert_ne!(one.canonical_bytes(), two.canonical_bytes());
        assert_eq!(one.canonical_bytes(), [0, 0, 0, 2, b'b', b'c', 0, 0, 0, 0]);
        assert_eq!(one.pairs().collect::<Vec<_>>(), [("a", "bc")]);
    }
}
