//! The name of a principal, from the names in its certificate. Parses a verified chain and uses no other input.
//!
//! If there is a URI name, it must be the only one and a SPIFFE id, and DNS names are ignored. Otherwise there must be exactly one DNS
//! name, without a wildcard. The common name is never used.

use std::{fmt, str::FromStr, sync::Arc};

use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, Validity},
};

use super::name::show;
use crate::domain::Hex;

/// The name that a certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// `spiffe://<trust domain>/<path>`
    Spiffe(SpiffeId),
    /// `dns:<lower-case name>`
    Dns(DnsName),
}

impl Identity {
    /// The principal's name: `spiffe://…` or `dns:…`.
    pub fn name(&self) -> Arc<str> {
        self.to_string().into()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => f.write_str(&id.0),
            Self::Dns(name) => write!(f, "dns:{}", name.0),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Reads a principal's name as written in grants.
    fn from_str(name: &str) -> Result<Self, IdentityError> {
        match name.strip_prefix("dns:") {
            Some(dns) if dns.bytes().any(|byte| byte.is_ascii_uppercase()) => Err(IdentityError::DnsName),
            Some(dns) => dns.parse().map(Self::Dns),
            None => name.parse().map(Self::Spiffe),
        }
    }
}

/// A SPIFFE id of a workload, at most 2048 bytes.
///
/// Source: SPIFFE-ID standard §2. No userinfo, port, query, fragment, percent-encoding, empty or dot segment, or final slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The part between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        self.0.strip_prefix(SPIFFE).and_then(|rest| rest.split('/').next()).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri.strip_prefix(SPIFFE).filter(|_| uri.len() <= 2048).ok_or(IdentityError::SpiffeId)?;
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::SpiffeId)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.chars().all(plain);
        if is_trust_domain(domain) && path.split('/').all(segment) { Ok(Self(uri.into())) } else { Err(IdentityError::SpiffeId) }
    }
}

/// A host name in lower case without a wildcard, at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName(Arc<str>);

impl DnsName {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = IdentityError;

    fn from_str(name: &str) -> Result<Self, IdentityError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(inner);
        if name.len() <= 253 && name.split('.').all(label) {
            Ok(Self(name.to_ascii_lowercase().into()))
        } else {
            Err(IdentityError::DnsName)
        }
    }
}

/// Why a certificate has no usable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate, or its names cannot be parsed unambiguously.
    #[error("the certificate or its subject alternative names cannot be read")]
    Malformed,
    /// No URI and no DNS name. A common name is not used.
    #[error("the certificate has neither a URI nor a DNS subject alternative name; the common name is not used")]
    NoName,
    /// More than one URI name.
    #[error("the certificate has more than one URI subject alternative name")]
    ManyUris,
    /// More than one DNS name, and no URI.
    #[error("the certificate has more than one DNS subject alternative name")]
    ManyDnsNames,
    /// The URI is not a SPIFFE id of a workload.
    #[error("the URI is not a SPIFFE id: spiffe://<lower-case trust domain>/<path>, without percent-encoding, query, port or final slash")]
    SpiffeId,
    /// The DNS name is a wildcard or not a host name.
    #[error("the DNS name is a wildcard or not a host name (in a configuration, it must be lower case)")]
    DnsName,
}

/// What the vault keeps of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFields {
    /// The name in it, or why there is none.
    pub identity: Result<Identity, IdentityError>,
    /// The subject's distinguished name, as shown.
    pub subject: String,
    /// The issuer's distinguished name, as shown: `CN=Example CA, O=Example`.
    pub issuer: String,
    /// The issuer's distinguished name (DER).
    pub issuer_der: Vec<u8>,
    /// The serial number, lower-case hex without leading zero bytes.
    pub serial: String,
    /// Valid from, in seconds since the epoch.
    pub not_before: i64,
    /// Valid until, in seconds since the epoch, inclusive.
    pub not_after: i64,
}

/// Reads a certificate (DER).
///
/// # Errors
/// `Malformed` if it is none, or if bytes follow it.
pub fn read(der: &[u8]) -> Result<CertificateFields, IdentityError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Malformed)?;
    if !rest.is_empty() {
        return Err(IdentityError::Malformed);
    }
    let Validity { not_before, not_after } = certificate.validity();
    Ok(CertificateFields {
        identity: identify(&certificate),
        subject: show(certificate.subject()),
        issuer: show(certificate.issuer()),
        issuer_der: certificate.issuer().as_raw().to_vec(),
        serial: serial_text(certificate.raw_serial()),
        not_before: not_before.timestamp(),
        not_after: not_after.timestamp(),
    })
}

/// A serial number for display and comparison: lower-case hex without leading zero bytes.
pub fn serial_text(serial: &[u8]) -> String {
    Hex(serial_bytes(serial)).to_string()
}

/// A serial number without leading zero bytes.
pub(super) fn serial_bytes(serial: &[u8]) -> &[u8] {
    let leading = serial.iter().take_while(|byte| **byte == 0).count().min(serial.len().saturating_sub(1));
    serial.get(leading..).unwrap_or_default()
}

/// Whether `text` is a SPIFFE trust domain: lower-case letters, digits, `.`, `-`, `_`; 1 to 255 bytes.
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

/// The trust domain whose authority a certificate (DER) is: its one URI name is `spiffe://<trust domain>`, without a path.
///
/// Source: X509-SVID standard §3.2.
pub(super) fn authority_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let trust_domain = uris.next()?.strip_prefix(SPIFFE).filter(|domain| is_trust_domain(domain))?;
    (certificate.is_ca() && uris.next().is_none()).then(|| trust_domain.to_owned())
}

fn identify(certificate: &X509Certificate<'_>) -> Result<Identity, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(host) => hosts.push(*host),
            GeneralName::Invalid(..) => return Err(IdentityError::Malformed),
            _ => {}
        }
    }
    match (uris.as_slice(), hosts.as_slice()) {
        ([uri], _) => uri.parse().map(Identity::Spiffe),
        ([], [host]) => host.parse().map(Identity::Dns),
        ([], []) => Err(IdentityError::NoName),
        ([], _) => Err(IdentityError::ManyDnsNames),
        (_, _) => Err(IdentityError::ManyUris),
    }
}

const SPIFFE: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "participant1");
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn name_of(names: Vec<SanType>) -> Result<String, IdentityError> {
        read(&certificate(names)).unwrap().identity.map(|identity| identity.to_string())
    }

    #[test]
    fn a_certificate_names_one_principal_or_none() {
        let ip = SanType::IpAddress([127, 0, 0, 1].into());
        let mail = SanType::Rfc822Name("a@example.org".try_into().unwrap());
        let id = "spiffe://example.org/ns/canton/p1";
        for (names, expected) in [
            (vec![uri(id)], Ok(id)),
            (vec![uri(id), dns("other.example.org"), dns("more.example.org"), ip.clone()], Ok(id)),
            (vec![dns("P1.Example.ORG")], Ok("dns:p1.example.org")),
            (vec![dns("p1.example.org"), ip.clone(), mail.clone()], Ok("dns:p1.example.org")),
            (vec![], Err(IdentityError::NoName)),
            (vec![ip, mail], Err(IdentityError::NoName)),
            (vec![uri(id), uri(id)], Err(IdentityError::ManyUris)),
            (vec![uri(id), uri("https://example.org/")], Err(IdentityError::ManyUris)),
            (vec![dns("a.example.org"), dns("b.example.org")], Err(IdentityError::ManyDnsNames)),
            (vec![dns("*.example.org")], Err(IdentityError::DnsName)),
            (vec![uri("https://example.org/"), dns("p1.example.org")], Err(IdentityError::SpiffeId)),
        ] {
            assert_eq!(name_of(names.clone()), expected.map(str::to_owned), "{names:?}");
        }
    }

    #[test]
    fn only_canonical_spiffe_ids_count() {
        assert!(format!("spiffe://a/{}", "p".repeat(2048 - 11)).parse::<SpiffeId>().is_ok());
        for text in [
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///p1",
            "SPIFFE://example.org/p1",
            "spiffe://Example.org/p1",
            "spiffe://user@example.org/p1",
            "spiffe://example.org:443/p1",
            "spiffe://example.org/p1/",
            "spiffe://example.org//p1",
            "spiffe://example.org/./p1",
            "spiffe://example.org/../p1",
            "spiffe://example.org/p1?x",
            "spiffe://example.org/p1#x",
            "spiffe://example.org/p%31",
            "spiffe://exämple.org/p1",
            "dns:example.org",
            &format!("spiffe://a/{}", "p".repeat(2048)),
            &format!("spiffe://{}/p", "a".repeat(256)),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(IdentityError::SpiffeId), "{text}");
        }
        assert_eq!("spiffe://example.org/a/b".parse::<SpiffeId>().unwrap().trust_domain(), "example.org");
    }

    #[test]
    fn only_host_names_count() {
        for text in ["", ".", "a.", ".a", "a..b", "*", "*.a", "a b", "a/b", "ä.org", "a:1", &"a".repeat(64), &["a"; 128].join(".")] {
            assert_eq!(text.parse::<DnsName>(), Err(IdentityError::DnsName), "{text}");
        }
    }

    #[test]
    fn grants_are_written_as_principals_are_shown() {
        for text in ["spiffe://example.org/p1", "dns:p1.example.org"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        for text in ["dns:P1.example.org", "p1.example.org", "dns:*", "system", "dns:spiffe://a/b"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn serials_compare_without_their_sign_byte() {
        assert_eq!((serial_text(&[0, 0x80, 1]), serial_text(&[0x0a]), serial_text(&[0])), ("8001".into(), "0a".into(), "00".into()));
    }

    proptest! {
        #[test]
        fn bytes_that_are_not_a_certificate_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn an_edited_certificate_never_panics(at in 0_usize..400, bit in 0_u8..8) {
            let mut der = certificate(vec![uri("spiffe://example.org/p1"), dns("a.example.org")]);
            if let Some(byte) = der.get_mut(at) {
                *byte ^= 1 << bit;
            }
            let _ = read(&der);
        }

        #[test]
        fn an_accepted_spiffe_id_is_its_own_text(text in "spiffe://[a-zA-Z0-9._:@-]{0,12}/[a-zA-Z0-9._/%?#-]{0,12}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(&*id.0, text.as_str());
                prop_assert!(is_trust_domain(id.trust_domain()));
                let path = text.split_at("spiffe://".len() + id.trust_domain().len()).1;
                prop_assert!(!text.contains(['?', '#', '%', '@']) && !path.contains("/../") && !path.ends_with('/'));
            }
        }

        #[test]
        fn the_case_of_a_dns_name_does_not_matter(text in "[a-zA-Z0-9-]{1,10}(\\.[a-zA-Z0-9-]{1,10}){0,3}") {
            prop_assert_eq!(text.parse::<DnsName>().unwrap(), text.to_ascii_uppercase().parse::<DnsName>().unwrap());
        }
    }
}
