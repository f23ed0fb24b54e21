//! Certificate revocation lists (CRL) in PEM or DER, each with its issuer and its expiry.

use std::path::Path;

use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ParsedExtension, X509Extension},
    prelude::{CertificateRevocationList, FromDer},
};

use super::config::{FileError, Files};
use crate::domain::Timestamp;

/// One revocation list.
#[derive(Debug, Clone)]
pub(super) struct Crl {
    pub(super) der: CertificateRevocationListDer<'static>,
    /// Its next update.
    pub(super) until: Timestamp,
    issuer: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

impl Crl {
    /// The lists of a file, at least one. A list without a next update is refused, because its expiry would be unknown.
    pub(super) fn read(file: &Path, files: &Files) -> Result<Vec<Self>, FileError> {
        let bytes = files.bytes(file);
        let ders = if bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
            let pem = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
            pem.map_err(|error| FileError::new(file, error))?
        } else {
            vec![CertificateRevocationListDer::from(bytes.to_vec())]
        };
        if ders.is_empty() {
            return Err(FileError::new(file, "the file contains no revocation list"));
        }
        ders.into_iter().map(|der| Self::parse(der).map_err(|problem| FileError::new(file, problem))).collect()
    }

    /// Whether this can be a list of `ca` or of an intermediate. The list of another CA with the same name is not: after a key change both lists
    /// exist, and the signature of the wrong one would not verify.
    pub(super) fn may_concern(&self, ca: &X509Certificate<'_>) -> bool {
        let key_id = ca.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let other_key = matches!((key_id, &self.key_id), (Some(of_ca), Some(of_list)) if of_ca != of_list);
        !(other_key && self.issuer == ca.subject().as_raw())
    }

    fn parse(der: CertificateRevocationListDer<'static>) -> Result<Self, &'static str> {
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|_| "the file is not a revocation list in PEM or DER")?;
        let next = list.next_update().ok_or("the revocation list has no next update, so that its expiry is unknown")?;
        let until = Timestamp::from_micros(next.timestamp().saturating_mul(1_000_000));
        let issuer = list.issuer().as_raw().to_vec();
        let key_id = list.extensions().iter().find_map(authority_key_id).map(<[u8]>::to_vec);
        drop(list);
        Ok(Self { der, until, issuer, key_id })
    }
}

fn authority_key_id<'a>(extension: &'a X509Extension<'_>) -> Option<&'a [u8]> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    }
}

const BEGIN: &[u8] = b"-----BEGIN";
