//! The client CAs, what each may vouch for, and its revocation lists: judges a chain at a time.

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
    admission::NotAdmitted,
    config::{ClientCaConfig, FileError, Files, TlsConfig},
    crl::Crl,
    deny_list::DenyList,
    identity::{DnsName, Identity, is_trust_domain},
    peer::{Peer, ends},
    tls,
};
use crate::domain::Timestamp;

/// All that decides whether a chain is believed.
#[derive(Debug)]
pub(super) struct Anchors {
    anchors: Vec<Anchor>,
    deny: DenyList,
}

/// One CA certificate. Each has a verifier of its own, so that it is known who vouched.
#[derive(Debug)]
struct Anchor {
    vouches: Arc<Vouches>,
    verifier: Arc<dyn ClientCertVerifier>,
    ends: Timestamp,
    crls_end: Vec<Timestamp>,
}

impl Anchors {
    /// Reads every client CA with its revocation lists, and the deny-list.
    pub(super) fn read(config: &TlsConfig, files: &Files) -> Result<Self, FileError> {
        let deny = DenyList::read(&config.deny, files)?;
        let mut anchors = Vec::new();
        for ca in &config.client_cas {
            anchors.extend(read_ca(ca, files)?);
        }
        Ok(Self { anchors, deny })
    }

    /// Whether the chain itself is believed: what a handshake asks. Who it names is asked by [`Anchors::judge`].
    pub(super) fn verify(&self, peer: &Peer, now: Timestamp) -> Result<(), NotAdmitted> {
        self.deny.check(peer)?;
        self.vouchers(peer, now).map(drop)
    }

    /// Whether the peer may speak, and until when nothing of that can change by time alone.
    pub(super) fn judge(&self, peer: &Peer, now: Timestamp) -> Result<Timestamp, NotAdmitted> {
        self.deny.check(peer)?;
        let vouchers = self.vouchers(peer, now)?;
        let identity = peer.identity().as_ref().map_err(|reason| NotAdmitted::NoIdentity(*reason))?;
        let anchor = vouchers.into_iter().find(|anchor| anchor.vouches.covers(identity)).ok_or(NotAdmitted::NotVouched)?;
        let bounds = peer.bounds().iter().chain(&anchor.crls_end).chain([&anchor.ends]);
        Ok(bounds.copied().filter(|bound| *bound > now).min().unwrap_or(now))
    }

    /// The anchors that the chain leads to, or the most telling reason why there is none.
    fn vouchers(&self, peer: &Peer, now: Timestamp) -> Result<Vec<&Anchor>, NotAdmitted> {
        let (leaf, intermediates) = peer.chain().split_first().ok_or(NotAdmitted::NoCertificate)?;
        let (mut vouchers, mut reason) = (Vec::new(), NotAdmitted::Untrusted);
        for anchor in &self.anchors {
            match anchor.verify(leaf, intermediates, now) {
                Ok(()) => vouchers.push(anchor),
                Err(other) if reason == NotAdmitted::Untrusted => reason = other,
                Err(_) => {}
            }
        }
        if vouchers.is_empty() { Err(reason) } else { Ok(vouchers) }
    }
}

impl Anchor {
    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: Timestamp) -> Result<(), NotAdmitted> {
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(leaf, intermediates, at) {
            // A trust anchor has no dates in RFC 5280 §6.1; ours has, so that a forgotten CA does not live for ever.
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

/// The names that a CA may vouch for. Others in its certificates are refused: one CA cannot speak for another's trust domain.
#[derive(Debug)]
struct Vouches {
    trust_domains: BTreeSet<String>,
    hosts: BTreeSet<String>,
    suffixes: Vec<String>,
}

impl Vouches {
    fn read(ca: &ClientCaConfig) -> Result<Self, FileError> {
        let refused = |problem: String| FileError::new(&ca.file, problem);
        if let Some(bad) = ca.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err(refused(format!(
                "trust_domains: {bad:?} is no trust domain; write example.org, in lower case and without spiffe://"
            )));
        }
        let host = |text: &str| {
            let problem = |_| refused(format!("dns: {text:?} is no host name; write p1.example.org, or *.example.org for all below"));
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

    fn covers(&self, identity: &Identity) -> bool {
        match identity {
            Identity::Spiffe(id) => self.trust_domains.contains(id.trust_domain()),
            Identity::Dns(name) => {
                self.hosts.contains(name.as_str()) || self.suffixes.iter().any(|suffix| name.as_str().ends_with(suffix.as_str()))
            }
        }
    }
}

fn read_ca(ca: &ClientCaConfig, files: &Files) -> Result<Vec<Anchor>, FileError> {
    let vouches = Arc::new(Vouches::read(ca)?);
    let crls = ca.crl.iter().map(|file| Crl::read(file, files)).collect::<Result<Vec<_>, _>>()?.concat();
    let certificates = tls::read_certificates(&ca.file, files)?;
    certificates.iter().map(|certificate| read_anchor(ca, certificate, &vouches, &crls)).collect()
}

fn read_anchor(ca: &ClientCaConfig, certificate: &CertificateDer<'_>, vouches: &Arc<Vouches>, crls: &[Crl]) -> Result<Anchor, FileError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| FileError::new(&ca.file, "holds something that is no certificate"))?;
    if !parsed.is_ca() {
        return Err(FileError::new(&ca.file, "holds a certificate that is no CA (basic constraints)"));
    }
    let mut own = crls.iter().filter(|crl| crl.may_concern(&parsed)).collect::<Vec<_>>();
    if own.is_empty() {
        // Never none where lists are asked for: webpki takes that for a wish not to check.
        own = crls.iter().collect();
    }
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(|error| FileError::new(&ca.file, error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider())
        .with_crls(own.iter().map(|crl| crl.der.clone()))
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| FileError::new(ca.crl.first().unwrap_or(&ca.file), error))?;
    let crls_end = own.iter().map(|crl| crl.until).collect();
    Ok(Anchor { vouches: Arc::clone(vouches), verifier, ends: ends(parsed.validity().not_after.timestamp()), crls_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vouches(trust_domains: &[&str], dns: &[&str]) -> Result<Vouches, FileError> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Vouches::read(&ClientCaConfig { file: "ca.pem".into(), trust_domains: texts(trust_domains), dns: texts(dns), crl: vec![] })
    }

    #[test]
    fn a_ca_vouches_for_what_is_listed_and_nothing_else() {
        let vouches = vouches(&["example.org"], &["p1.other.org", "*.Nodes.Example.org"]).unwrap();
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
            assert_eq!(vouches.covers(&name.parse().unwrap()), covered, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(vouches(&["spiffe://example.org"], &[]).is_err());
        assert!(vouches(&["Example.org"], &[]).is_err());
        assert!(vouches(&[], &["*"]).is_err());
        assert!(vouches(&[], &["a.*.org"]).is_err());
        assert!(vouches(&[], &["*.*.org"]).is_err());
    }
}
