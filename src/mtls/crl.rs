//! One certificate revocation list (CRL): its issuer, age, expiry, scope and serial numbers, and the check of its signature.

use std::{collections::HashSet, path::Path};

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{BorrowedCertRevocationList, EndEntityCert};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension, X509Extension},
    oid_registry::{OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT},
    prelude::{CertificateRevocationList, FromDer},
};

use super::{
    config::{FileError, Files},
    identity::serial_bytes,
    name::show,
};
use crate::{crypto::pem_sections, domain::Timestamp};

/// One revocation list.
#[derive(Debug)]
pub(super) struct Crl {
    /// How warnings call it: the file and the issuer.
    pub(super) name: String,
    /// The issuer's distinguished name (DER).
    pub(super) issuer: Vec<u8>,
    pub(super) this_update: Timestamp,
    /// Its next update: the list is not current from then on.
    pub(super) until: Timestamp,
    number: Vec<u8>,
    key_id: Option<Vec<u8>>,
    scope: Scope,
    revoked: HashSet<Vec<u8>>,
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

/// The certificates that a list covers (RFC 5280 §5.2.5). The default is every certificate of the issuer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scope {
    users_only: bool,
    cas_only: bool,
    /// The URIs of its distribution point, if it is the list of one.
    point: Option<Vec<String>>,
}

impl Crl {
    /// The lists of a file, at least one, and why some cannot be used. A list without a next update is refused, because its expiry would be
    /// unknown.
    pub(super) fn read(file: &Path, files: &Files) -> Result<(Vec<Self>, Vec<String>), FileError> {
        let bytes = files.bytes(file);
        let ders = match pem_sections(bytes).map_err(|problem| FileError::new(file, problem))? {
            Some(sections) => sections.into_iter().filter(|section| section.label == "X509 CRL").map(|section| section.der).collect(),
            None => vec![bytes.to_vec().into()],
        };
        if ders.is_empty() {
            return Err(FileError::new(file, "the file contains no revocation list"));
        }
        let (mut lists, mut unusable) = (Vec::new(), Vec::new());
        for der in ders {
            let list = Self::parse(file, &der).map_err(|problem| FileError::new(file, problem))?;
            match BorrowedCertRevocationList::from_der(&der).and_then(|list| list.to_owned().map(drop)) {
                Ok(()) => lists.push(list),
                Err(error) => unusable.push(format!("{}: {}", list.name, unsupported(&error))),
            }
        }
        Ok((lists, unusable))
    }

    /// Whether the list names this CA as its issuer. The list of another key with the same name does not: after a key change both exist.
    pub(super) fn names(&self, ca: &X509Certificate<'_>) -> bool {
        let key_id = ca.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let other_key = matches!((key_id, &self.key_id), (Some(of_ca), Some(of_list)) if of_ca != of_list);
        self.issuer == ca.subject().as_raw() && !other_key
    }

    /// Whether the key of `ca` signed the list.
    pub(super) fn is_signed_by(&self, ca: &CertificateDer<'_>, algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        EndEntityCert::try_from(ca).is_ok_and(|ca| {
            let mut fitting = algorithms.iter().filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm);
            fitting.any(|algorithm| ca.verify_signature(*algorithm, &self.signed, &self.signature).is_ok())
        })
    }

    /// Whether this list supersedes `other`, a list of the same issuer: same certificates, issued later. Of two with the same time, the
    /// higher CRL number counts.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.scope == other.scope && self.age() > other.age()
    }

    /// For sorting: later lists are greater.
    pub(super) fn age(&self) -> (Timestamp, usize, &[u8]) {
        (self.this_update, self.number.len(), &self.number)
    }

    /// Whether the list says anything about a certificate of its issuer. A list of one distribution point covers the certificates that name
    /// that point, or none.
    pub(super) fn covers(&self, certificate: &X509Certificate<'_>) -> bool {
        if if certificate.is_ca() { self.scope.users_only } else { self.scope.cas_only } {
            return false;
        }
        let points = certificate.extensions().iter().find(|extension| extension.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS);
        let (Some(own), Some(points)) = (&self.scope.point, points) else { return true };
        let ParsedExtension::CRLDistributionPoints(points) = points.parsed_extension() else { return false };
        let whole = points.iter().filter(|point| point.crl_issuer.is_none() && point.reasons.is_none());
        whole.flat_map(|point| uris(point.distribution_point.as_ref())).any(|uri| own.iter().any(|own| own == uri))
    }

    /// Whether the list names a serial number.
    pub(super) fn revokes(&self, certificate: &X509Certificate<'_>) -> bool {
        self.revoked.contains(serial_bytes(certificate.raw_serial()))
    }

    fn parse(file: &Path, der: &[u8]) -> Result<Self, &'static str> {
        const NOT_A_LIST: &str = "the file is not a revocation list in PEM or DER";
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| NOT_A_LIST)?;
        let next = list.next_update().ok_or("the revocation list has no next update, so that its expiry is unknown")?;
        let signed = list.tbs_cert_list.as_ref();
        let scope = match list.extensions().iter().find(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT) {
            None => Scope::default(),
            Some(extension) => match extension.parsed_extension() {
                ParsedExtension::IssuingDistributionPoint(point) => Scope::of(point),
                _ => return Err("the issuing distribution point of the revocation list cannot be read"),
            },
        };
        let this_update = seconds(list.last_update().timestamp());
        Ok(Self {
            name: format!("{}: the revocation list of {} from {this_update}", file.display(), show(list.issuer())),
            issuer: list.issuer().as_raw().to_vec(),
            this_update,
            until: seconds(next.timestamp()),
            number: list.crl_number().map(x509_parser::num_bigint::BigUint::to_bytes_be).unwrap_or_default(),
            key_id: list.extensions().iter().find_map(authority_key_id).map(<[u8]>::to_vec),
            scope,
            revoked: list.iter_revoked_certificates().map(|revoked| serial_bytes(revoked.raw_serial()).to_vec()).collect(),
            algorithm: algorithm(list.as_raw(), signed.len()).ok_or(NOT_A_LIST)?.to_vec(),
            signature: list.signature_value.data.to_vec(),
            signed: signed.to_vec(),
        })
    }
}

impl Scope {
    fn of(point: &IssuingDistributionPoint<'_>) -> Self {
        let point_uris = point.distribution_point.as_ref().map(|name| {
            let mut uris = uris(Some(name)).map(str::to_owned).collect::<Vec<_>>();
            uris.sort_unstable();
            uris
        });
        Self { users_only: point.only_contains_user_certs, cas_only: point.only_contains_ca_certs, point: point_uris }
    }
}

fn uris<'a>(name: Option<&'a DistributionPointName<'_>>) -> impl Iterator<Item = &'a str> {
    let names = match name {
        Some(DistributionPointName::FullName(names)) => names.as_slice(),
        _ => &[],
    };
    names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

fn authority_key_id<'a>(extension: &'a X509Extension<'_>) -> Option<&'a [u8]> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    }
}

/// The content of the signature algorithm of a list, which follows the signed part. The parser does not keep its bytes.
fn algorithm(list: &[u8], signed: usize) -> Option<&[u8]> {
    let header = match *list.get(1)? {
        0..0x80 => 2,
        long => 2 + usize::from(long & 0x7f),
    };
    let (length, rest) = list.get(header + signed..)?.strip_prefix(&[0x30])?.split_first()?;
    rest.get(..usize::from(*length))
}

const fn seconds(since_epoch: i64) -> Timestamp {
    Timestamp::from_micros(since_epoch.saturating_mul(1_000_000))
}

/// Why a list cannot be used. Such a list is skipped and reported: it never admits a client.
fn unsupported(error: &webpki::Error) -> String {
    use webpki::Error as E;
    let why = match error {
        E::UnsupportedDeltaCrl => "it is a delta CRL; supply the complete list",
        E::UnsupportedIndirectCrl => "it is an indirect CRL; supply the list of each CA",
        E::UnsupportedRevocationReasonsPartitioning => "it covers some revocation reasons only; supply a list for all reasons",
        E::UnsupportedCrlIssuingDistributionPoint => {
            "its distribution point has no full name; supply a list for all certificates of the CA"
        }
        other => return format!("is not used: {other:?}"),
    };
    format!("is not used: {why}")
}
