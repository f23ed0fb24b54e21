//! The revocation lists of one entry of `client_cas`: which list counts for which certificate of a chain, and which lists cannot be used.
//!
//! The newest list counts among those that the issuer signed and that cover the same certificates, whatever the order of files and lists.
//! Every certificate below the client CA needs a current list of its issuer.

use rustls::{crypto::WebPkiSupportedAlgorithms, pki_types::CertificateDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    certificate::provider,
    config::{ClientCaConfig, FileError, Files},
    crl::Crl,
    name::show,
    refusal::NotAdmitted,
};
use crate::domain::Timestamp;

/// The usable lists of an entry.
#[derive(Debug)]
pub(super) struct RevocationLists {
    lists: Vec<Crl>,
    unusable: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A certificate of a chain, in DER and parsed.
pub(super) struct Link<'a> {
    der: &'a CertificateDer<'a>,
    pub(super) parsed: X509Certificate<'a>,
}

impl<'a> Link<'a> {
    /// Parses a certificate. `None` if it is none.
    pub(super) fn read(der: &'a CertificateDer<'a>) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, parsed)| Self { der, parsed })
    }
}

impl RevocationLists {
    /// Reads the lists of an entry. `None` if it names no list: revocation is then not checked.
    pub(super) fn read(ca: &ClientCaConfig, files: &Files) -> Result<Option<Self>, FileError> {
        if ca.crl.is_empty() {
            return Ok(None);
        }
        let (mut lists, mut unusable) = (Vec::new(), Vec::new());
        for file in &ca.crl {
            let (usable, reasons) = Crl::read(file, files)?;
            lists.extend(usable);
            unusable.extend(reasons);
        }
        Ok(Some(Self { lists, unusable, algorithms: provider().signature_verification_algorithms }))
    }

    /// Whether `certificate`, which `issuer` issued, is known not to be revoked at `now`. Returns the time until which that holds.
    pub(super) fn check(&self, certificate: &Link<'_>, issuer: &Link<'_>, now: Timestamp) -> Result<Timestamp, NotAdmitted> {
        let lists = self.newest_of(issuer).into_iter().filter(|list| list.covers(&certificate.parsed)).collect::<Vec<_>>();
        if lists.iter().any(|list| list.revokes(&certificate.parsed)) {
            return Err(NotAdmitted::Revoked);
        }
        let ends = lists.iter().map(|list| list.until).filter(|until| now < *until).min();
        ends.ok_or(if lists.is_empty() { NotAdmitted::RevocationUnknown } else { NotAdmitted::RevocationListExpired })
    }

    /// Whether a list names `certificate`. For a client CA, which needs no list of its own issuer.
    pub(super) fn revokes(&self, certificate: &Link<'_>, issuer: &Link<'_>) -> bool {
        self.newest_of(issuer).into_iter().any(|list| list.covers(&certificate.parsed) && list.revokes(&certificate.parsed))
    }

    /// The next updates of the lists in use.
    pub(super) fn ends(&self, cas: &[CertificateDer<'_>]) -> Vec<Timestamp> {
        self.in_use(cas).map(|list| list.until).collect()
    }

    /// The names (DER) of the issuers of the lists.
    pub(super) fn issuers(&self) -> impl Iterator<Item = &[u8]> {
        self.lists.iter().map(|list| list.issuer.as_slice())
    }

    /// What is wrong with the lists, for people: those that cannot be used, and the client CAs without one. `cas` are the certificates of
    /// the entry.
    pub(super) fn warnings(&self, cas: &[CertificateDer<'_>], now: Timestamp) -> Vec<String> {
        let mut all = self.unusable.clone();
        let links = cas.iter().filter_map(Link::read).collect::<Vec<_>>();
        for list in &self.lists {
            if links.iter().any(|ca| self.is_of(list, ca)) {
                if list.this_update > now {
                    all.push(format!("{} is from the future. Check the clocks of the CA and of this machine", list.name));
                }
            } else if links.iter().any(|ca| list.names(&ca.parsed)) {
                all.push(format!("{} is not used: its signature is not by this CA. Fetch it again", list.name));
            } else {
                all.push(format!(
                    "{} has an issuer that is no CA of this entry of client_cas: it counts only for clients that send the certificate of \
                     this issuer, below a CA of the entry. Remove it, or correct the file",
                    list.name
                ));
            }
        }
        for list in self.in_use(cas).filter(|list| list.until <= now) {
            all.push(format!(
                "{} has passed its next update ({}): clients whose certificates need it are refused until a newer one is in place",
                list.name, list.until
            ));
        }
        for ca in links.iter().filter(|ca| self.newest_of(ca).is_empty()) {
            all.push(format!(
                "the client CA {} has no usable revocation list, although its entry of client_cas names lists: every client with a \
                 certificate of it is refused. Add its list",
                show(ca.parsed.subject())
            ));
        }
        all
    }

    /// The lists that count for certificates of `issuer`.
    fn newest_of(&self, issuer: &Link<'_>) -> Vec<&Crl> {
        // RFC 5280 §6.3.3 (f): a CA whose key usage excludes the signing of lists has none.
        if issuer.parsed.key_usage().is_ok_and(|usage| usage.is_some_and(|usage| !usage.value.crl_sign())) {
            return Vec::new();
        }
        let mut named = self.lists.iter().filter(|list| list.issuer == issuer.parsed.subject().as_raw()).collect::<Vec<_>>();
        named.sort_by(|one, other| other.age().cmp(&one.age()));
        let mut newest = Vec::<&Crl>::new();
        for list in named {
            // Verifies only the signatures of lists that may count.
            if !newest.iter().any(|newer| newer.supersedes(list)) && self.is_of(list, issuer) {
                newest.push(list);
            }
        }
        newest
    }

    /// The lists that count for certificates of `cas`, and those of issuers that are not known before a client sends them.
    fn in_use(&self, cas: &[CertificateDer<'_>]) -> impl Iterator<Item = &Crl> {
        let links = cas.iter().filter_map(Link::read).collect::<Vec<_>>();
        let of_cas = links.iter().flat_map(|ca| self.newest_of(ca)).collect::<Vec<_>>();
        let used = |list: &&Crl| of_cas.iter().any(|of_ca| std::ptr::eq(*of_ca, *list));
        let strange = self.lists.iter().filter(|list| !used(list) && !links.iter().any(|ca| list.names(&ca.parsed))).collect::<Vec<_>>();
        let newest = strange
            .clone()
            .into_iter()
            .filter(move |list| !strange.iter().any(|other| other.issuer == list.issuer && other.supersedes(list)));
        of_cas.into_iter().chain(newest)
    }

    /// Whether `ca` issued the list. The signature decides: some CAs write another key id into their lists than into their certificate.
    fn is_of(&self, list: &Crl, ca: &Link<'_>) -> bool {
        list.issuer == ca.parsed.subject().as_raw() && list.is_signed_by(ca.der, self.algorithms.all)
    }
}
