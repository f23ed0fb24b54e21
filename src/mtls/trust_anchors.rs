//! The client CAs, the names for which each may issue certificates, and their revocation lists. Decides about one chain at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rustls::{
    CertificateError, RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    certificate::{ends, provider, read_certificates},
    config::{ClientCaConfig, FileError, Files, TlsConfig},
    crl::Crl,
    deny_list::DenyList,
    identity::{DnsName, Identity, is_trust_domain},
    peer::Peer,
    refusal::NotAdmitted,
};
use crate::domain::Timestamp;

/// The client CAs and the deny-list.
#[derive(Debug)]
pub(super) struct TrustAnchors {
    cas: Vec<ClientCa>,
    deny: DenyList,
}

/// One client CA. Each has its own verifier, so that it is known which one issued a chain.
#[derive(Debug)]
struct ClientCa {
    names: Arc<AllowedNames>,
    verifier: Arc<dyn ClientCertVerifier>,
    ends: Timestamp,
    crls_end: Vec<Timestamp>,
}

impl TrustAnchors {
    /// Reads every client CA with its revocation lists, and the deny-list.
    pub(super) fn read(config: &TlsConfig, files: &Files) -> Result<Self, FileError> {
        let deny = DenyList::read(&config.deny, files)?;
        let mut cas = Vec::new();
        for ca in &config.client_cas {
            cas.extend(read_ca(ca, files)?);
        }
        Ok(Self { cas, deny })
    }

    /// Verifies the chain, for the handshake. [`TrustAnchors::decide`] checks the name too.
    pub(super) fn verify(&self, peer: &Peer, now: Timestamp) -> Result<(), NotAdmitted> {
        self.deny.check(peer)?;
        self.issuers(peer, now).map(drop)
    }

    /// Whether the client is admitted. Returns the time until which the passing of time alone cannot change that.
    pub(super) fn decide(&self, peer: &Peer, now: Timestamp) -> Result<Timestamp, NotAdmitted> {
        self.deny.check(peer)?;
        let issuers = self.issuers(peer, now)?;
        let identity = peer.identity().as_ref().map_err(|reason| NotAdmitted::NoIdentity(*reason))?;
        let ca = issuers.into_iter().find(|ca| ca.names.allow(identity)).ok_or(NotAdmitted::NameNotAllowed)?;
        let bounds = peer.bounds().iter().chain(&ca.crls_end).chain([&ca.ends]);
        Ok(bounds.copied().filter(|bound| *bound > now).min().unwrap_or(now))
    }

    /// The client CAs that issued the chain, or the most specific reason why there is none.
    fn issuers(&self, peer: &Peer, now: Timestamp) -> Result<Vec<&ClientCa>, NotAdmitted> {
        let (leaf, intermediates) = peer.chain().split_first().ok_or(NotAdmitted::NoCertificate)?;
        let (mut issuers, mut reason) = (Vec::new(), NotAdmitted::Untrusted);
        for ca in &self.cas {
            match ca.verify(leaf, intermediates, now) {
                Ok(()) => issuers.push(ca),
                Err(other) if reason == NotAdmitted::Untrusted => reason = other,
                Err(_) => {}
            }
        }
        if issuers.is_empty() { Err(reason) } else { Ok(issuers) }
    }
}

impl ClientCa {
    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: Timestamp) -> Result<(), NotAdmitted> {
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(leaf, intermediates, at) {
            // RFC 5280 §6.1 ignores the dates of a trust anchor. The vault checks them, so that a forgotten CA expires.
            Ok(ClientCertVerified { .. }) if now >= self.ends => Err(NotAdmitted::CaExpired),
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(reason)) => Err(reason_of(&reason)),
            Err(rustls::Error::InvalidCertRevocationList(_)) => Err(NotAdmitted::RevocationUnknown),
            Err(_) => Err(NotAdmitted::Untrusted),
        }
    }
}

const fn reason_of(reason: &CertificateError) -> NotAdmitted {
    use CertificateError as E;
    match reason {
        E::Revoked => NotAdmitted::Revoked,
        E::Expired | E::ExpiredContext { .. } => NotAdmitted::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => NotAdmitted::NotYetValid,
        E::UnknownRevocationStatus | E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => NotAdmitted::RevocationUnknown,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => NotAdmitted::WrongPurpose,
        _ => NotAdmitted::Untrusted,
    }
}

/// The names for which a CA may issue certificates. Other names are refused, so that no CA can issue names of the trust domain of another.
#[derive(Debug)]
struct AllowedNames {
    trust_domains: BTreeSet<String>,
    hosts: BTreeSet<String>,
    suffixes: Vec<String>,
}

impl AllowedNames {
    fn read(ca: &ClientCaConfig) -> Result<Self, FileError> {
        let refused = |problem: String| FileError::new(&ca.file, problem);
        if let Some(bad) = ca.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err(refused(format!(
                "trust_domains: {bad:?} is not a trust domain. Write example.org, in lower case and without spiffe://"
            )));
        }
        let host = |text: &str| {
            let problem =
                |_| refused(format!("dns: {text:?} is not a host name. Write p1.example.org, or *.example.org for all names below"));
            text.parse().map_err(problem).map(|name: DnsName| name.as_str().to_owned())
        };
        let (mut hosts, mut suffixes) = (BTreeSet::new(), Vec::new());
        for pattern in &ca.dns {
            match pattern.strip_prefix("*.") {
                Some(suffix) => suffixes.push(format!(".{}", host(suffix)?)),
                None => drop(hosts.insert(host(pattern)?)),
            }
        }
        Ok(Self { trust_domains: ca.trust_domains.iter().cloned().collect(), hosts, suffixes })
    }

    fn allow(&self, identity: &Identity) -> bool {
        match identity {
            Identity::Spiffe(id) => self.trust_domains.contains(id.trust_domain()),
            Identity::Dns(name) => {
                self.hosts.contains(name.as_str()) || self.suffixes.iter().any(|suffix| name.as_str().ends_with(suffix.as_str()))
            }
        }
    }
}

fn read_ca(ca: &ClientCaConfig, files: &Files) -> Result<Vec<ClientCa>, FileError> {
    let names = Arc::new(AllowedNames::read(ca)?);
    let crls = ca.crl.iter().map(|file| Crl::read(file, files)).collect::<Result<Vec<_>, _>>()?.concat();
    let certificates = read_certificates(&ca.file, files)?;
    certificates.iter().map(|certificate| read_ca_certificate(ca, certificate, &names, &crls)).collect()
}

fn read_ca_certificate(
    ca: &ClientCaConfig,
    certificate: &CertificateDer<'_>,
    names: &Arc<AllowedNames>,
    crls: &[Crl],
) -> Result<ClientCa, FileError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| FileError::new(&ca.file, "the file contains something that is not a certificate"))?;
    if !parsed.is_ca() {
        return Err(FileError::new(&ca.file, "the file contains a certificate that is not a CA (basic constraints)"));
    }
    let mut own = crls.iter().filter(|crl| crl.may_concern(&parsed)).collect::<Vec<_>>();
    if own.is_empty() {
        // The list must not be empty where revocation lists are configured: webpki would then skip the check.
        own = crls.iter().collect();
    }
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(|error| FileError::new(&ca.file, error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
        .with_crls(own.iter().map(|crl| crl.der.clone()))
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| FileError::new(ca.crl.first().unwrap_or(&ca.file), error))?;
    let crls_end = own.iter().map(|crl| crl.until).collect();
    Ok(ClientCa { names: Arc::clone(names), verifier, ends: ends(parsed.validity().not_after.timestamp()), crls_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed_names(trust_domains: &[&str], dns: &[&str]) -> Result<AllowedNames, FileError> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        AllowedNames::read(&ClientCaConfig { file: "ca.pem".into(), trust_domains: texts(trust_domains), dns: texts(dns), crl: vec![] })
    }

    #[test]
    fn a_ca_vouches_for_what_is_listed_and_nothing_else() {
        let vouches = allowed_names(&["example.org"], &["p1.other.org", "*.Nodes.Example.org"]).unwrap();
        for (name, covered) in [
            ("spiffe://example.org/p1", true),
            ("spiffe://sub.example.org/p1", false),
            ("spiffe://evil-example.org/p1", false),
            ("dns:p1.other.org", true),
            ("dns:p2.other.org", false),
            ("dns:example.org", false),
            ("dns:p1.nodes.example.org", true),
            ("dns:a.p1.nodes.example.org", true),
            ("dns:nodes.example.org", false),
            ("dns:evilnodes.example.org", false),
        ] {
            assert_eq!(vouches.allow(&name.parse().unwrap()), covered, "{name}");
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        assert!(allowed_names(&["spiffe://example.org"], &[]).is_err());
        assert!(allowed_names(&["Example.org"], &[]).is_err());
        assert!(allowed_names(&[], &["*"]).is_err());
        assert!(allowed_names(&[], &["a.*.org"]).is_err());
        assert!(allowed_names(&[], &["*.*.org"]).is_err());
    }
}
