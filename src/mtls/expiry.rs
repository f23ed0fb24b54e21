//! When the certificates and revocation lists of the vault expire. Of the authorities of one SPIFFE trust domain in one file, the last one counts.

use std::{collections::BTreeMap, path::Path};

use super::{
    certificate::{ends, read_certificates},
    config::{FileError, Files, TlsConfig},
    identity,
};
use crate::domain::Timestamp;

/// What expires: the label of the gauge of expiries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryKind {
    /// The server's certificate, or an intermediate of it.
    Server,
    /// A client CA.
    ClientCa,
    /// A revocation list, at its next update.
    Crl,
}

impl ExpiryKind {
    pub(super) const ALL: [Self; 3] = [Self::Server, Self::ClientCa, Self::Crl];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ClientCa => "client-ca",
            Self::Crl => "crl",
        }
    }
}

/// The first of its kind that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// What expires.
    pub kind: ExpiryKind,
    /// Seconds until then, negative afterwards.
    pub seconds: i64,
    /// For how many seconds it is valid in all. 0 for a revocation list.
    pub lifetime: i64,
}

/// The end of one certificate or list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) at: Timestamp,
    pub(super) lifetime: i64,
}

/// The ends of the server certificate, its intermediates and the client CAs.
pub(super) fn of_certificates(config: &TlsConfig, files: &Files) -> Result<Vec<(ExpiryKind, End)>, FileError> {
    let mut all = Vec::new();
    for certificate in read_certificates(&config.certificate, files)? {
        all.push((ExpiryKind::Server, end(&certificate, &config.certificate)?));
    }
    for ca in &config.client_cas {
        all.extend(of_cas(&ca.file, files)?.into_iter().map(|end| (ExpiryKind::ClientCa, end)));
    }
    Ok(all)
}

/// The authorities of a trust domain replace each other without anybody's help, and SPIRE leaves the expired ones in its bundle for a day. Therefore only
/// the last one matters.
fn of_cas(file: &Path, files: &Files) -> Result<Vec<End>, FileError> {
    let (mut all, mut last) = (Vec::new(), BTreeMap::new());
    for certificate in read_certificates(file, files)? {
        let end = end(&certificate, file)?;
        match identity::authority_of(&certificate) {
            None => all.push(end),
            Some(trust_domain) => {
                let last = last.entry(trust_domain).or_insert(end);
                *last = end.max(*last);
            }
        }
    }
    all.extend(last.into_values());
    Ok(all)
}

fn end(certificate: &[u8], file: &Path) -> Result<End, FileError> {
    let fields = identity::read(certificate).map_err(|error| FileError::new(file, error))?;
    Ok(End { at: ends(fields.not_after), lifetime: fields.not_after.saturating_sub(fields.not_before) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, date_time_ymd};

    use super::*;

    /// A CA with these URI names that expires on that day of January 2030.
    fn ca(uris: &[&str], day: u8) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        (params.not_before, params.not_after) = (date_time_ymd(2029, 1, 1), date_time_ymd(2030, 1, day));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    /// The days of January on which the CAs of a file expire, in order.
    fn days(cas: &[String]) -> Vec<i64> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, cas.concat()).unwrap();
        let files = Files::read(std::iter::once(file.as_path())).unwrap();
        let january = date_time_ymd(2030, 1, 1).unix_timestamp();
        let mut days: Vec<_> = of_cas(&file, &files).unwrap().iter().map(|end| 1 + (end.at.seconds() - january) / 86400).collect();
        days.sort_unstable();
        days
    }

    #[test]
    fn the_last_authority_of_a_trust_domain_counts_and_every_other_ca() {
        let (one, other) = ("spiffe://one.org", "spiffe://other.org");
        assert_eq!(days(&[ca(&[one], 9), ca(&[one], 3), ca(&[other], 5), ca(&[other], 7)]), [7, 9]);
        assert_eq!(days(&[ca(&[], 3), ca(&[], 9)]), [3, 9], "without a trust domain, nothing says that one follows the other");
        assert_eq!(days(&[ca(&["spiffe://one.org/a"], 3), ca(&[one, one], 4), ca(&["https://one.org"], 5), ca(&[one], 9)]), [3, 4, 5, 9]);
    }
}
