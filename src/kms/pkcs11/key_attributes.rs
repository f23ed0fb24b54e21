//! The attributes of a key in a token: whether it may wrap, and what it lacks.

use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectHandle},
    session::Session,
};

use super::{error::Pkcs11Error, key_reference::is_id};
use crate::kms::Denial;

/// What the token says of a key. `None`: it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyAttributes {
    is_aes: bool,
    /// Bytes.
    length: Option<u64>,
    pub(super) id: Vec<u8>,
    flags: Vec<(AttributeType, bool)>,
}

/// The attributes that are true or false.
const FLAGS: [AttributeType; 13] = [
    AttributeType::Encrypt,
    AttributeType::Decrypt,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::AlwaysSensitive,
    AttributeType::Extractable,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::Modifiable,
    AttributeType::Destroyable,
    AttributeType::Wrap,
    AttributeType::Unwrap,
    AttributeType::Derive,
];

impl KeyAttributes {
    /// Reads them.
    pub(super) fn read(session: &Session, key: ObjectHandle) -> Result<Self, Pkcs11Error> {
        let mut asked = vec![AttributeType::KeyType, AttributeType::ValueLen, AttributeType::Id];
        asked.extend(FLAGS);
        let mut found = Self::default();
        for attribute in session.get_attributes(key, &asked)? {
            match attribute {
                Attribute::KeyType(kind) => found.is_aes = kind == KeyType::AES,
                Attribute::ValueLen(length) => found.length = Some(*length),
                Attribute::Id(id) => found.id = id,
                other => found.flags.extend(flag(&other)),
            }
        }
        Ok(found)
    }

    /// Whether an attribute is true. `None` if the token does not say.
    pub(super) fn has(&self, attribute: AttributeType) -> Option<bool> {
        self.flags.iter().find(|(name, _)| *name == attribute).map(|(_, value)| *value)
    }

    /// Why nothing may be wrapped under it, if so.
    pub(super) fn refusal(&self) -> Option<Denial> {
        if !self.is_aes_256() {
            Some(Denial::WrongKind)
        } else if self.is_exportable() {
            Some(Denial::Exportable)
        } else {
            None
        }
    }

    /// Whether the token would use it now.
    pub(super) fn is_usable(&self) -> bool {
        let may = |attribute| self.has(attribute) != Some(false);
        self.refusal().is_none() && may(AttributeType::Encrypt) && may(AttributeType::Decrypt)
    }

    /// What to do about a key that cannot be registered.
    pub(super) fn unfit(&self) -> Option<String> {
        const MAKE: &str = "make a key with CKA_SENSITIVE, without CKA_EXTRACTABLE (deploy/pkcs11)";
        if !self.is_aes_256() {
            Some(format!("it is no AES key of 256 bits; {MAKE}"))
        } else if !is_id(&self.id) {
            Some("its CKA_ID is not 1 to 64 bytes, so that the key cannot be told from others; set one (pkcs11-tool --set-id)".to_owned())
        } else if self.is_exportable() {
            Some(format!("it can leave the token, and nothing shows that it did not already; {MAKE}"))
        } else if !self.is_usable() {
            Some("it lacks CKA_ENCRYPT or CKA_DECRYPT; set both".to_owned())
        } else {
            None
        }
    }

    pub(super) fn is_aes_256(&self) -> bool {
        self.is_aes && self.length == Some(32)
    }

    /// Whether it can leave the token in plaintext or under another key.
    pub(super) fn is_exportable(&self) -> bool {
        self.has(AttributeType::Sensitive) != Some(true) || self.has(AttributeType::Extractable) != Some(false)
    }
}

fn flag(attribute: &Attribute) -> Option<(AttributeType, bool)> {
    match attribute {
        Attribute::Encrypt(value)
        | Attribute::Decrypt(value)
        | Attribute::Private(value)
        | Attribute::Sensitive(value)
        | Attribute::AlwaysSensitive(value)
        | Attribute::Extractable(value)
        | Attribute::NeverExtractable(value)
        | Attribute::Local(value)
        | Attribute::Modifiable(value)
        | Attribute::Destroyable(value)
        | Attribute::Wrap(value)
        | Attribute::Unwrap(value)
        | Attribute::Derive(value) => Some((attribute.attribute_type(), *value)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key as the vault makes it, with changes.
    pub(in crate::kms::pkcs11) fn key(changes: &[(AttributeType, Option<bool>)]) -> KeyAttributes {
        let good = [
            (AttributeType::Encrypt, true),
            (AttributeType::Decrypt, true),
            (AttributeType::Private, true),
            (AttributeType::Sensitive, true),
            (AttributeType::AlwaysSensitive, true),
            (AttributeType::Extractable, false),
            (AttributeType::NeverExtractable, true),
            (AttributeType::Local, true),
            (AttributeType::Modifiable, false),
            (AttributeType::Destroyable, false),
            (AttributeType::Wrap, false),
            (AttributeType::Unwrap, false),
            (AttributeType::Derive, false),
        ];
        let mut key = KeyAttributes { is_aes: true, length: Some(32), id: vec![1], flags: good.into() };
        for (attribute, value) in changes {
            key.flags.retain(|(name, _)| name != attribute);
            key.flags.extend(value.map(|value| (*attribute, value)));
        }
        key
    }

    #[test]
    fn a_key_that_can_leave_the_token_is_refused() {
        assert_eq!((key(&[]).refusal(), key(&[]).unfit()), (None, None));
        for (attribute, value) in [
            (AttributeType::Sensitive, Some(false)),
            (AttributeType::Sensitive, None),
            (AttributeType::Extractable, Some(true)),
            (AttributeType::Extractable, None),
        ] {
            let key = key(&[(attribute, value)]);
            assert_eq!(key.refusal(), Some(Denial::Exportable), "{attribute:?} {value:?}");
            assert!(key.unfit().unwrap().contains("leave the token"));
        }
        for (attribute, value) in [(AttributeType::Encrypt, false), (AttributeType::Decrypt, false)] {
            let key = key(&[(attribute, Some(value))]);
            assert_eq!((key.refusal(), key.is_usable()), (None, false), "{attribute:?}");
        }
    }

    #[test]
    fn only_an_aes_key_of_256_bits_with_an_id_is_fit() {
        for key in [
            KeyAttributes { is_aes: false, ..key(&[]) },
            KeyAttributes { length: Some(16), ..key(&[]) },
            KeyAttributes { length: None, ..key(&[]) },
        ] {
            assert_eq!(key.refusal(), Some(Denial::WrongKind));
            assert!(key.unfit().unwrap().contains("256 bits"));
        }
        assert!(KeyAttributes { id: Vec::new(), ..key(&[]) }.unfit().unwrap().contains("CKA_ID"));
    }
}
