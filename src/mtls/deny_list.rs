//! The deny-list: certificates that are refused by their SHA-256, or by serial number and issuer, in addition to revocation lists.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::{
    config::{DenyConfig, FileError, Files},
    identity::{self, CertificateFields, IdentityError, serial_text},
    peer::Peer,
    refusal::NotAdmitted,
};
use crate::domain::CertificateId;

/// The parsed deny-list.
#[derive(Debug, Default)]
pub(super) struct DenyList {
    certificates: HashSet<[u8; 32]>,
    serials: HashSet<(String, String)>,
}

impl DenyList {
    pub(super) fn read(config: &DenyConfig, files: &Files) -> Result<Self, FileError> {
        match config {
            DenyConfig::Entries(entries) => {
                Self::parse(entries.iter().map(String::as_str)).map_err(|problem| FileError::new("[tls] deny".as_ref(), problem))
            }
            DenyConfig::File(file) => {
                let text = std::str::from_utf8(files.bytes(file)).map_err(|error| FileError::new(file, error))?;
                Self::parse(text.lines()).map_err(|problem| FileError::new(file, problem))
            }
        }
    }

    /// Refuses a client if the list names its certificate, or another certificate that it sent.
    pub(super) fn check(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        if self.has(&peer.certificate, peer.fields()) {
            return Err(NotAdmitted::DenyListed);
        }
        let denied = peer.issuers().iter().any(|(digest, fields)| self.has(digest, fields));
        if denied { Err(NotAdmitted::IssuerDenyListed) } else { Ok(()) }
    }

    /// Whether the list names a certificate (DER).
    pub(super) fn names(&self, certificate: &[u8]) -> Result<bool, IdentityError> {
        Ok(self.has(&Sha256::digest(certificate).into(), &identity::read(certificate)?))
    }

    fn has(&self, digest: &CertificateId, fields: &CertificateFields) -> bool {
        let by_serial = || !self.serials.is_empty() && self.serials.contains(&(fields.serial.clone(), fields.issuer.clone()));
        self.certificates.contains(digest) || by_serial()
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut list = Self::default();
        for line in lines.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()) {
            let problem = || format!("{line:?} is neither the SHA-256 of a certificate (64 hex digits) nor <serial in hex> <issuer>");
            match line.split_once(char::is_whitespace) {
                None => {
                    let digest = hex(line).and_then(|bytes| bytes.try_into().ok()).ok_or_else(problem)?;
                    list.certificates.insert(digest);
                }
                Some((serial, issuer)) => {
                    let serial = hex(serial).filter(|bytes| bytes.len() <= 20).ok_or_else(problem)?;
                    list.serials.insert((serial_text(&serial), issuer.trim().to_owned()));
                }
            }
        }
        Ok(list)
    }
}

/// Hex digits in upper or lower case, with or without colons, as `openssl` prints them.
fn hex(text: &str) -> Option<Vec<u8>> {
    base16ct::mixed::decode_vec(text.replace(':', "")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_people_have_them() {
        let hex = "ab".repeat(32);
        let text = format!("# lost laptop\n{hex}  # ours\n\n{}\n0A:01 CN=Example CA, O=Example\n", ["CD"; 32].join(":"));
        let list = DenyList::parse(text.lines()).unwrap();
        assert_eq!(list.certificates, [[0xab; 32], [0xcd; 32]].into());
        assert_eq!(list.serials, [("0a01".to_owned(), "CN=Example CA, O=Example".to_owned())].into());
    }

    #[test]
    fn a_line_that_denies_nothing_is_an_error() {
        for line in ["zz", "ab", &"ab".repeat(31), "CN=Example CA", "xyz CN=Example"] {
            assert!(DenyList::parse([line].into_iter()).is_err(), "{line}");
        }
    }
}
