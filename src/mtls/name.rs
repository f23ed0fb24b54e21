//! Distinguished names, compared as names: the attributes of two names are compared by type and value, whatever their spelling.
//!
//! A name is read from a certificate, or from text as RFC 4514, `openssl` and the log write it, in either order. The values are compared
//! without regard to the string type, the case and repeated spaces (RFC 5280 §7.1).

use std::fmt::Write as _;

use x509_parser::{
    asn1_rs::{Any, FromDer as _, Tag},
    x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name},
};

/// A name for comparison: its parts in order, each a sorted set of types (object identifiers) and folded values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Vec<Vec<(String, String)>>);

impl Name {
    /// The name in a certificate.
    pub(super) fn of(name: &X509Name<'_>) -> Self {
        let attributes = |part: &RelativeDistinguishedName<'_>| {
            let attribute = |a: &AttributeTypeAndValue<'_>| (a.attr_type().to_id_string(), fold(&value(a.attr_value())));
            sorted(part.iter().map(attribute).collect())
        };
        Self(name.iter_rdn().map(attributes).collect())
    }

    /// Reads the text of a name.
    ///
    /// # Errors
    /// What cannot be read, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = without_label(text, "issuer").trim();
        let (separators, text) = match text.strip_prefix('/') {
            Some(rest) => (&['/'][..], rest),
            None => (&[',', ';'][..], text),
        };
        let mut parts = Vec::new();
        for part in split(text, separators) {
            let attributes = split(part, &['+']).into_iter().map(attribute).collect::<Result<_, _>>()?;
            parts.push(sorted(attributes));
        }
        Ok(Self(parts))
    }

    /// Whether both are the same name. RFC 4514 starts with the last part, so the reverse order counts too.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self == other || (self.0.len() == other.0.len() && self.0.iter().rev().eq(&other.0))
    }
}

/// The text of a name in the order of the certificate, as the log shows it: `CN=Example CA, O=Example`. [`Name::parse`] reads it back.
pub(super) fn show(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (index, part) in name.iter_rdn().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        for (index, attribute) in part.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { " + " });
            let oid = attribute.attr_type().to_id_string();
            let known = TYPES.iter().find(|(known, _)| *known == oid).and_then(|(_, names)| names.first());
            let _ = write!(text, "{}={}", known.copied().unwrap_or(&oid), escape(&value(attribute.attr_value())));
        }
    }
    text
}

/// `text` without `label=` or `label:` before it, in any case, as `openssl` prints it.
pub(super) fn without_label<'a>(text: &'a str, label: &str) -> &'a str {
    let text = text.trim_start();
    let rest = text.get(..label.len()).filter(|start| start.eq_ignore_ascii_case(label)).and_then(|_| text.get(label.len()..));
    rest.and_then(|rest| rest.trim_start().strip_prefix(['=', ':'])).unwrap_or(text)
}

/// The object identifiers of attributes with their names, the first of which is shown. RFC 4514, RFC 4519, X.520, CA/B EV guidelines.
const TYPES: &[(&str, &[&str])] = &[
    ("2.5.4.3", &["CN", "commonName"]),
    ("2.5.4.4", &["SN", "surname"]),
    ("2.5.4.5", &["serialNumber"]),
    ("2.5.4.6", &["C", "countryName"]),
    ("2.5.4.7", &["L", "localityName"]),
    ("2.5.4.8", &["ST", "S", "stateOrProvinceName"]),
    ("2.5.4.9", &["STREET", "streetAddress"]),
    ("2.5.4.10", &["O", "organizationName"]),
    ("2.5.4.11", &["OU", "organizationalUnitName"]),
    ("2.5.4.12", &["title", "T"]),
    ("2.5.4.13", &["description"]),
    ("2.5.4.15", &["businessCategory"]),
    ("2.5.4.17", &["postalCode"]),
    ("2.5.4.41", &["name"]),
    ("2.5.4.42", &["GN", "givenName", "G"]),
    ("2.5.4.43", &["initials"]),
    ("2.5.4.44", &["generationQualifier"]),
    ("2.5.4.45", &["x500UniqueIdentifier"]),
    ("2.5.4.46", &["dnQualifier"]),
    ("2.5.4.65", &["pseudonym"]),
    ("2.5.4.97", &["organizationIdentifier"]),
    ("0.9.2342.19200300.100.1.1", &["UID", "userId"]),
    ("0.9.2342.19200300.100.1.25", &["DC", "domainComponent"]),
    ("1.2.840.113549.1.9.1", &["emailAddress", "E", "email"]),
    ("1.3.6.1.4.1.311.60.2.1.1", &["jurisdictionL", "jurisdictionLocalityName"]),
    ("1.3.6.1.4.1.311.60.2.1.2", &["jurisdictionST", "jurisdictionStateOrProvinceName"]),
    ("1.3.6.1.4.1.311.60.2.1.3", &["jurisdictionC", "jurisdictionCountryName"]),
];

fn sorted(mut attributes: Vec<(String, String)>) -> Vec<(String, String)> {
    attributes.sort_unstable();
    attributes
}

/// The object identifier of an attribute type: a known name, or the identifier itself.
fn oid(text: &str) -> Option<String> {
    let dotted = text.strip_prefix("OID.").or_else(|| text.strip_prefix("oid.")).unwrap_or(text);
    if dotted.contains('.') && dotted.split('.').all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(dotted.to_owned());
    }
    let known = TYPES.iter().find(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(text)));
    known.map(|(oid, _)| (*oid).to_owned())
}

/// The type before the first `=`, if `text` starts like an attribute.
fn attribute_type(text: &str) -> Option<(&str, &str)> {
    let (kind, value) = text.split_once('=')?;
    let kind = kind.trim();
    let word = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    word.then_some((kind, value))
}

/// Splits at separators that are neither escaped nor quoted, and after which another attribute starts: values such as `Example, Inc.` are
/// not split where nobody escaped them.
fn split<'a>(text: &'a str, separators: &[char]) -> Vec<&'a str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && separators.contains(&character) => {
                let rest = text.get(index + character.len_utf8()..).unwrap_or_default();
                if attribute_type(rest).is_some() {
                    parts.push(text.get(start..index).unwrap_or_default());
                    start = index + character.len_utf8();
                }
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (kind, value) = attribute_type(text).ok_or_else(|| format!("{:?} is not TYPE=value, as in CN=Example CA", text.trim()))?;
    let oid = oid(kind).ok_or_else(|| format!("the attribute type {kind:?} is not known; write its object identifier, as in 2.5.4.3"))?;
    let value = value.trim();
    let text = match value.strip_prefix('#') {
        Some(der) => encoded(der).ok_or_else(|| format!("{value:?} is not the hexadecimal encoding of a value"))?,
        None => unescape(value),
    };
    Ok((oid, fold(&text)))
}

/// The value of `#04024869`: the hexadecimal encoding of any type (RFC 4514 §2.4).
fn encoded(hex: &str) -> Option<String> {
    let der = base16ct::mixed::decode_vec(hex).ok()?;
    Any::from_der(&der).ok().map(|(_, any)| value(&any))
}

/// The text of a value of any string type. Other types are shown as their encoding.
fn value(any: &Any<'_>) -> String {
    let wide = |bytes: usize| {
        let code = |unit: &[u8]| unit.iter().fold(0_u32, |code, byte| code << 8 | u32::from(*byte));
        any.data.chunks(bytes).map(|unit| char::from_u32(code(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match any.tag() {
        Tag::BmpString => wide(2),
        Tag::UniversalString => wide(4),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString | Tag::T61String => {
            text_of(any.data)
        }
        other => format!("#{:02x}{}", other.0, crate::domain::Hex(any.data)),
    }
}

/// UTF-8, or Latin-1 as `T61String` is used in practice.
fn text_of(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}

/// For comparison: lower case, without outer and repeated spaces.
fn fold(value: &str) -> String {
    value.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Removes quotes and backslashes: `\,`, `\2C` (RFC 4514) and `\x2C` (`openssl` in one line).
fn unescape(text: &str) -> String {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut rest = quoted.unwrap_or(text).as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let digits = after.strip_prefix(b"x").or_else(|| after.strip_prefix(b"X")).unwrap_or(after);
        let pair = digits.get(..2).and_then(|pair| base16ct::mixed::decode_vec(pair).ok());
        match (pair, after.split_first()) {
            (Some(byte), _) => {
                bytes.extend(byte);
                rest = digits.get(2..).unwrap_or_default();
            }
            (None, Some((character, after))) => {
                bytes.push(*character);
                rest = after;
            }
            (None, None) => {}
        }
    }
    text_of(&bytes)
}

/// Escapes what would end the value, and control characters.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | ';' | '<' | '>' => text.extend(['\\', character]),
            '#' if index == 0 => text.push_str("\\#"),
            control if control.is_control() => control.to_string().bytes().for_each(|byte| {
                let _ = write!(text, "\\{byte:02X}");
            }),
            plain => text.push(plain),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

    use super::*;

    fn certificate(attributes: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn every_usual_spelling_is_the_same_name() {
        let der = certificate(&[
            (DnType::CountryName, DnValue::PrintableString("CH".try_into().unwrap())),
            (DnType::OrganizationName, utf8("Example, Inc. + \"Söhne\"")),
            (DnType::CommonName, DnValue::BmpString("Client  CA".try_into().unwrap())),
        ]);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let name = Name::of(parsed.subject());
        for text in [
            "C=CH, O=Example\\, Inc. \\+ \\\"Söhne\\\", CN=Client CA",
            "CN=client ca,O=Example\\2C Inc. \\2B \\22S\\C3\\B6hne\\22,C=ch",
            "issuer=C = CH, O = \"Example, Inc. + \\\"S\\C3\\B6hne\\\"\", CN = Client CA",
            "/C=CH/O=Example, Inc. + \"S\\xC3\\xB6hne\"/CN=Client CA",
            "CN=Client CA, 2.5.4.10=Example\\, Inc. + \\\"Söhne\\\", OID.2.5.4.6=CH",
            "Issuer: C=CH, O=Example, Inc. + \\\"SÖHNE\\\", CN=#1E120043006C00690065006E0074002000430041",
            &show(parsed.subject()),
        ] {
            assert!(Name::parse(text).unwrap().matches(&name), "{text}: {:?}", Name::parse(text));
        }
        for text in ["C=CH, O=Example, CN=Client CA", "CN=Client CA", "O=Example\\, Inc. \\+ \\\"Söhne\\\", C=CH, CN=Client CA"] {
            assert!(!Name::parse(text).unwrap().matches(&name), "{text}");
        }
        assert_eq!(show(parsed.subject()), "C=CH, O=Example\\, Inc. \\+ \\\"Söhne\\\", CN=Client  CA");
    }

    #[test]
    fn text_that_is_no_name_is_refused() {
        for text in ["", "Example CA", "CN", "=x", "XX=Example", "CN=#zz", "/"] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_with_several_attributes_have_no_order() {
        let one = Name::parse("CN=a+OU=b, O=c").unwrap();
        assert!(one.matches(&Name::parse("O=C, OU=B + CN=A").unwrap()));
        assert!(!one.matches(&Name::parse("CN=a, OU=b, O=c").unwrap()));
    }
}
