//! The client CAs, the names for which each may issue certificates, and their revocation lists. Decides about one chain at a time.

use std::{cell::Cell, collections::BTreeSet, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::{
    certificate::{ends, provider, read_certificates},
    config::{ClientCaConfig, FileError, Files, TlsConfig},
    deny_list::DenyList,
    identity::{DnsName, Identity, is_trust_domain},
    peer::Peer,
    refusal::NotAdmitted,
    revocation::{Link, RevocationLists},
};
use crate::domain::Timestamp;

/// The client CAs and the deny-list.
#[derive(Debug)]
pub(super) struct TrustAnchors {
    entries: Vec<Entry>,
    cas: Vec<ClientCa>,
    deny: DenyList,
}

/// One entry of `client_cas`.
#[derive(Debug)]
struct Entry {
    certificates: Vec<CertificateDer<'static>>,
    lists: Option<Arc<RevocationLists>>,
}

/// One client CA. Each is verified by itself, so that it is known which one issued a chain.
#[derive(Debug)]
struct ClientCa {
    names: Arc<AllowedNames>,
    certificate: CertificateDer<'static>,
    /// Its distinguished name (DER).
    subject: Vec<u8>,
    anchor: [TrustAnchor<'static>; 1],
    ends: Timestamp,
    lists: Option<Arc<RevocationLists>>,
    /// Why no certificate of this CA is admitted: another CA of its entry has revoked it, or the deny-list names it.
    withdrawn: Option<NotAdmitted>,
}

impl TrustAnchors {
    /// Reads every client CA with its revocation lists, and the deny-list.
    pub(super) fn read(config: &TlsConfig, files: &Files) -> Result<Self, FileError> {
        let deny = DenyList::read(&config.deny, files)?;
        let (mut entries, mut cas) = (Vec::new(), Vec::new());
        for ca in &config.client_cas {
            let names = Arc::new(AllowedNames::read(ca)?);
            let entry = Entry { certificates: read_certificates(&ca.file, files)?, lists: RevocationLists::read(ca, files)?.map(Arc::new) };
            for certificate in &entry.certificates {
                cas.push(ClientCa::read(ca, certificate, &entry, &names, &deny)?);
            }
            entries.push(entry);
        }
        Ok(Self { entries, cas, deny })
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
        let (ca, until) = issuers.into_iter().find(|(ca, _)| ca.names.allow(identity)).ok_or(NotAdmitted::NameNotAllowed)?;
        let bounds = peer.bounds().iter().chain([&until, &ca.ends]);
        Ok(bounds.copied().filter(|bound| *bound > now).min().unwrap_or(now))
    }

    /// The next updates of the revocation lists in use.
    pub(super) fn crl_ends(&self) -> Vec<Timestamp> {
        let ends = |entry: &Entry| entry.lists.as_ref().map(|lists| lists.ends(&entry.certificates)).unwrap_or_default();
        self.entries.iter().flat_map(ends).collect()
    }

    /// What has no effect, or refuses everybody, for people.
    pub(super) fn warnings(&self, now: Timestamp) -> Vec<String> {
        let of_lists = |entry: &Entry| entry.lists.as_ref().map(|lists| lists.warnings(&entry.certificates, now)).unwrap_or_default();
        let mut all = self.entries.iter().flat_map(of_lists).collect::<Vec<_>>();
        let lists = self.entries.iter().filter_map(|entry| entry.lists.as_ref());
        let known = lists.flat_map(|lists| lists.issuers()).chain(self.cas.iter().map(|ca| ca.subject.as_slice())).collect::<Vec<_>>();
        all.extend(self.deny.warnings(&known));
        all
    }

    /// Whether a client CA may issue certificates for this name.
    pub(super) fn vouch(&self, identity: &Identity) -> bool {
        self.cas.iter().any(|ca| ca.names.allow(identity))
    }

    /// The client CAs that issued the chain, each with the end of that decision, or the most specific reason why there is none.
    fn issuers(&self, peer: &Peer, now: Timestamp) -> Result<Vec<(&ClientCa, Timestamp)>, NotAdmitted> {
        let (leaf, intermediates) = peer.chain().split_first().ok_or(NotAdmitted::NoCertificate)?;
        let (mut issuers, mut reason) = (Vec::new(), NotAdmitted::Untrusted);
        for ca in &self.cas {
            match ca.verify(leaf, intermediates, now) {
                Ok(until) => issuers.push((ca, until)),
                Err(other) if reason == NotAdmitted::Untrusted => reason = other,
                Err(_) => {}
            }
        }
        if issuers.is_empty() { Err(reason) } else { Ok(issuers) }
    }
}

impl ClientCa {
    fn read(
        config: &ClientCaConfig,
        certificate: &CertificateDer<'static>,
        entry: &Entry,
        names: &Arc<AllowedNames>,
        deny: &DenyList,
    ) -> Result<Self, FileError> {
        let refused = |problem: &str| FileError::new(&config.file, problem);
        let link = Link::read(certificate).ok_or_else(|| refused("the file contains something that is not a certificate"))?;
        if !link.parsed.is_ca() {
            return Err(refused("the file contains a certificate that is not a CA (basic constraints)"));
        }
        let anchor = anchor_from_trusted_cert(certificate).map_err(|error| FileError::new(&config.file, format!("{error:?}")))?;
        let denied = deny.names(certificate).map_err(|error| FileError::new(&config.file, error))?;
        let revoked = || {
            let issuers = entry.certificates.iter().filter_map(Link::read);
            let mut issuers = issuers.filter(|issuer| issuer.parsed.subject().as_raw() == link.parsed.issuer().as_raw());
            issuers.any(|issuer| entry.lists.as_ref().is_some_and(|lists| lists.revokes(&link, &issuer)))
        };
        let withdrawn = if denied { Some(NotAdmitted::IssuerDenyListed) } else { revoked().then_some(NotAdmitted::IssuerRevoked) };
        Ok(Self {
            names: Arc::clone(names),
            certificate: certificate.clone(),
            subject: link.parsed.subject().as_raw().to_vec(),
            anchor: [anchor.to_owned()],
            ends: ends(link.parsed.validity().not_after.timestamp()),
            lists: entry.lists.clone(),
            withdrawn,
        })
    }

    /// Verifies a chain up to this CA. Returns the time at which a revocation list that this depends on ends.
    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: Timestamp) -> Result<Timestamp, NotAdmitted> {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0)));
        let client = EndEntityCert::try_from(leaf).map_err(|error| reason_of(&error))?;
        let status = Cell::new(Ok(Timestamp::from_micros(i64::MAX)));
        let not_revoked = |path: &VerifiedPath<'_>| {
            status.set(self.status(path, now));
            status.get().map(drop).map_err(|_| webpki::Error::CertRevoked)
        };
        let algorithms = provider().signature_verification_algorithms.all;
        match client.verify_for_usage(algorithms, &self.anchor, intermediates, at, KeyUsage::client_auth(), None, Some(&not_revoked)) {
            // RFC 5280 §6.1 ignores the dates of a trust anchor. The vault checks them, so that a forgotten CA expires.
            Ok(_) if now >= self.ends => Err(NotAdmitted::CaExpired),
            Ok(_) => self.withdrawn.map_or(status.get(), Err),
            Err(webpki::Error::CertRevoked) => Err(status.get().err().unwrap_or(NotAdmitted::Revoked)),
            Err(error) => Err(reason_of(&error)),
        }
    }

    /// The revocation of every certificate of a path below this CA. The CA itself is trusted, so it needs no list.
    fn status(&self, path: &VerifiedPath<'_>, now: Timestamp) -> Result<Timestamp, NotAdmitted> {
        let mut until = Timestamp::from_micros(i64::MAX);
        let Some(lists) = &self.lists else { return Ok(until) };
        let mut ders = vec![path.end_entity().der()];
        ders.extend(path.intermediate_certificates().map(webpki::Cert::der));
        ders.push(self.certificate.clone());
        let links = ders.iter().map(Link::read).collect::<Option<Vec<_>>>().ok_or(NotAdmitted::Untrusted)?;
        for (depth, (certificate, issuer)) in links.iter().zip(links.iter().skip(1)).enumerate() {
            let checked = lists.check(certificate, issuer, now);
            until = until.min(checked.map_err(|reason| if depth == 0 { reason } else { reason.of_issuer() })?);
        }
        Ok(until)
    }
}

const fn reason_of(error: &webpki::Error) -> NotAdmitted {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => NotAdmitted::Expired,
        E::CertNotValidYet { .. } => NotAdmitted::NotYetValid,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => NotAdmitted::WrongPurpose,
        E::CaUsedAsEndEntity => NotAdmitted::Invalid("it is the certificate of a CA"),
        E::EndEntityUsedAsCa => NotAdmitted::Invalid("a certificate that issued it is not a CA"),
        E::NameConstraintViolation => NotAdmitted::Invalid("a CA that issued it may not issue its names (name constraints)"),
        E::PathLenConstraintViolated => NotAdmitted::Invalid("a CA that issued it may have fewer CAs below it (path length)"),
        E::UnsupportedCriticalExtension => NotAdmitted::Invalid("a critical extension is not supported"),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            NotAdmitted::Invalid("its signature algorithm is not supported")
        }
        // A signature that does not verify is by another CA with the same name.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => NotAdmitted::Untrusted,
        _ => NotAdmitted::Invalid("it, or a certificate that issued it, is malformed"),
    }
}

/// The names for which a CA may issue certificates. Other names are refused, so that no CA can issue names of the trust domain of another.
#[derive(Debug)]
pub(super) struct AllowedNames {
    trust_domains: BTreeSet<String>,
    hosts: BTreeSet<String>,
    suffixes: Vec<String>,
}

impl AllowedNames {
    pub(super) fn read(ca: &ClientCaConfig) -> Result<Self, FileError> {
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

    pub(super) fn allow(&self, identity: &Identity) -> bool {
        match identity {
            Identity::Spiffe(id) => self.trust_domains.contains(id.trust_domain()),
            Identity::Dns(name) => {
                self.hosts.contains(name.as_str()) || self.suffixes.iter().any(|suffix| name.as_str().ends_with(suffix.as_str()))
            }
        }
    }
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
