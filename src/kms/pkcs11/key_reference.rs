//! The identity of a key in a token, and its PKCS#11 URI (RFC 7512). The identity has the serial number of the token and the id of the key, never
//! a label.

use std::{fmt, str::FromStr};

use crate::domain::Hex;

/// A secret key in a token. Shown and stored as `pkcs11:<serial number>:<CKA_ID in hex>`.
///
/// A key that is deleted and made again with the same id has the same identity. It does not open what the first one wrapped, so that the
/// canary shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pkcs11Key {
    /// The serial number of the token, percent-encoded.
    pub(super) serial: String,
    /// The bytes of `CKA_ID`, 1 to 64.
    pub(super) id: Vec<u8>,
}

/// The path attributes of a PKCS#11 URI that name a token and a key in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyUri {
    /// The label of the token.
    pub(super) token: Option<String>,
    /// The serial number of the token.
    pub(super) serial: Option<String>,
    /// The label of the key, `CKA_LABEL`.
    pub(super) object: Option<String>,
    /// `CKA_ID`.
    pub(super) id: Option<Vec<u8>>,
}

/// Why a text is not the URI of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAKeyUri {
    /// The form is wrong.
    #[error("write a PKCS#11 URI: pkcs11:token=<label>;id=%01%02 or pkcs11:token=<label>;object=<label of the key>")]
    Form,
    /// The part after `?`.
    #[error("a PKCS#11 URI has no part after ? here: the library and the file of the PIN are in [[wrapper.pkcs11]]")]
    Query,
}

impl Pkcs11Key {
    /// The key with this id in the token with this serial number, as the token reports it.
    pub(super) fn new(serial: &str, id: &[u8]) -> Self {
        Self { serial: encoded(serial.as_bytes(), false), id: id.to_vec() }
    }

    /// Its URI, which names the token by label and serial number and the key by id.
    pub(super) fn uri(&self, token: &str) -> String {
        format!("pkcs11:token={};serial={};id={}", encoded(token.as_bytes(), false), self.serial, encoded(&self.id, true))
    }
}

impl fmt::Display for Pkcs11Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkcs11:{}:{}", self.serial, Hex(&self.id))
    }
}

impl FromStr for Pkcs11Key {
    type Err = NotAKeyUri;

    fn from_str(identity: &str) -> Result<Self, NotAKeyUri> {
        let parts: Vec<&str> = identity.split(':').collect();
        let ["pkcs11", serial, id] = parts.as_slice() else { return Err(NotAKeyUri::Form) };
        let id = base16ct::lower::decode_vec(id).map_err(|_| NotAKeyUri::Form)?;
        let key = Self::new(&text(serial)?, &id);
        if key.to_string() == identity && is_id(&id) { Ok(key) } else { Err(NotAKeyUri::Form) }
    }
}

impl KeyUri {
    /// The pattern of the allowlist that this URI stands for: only the id of a key cannot be given to another key by its label.
    pub(super) fn pattern(&self) -> Option<String> {
        let id = self.id.as_ref()?;
        let serial = self.serial.as_ref().map_or_else(|| "*".to_owned(), |serial| encoded(serial.as_bytes(), false));
        Some(format!("pkcs11:{serial}:{}", Hex(id)))
    }

    /// The identity, if the URI contains it.
    pub(super) fn identity(&self) -> Option<Pkcs11Key> {
        Some(Pkcs11Key::new(self.serial.as_ref()?, self.id.as_ref()?))
    }
}

impl FromStr for KeyUri {
    type Err = NotAKeyUri;

    fn from_str(reference: &str) -> Result<Self, NotAKeyUri> {
        let path = reference.strip_prefix("pkcs11:").ok_or(NotAKeyUri::Form)?;
        if path.contains('?') {
            return Err(NotAKeyUri::Query);
        }
        let mut uri = Self::default();
        for attribute in path.split(';') {
            let (name, value) = attribute.split_once('=').ok_or(NotAKeyUri::Form)?;
            let twice = match name {
                "token" => uri.token.replace(text(value)?).is_some(),
                "serial" => uri.serial.replace(text(value)?).is_some(),
                "object" => uri.object.replace(text(value)?).is_some(),
                "id" => uri.id.replace(bytes(value)?).is_some(),
                // The only type of a wrapper key.
                "type" => value != "secret-key",
                _ => true,
            };
            if twice {
                return Err(NotAKeyUri::Form);
            }
        }
        let named = (uri.id.is_some() || uri.object.is_some()) && (uri.token.is_some() || uri.serial.is_some());
        if named && uri.id.as_deref().is_none_or(is_id) { Ok(uri) } else { Err(NotAKeyUri::Form) }
    }
}

/// Whether a key with this id can be a wrapper key.
pub(super) fn is_id(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len())
}

/// Percent-encodes all bytes, or all but letters, digits and `-._~`.
fn encoded(bytes: &[u8], all: bool) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        if !all && (byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn text(value: &str) -> Result<String, NotAKeyUri> {
    String::from_utf8(bytes(value)?).ok().filter(|text| !text.is_empty()).ok_or(NotAKeyUri::Form)
}

/// Decodes percent-encoding.
fn bytes(value: &str) -> Result<Vec<u8>, NotAKeyUri> {
    let mut decoded = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (hex, after) = rest.split_first_chunk::<2>().ok_or(NotAKeyUri::Form)?;
        decoded.extend(base16ct::mixed::decode_vec(hex).map_err(|_| NotAKeyUri::Form)?);
        rest = after;
    }
    Ok(decoded)
}

/// Bytes. Tokens use 1 to 20.
const MAX_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_nothing_else_is_one() {
        let key = Pkcs11Key::new("e8c1b3ed4d133978", &[1, 0xab]);
        assert_eq!(key.to_string(), "pkcs11:e8c1b3ed4d133978:01ab");
        assert_eq!(key.to_string().parse(), Ok(key));
        let odd = Pkcs11Key::new("A:1/2 3", &[7]);
        assert_eq!(odd.to_string(), "pkcs11:A%3A1%2F2%203:07");
        assert_eq!(odd.to_string().parse(), Ok(odd));
        for text in [
            "pkcs11:e8c1",
            "pkcs11::01",
            "pkcs11:e8c1:",
            "pkcs11:e8c1:0",
            "pkcs11:e8c1:AB",
            "pkcs11:e8:c1:01",
            "aws:e8c1:01",
            "pkcs11:a b:01",
        ] {
            assert!(text.parse::<Pkcs11Key>().is_err(), "{text}");
        }
        assert!(format!("pkcs11:e8c1:{}", "00".repeat(65)).parse::<Pkcs11Key>().is_err());
    }

    #[test]
    fn a_uri_names_a_token_and_a_key() {
        let uri: KeyUri = "pkcs11:token=my%20token;id=%01%aB;type=secret-key".parse().unwrap();
        assert_eq!(uri, KeyUri { token: Some("my token".into()), id: Some(vec![1, 0xab]), ..KeyUri::default() });
        assert_eq!((uri.pattern().as_deref(), uri.identity()), (Some("pkcs11:*:01ab"), None));
        let whole = Pkcs11Key::new("e8c1", &[1, 0xab]);
        assert_eq!(whole.uri("my token"), "pkcs11:token=my%20token;serial=e8c1;id=%01%AB");
        let uri: KeyUri = whole.uri("my token").parse().unwrap();
        assert_eq!((uri.pattern().as_deref(), uri.identity()), (Some("pkcs11:e8c1:01ab"), Some(whole)));
        let label: KeyUri = "pkcs11:token=canton;object=wrapper".parse().unwrap();
        assert_eq!((label.pattern(), label.object.as_deref()), (None, Some("wrapper")), "a label can be given to another key");
    }

    #[test]
    fn another_uri_is_refused() {
        for text in [
            "",
            "pkcs11:",
            "pkcs11:token=canton",
            "pkcs11:object=wrapper",
            "pkcs11:token=canton;id=",
            "pkcs11:token=canton;id=%0",
            "pkcs11:token=canton;id=%0g",
            "pkcs11:token=;id=%01",
            "pkcs11:token=a;token=b;id=%01",
            "pkcs11:token=a;id=%01;slot-id=1",
            "pkcs11:token=a;id=%01;type=private",
            "pkcs11:token=%ff;id=%01",
            "https://token",
        ] {
            assert_eq!(text.parse::<KeyUri>(), Err(NotAKeyUri::Form), "{text}");
        }
        assert_eq!("pkcs11:token=a;id=%01?pin-value=1234".parse::<KeyUri>(), Err(NotAKeyUri::Query));
    }
}
