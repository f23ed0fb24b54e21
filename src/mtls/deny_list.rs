//! The deny-list: certificates that are refused by their SHA-256, or by serial number and issuer, in addition to revocation lists.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use x509_parser::{prelude::FromDer as _, x509::X509Name};

use super::{
    config::{DenyConfig, FileError, Files},
    identity::{self, CertificateFields, IdentityError, serial_bytes, serial_text},
    name::{Name, without_label},
    peer::Peer,
    refusal::NotAdmitted,
};
use crate::domain::CertificateId;

/// The parsed deny-list.
#[derive(Debug, Default)]
pub(super) struct DenyList {
    certificates: HashSet<[u8; 32]>,
    /// By serial number.
    serials: HashMap<String, Vec<DeniedIssuer>>,
}

/// The issuer of an entry by serial number.
#[derive(Debug)]
struct DeniedIssuer {
    name: Name,
    /// The entry, for people.
    entry: String,
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

    /// The entries that can deny only certificates of issuers that the vault does not know. `known`: the names (DER) of the client CAs and of
    /// the issuers of revocation lists.
    pub(super) fn warnings(&self, known: &[&[u8]]) -> Vec<String> {
        let known = known.iter().filter_map(|der| name(der)).collect::<Vec<_>>();
        let unknown = self.serials.values().flatten().filter(|denied| !known.iter().any(|name| name.matches(&denied.name)));
        let mut warnings = unknown.map(|DeniedIssuer { entry, .. }| {
            format!(
                "the entry {entry:?} of [tls] deny names an issuer that is neither a client CA nor the issuer of a revocation list: it denies \
                 nobody, unless clients send the certificate of an intermediate CA with this name. Copy serial and issuer from the \
                 certificate: openssl x509 -in FILE -noout -serial -issuer"
            )
        });
        let mut all = warnings.by_ref().collect::<Vec<_>>();
        all.sort_unstable();
        all
    }

    fn has(&self, digest: &CertificateId, fields: &CertificateFields) -> bool {
        let by_serial = || {
            let denied = self.serials.get(&fields.serial)?;
            let issuer = name(&fields.issuer_der)?;
            denied.iter().find(|denied| denied.name.matches(&issuer))
        };
        self.certificates.contains(digest) || by_serial().is_some()
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut list = Self::default();
        for line in lines.map(without_comment).filter(|line| !line.is_empty()) {
            let problem =
                |what: &str| format!("{line:?} is neither the SHA-256 of a certificate (64 hex digits) nor <serial in hex> <issuer>{what}");
            match without_label(line, "serial").trim_start().split_once(char::is_whitespace) {
                None => {
                    let digest = hex(line).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| problem(""))?;
                    list.certificates.insert(digest);
                }
                Some((serial, issuer)) => {
                    let number = hex(serial).map(|bytes| serial_bytes(&bytes).to_vec()).filter(|bytes| (1..=20).contains(&bytes.len()));
                    let number = number.ok_or_else(|| problem(": the serial number is read as hex, with an even number of digits"))?;
                    let name = Name::parse(issuer).map_err(|what| problem(&format!(": {what}")))?;
                    list.serials.entry(serial_text(&number)).or_default().push(DeniedIssuer { name, entry: line.to_owned() });
                }
            }
        }
        Ok(list)
    }
}

/// A line without the comment at its end. `#` starts a comment at the start of a line and after a space.
fn without_comment(line: &str) -> &str {
    let line = line.trim_start_matches('\u{feff}').trim();
    let comment = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| line.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t'])));
    comment.and_then(|at| line.get(..at)).unwrap_or(line).trim_end()
}

fn name(der: &[u8]) -> Option<Name> {
    X509Name::from_der(der).ok().map(|(_, name)| Name::of(&name))
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
        assert_eq!(list.serials.keys().collect::<Vec<_>>(), ["0a01"]);
    }

    #[test]
    fn a_line_that_denies_nothing_is_an_error() {
        for line in ["zz", "ab", &"ab".repeat(31), "CN=Example CA", "xyz CN=Example", "0a01 Example CA", "123 CN=Example CA"] {
            assert!(DenyList::parse([line].into_iter()).is_err(), "{line}");
        }
    }
}
