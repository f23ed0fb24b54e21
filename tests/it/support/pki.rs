//! Certificates for tests: a CA, leaves with any names and dates, revocation lists, and clients that use them.

use std::{path::Path, sync::Arc};

use canton_keyvault::domain::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use time::OffsetDateTime;

/// The time of tests: 2027-01-15T08:00:00Z. Certificates are valid from years before to years after, unless a test says otherwise.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// A CA.
pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key and, where there is one, the intermediate that issued it.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// What a leaf is to be.
pub(crate) struct Spec {
    pub(crate) names: Vec<SanType>,
    pub(crate) serial: u64,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) usage: ExtendedKeyUsagePurpose,
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub(crate) fn at(seconds_from_now: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW.seconds() + seconds_from_now).unwrap()
}

impl Spec {
    pub(crate) fn client(names: Vec<SanType>) -> Self {
        Self { names, serial: 1, not_after: at(10 * YEAR), usage: ExtendedKeyUsagePurpose::ClientAuth }
    }

    pub(crate) fn server() -> Self {
        let loopback = SanType::IpAddress([127, 0, 0, 1].into());
        Self { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Self::client(vec![dns("localhost"), loopback]) }
    }

    pub(crate) fn serial(self, serial: u64) -> Self {
        Self { serial, ..self }
    }

    pub(crate) fn expires(self, not_after: OffsetDateTime) -> Self {
        Self { not_after, ..self }
    }
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = Self::params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A CA with more than a common name.
    pub(crate) fn with_name(attributes: &[(DnType, &str)]) -> Self {
        let (mut params, key) = Self::params("");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A CA below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with_serial(name, 1000)
    }

    /// A CA below this one, with this serial number.
    pub(crate) fn intermediate_with_serial(&self, name: &str, serial: u64) -> Self {
        let (mut params, key) = Self::params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, spec: Spec) -> Leaf {
        let mut params = CertificateParams::default();
        // A common name that would be a fine principal, to show that it never counts.
        params.distinguished_name.push(DnType::CommonName, "participant1.example.org");
        params.subject_alt_names = spec.names;
        params.serial_number = Some(SerialNumber::from(spec.serial));
        (params.not_before, params.not_after) = (at(-10 * YEAR), spec.not_after);
        params.extended_key_usages = vec![spec.usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { der: certificate.der().clone(), chain_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// A leaf that brings this CA along as its intermediate.
    pub(crate) fn issue_with_chain(&self, spec: Spec) -> Leaf {
        let leaf = self.issue(spec);
        Leaf { chain_pem: format!("{}{}", leaf.chain_pem, self.pem), ..leaf }
    }

    /// A revocation list that is too old from `next_update` on.
    pub(crate) fn crl(&self, revoked: &[u64], next_update: OffsetDateTime) -> String {
        self.crl_of(revoked, at(-3600), next_update, 1)
    }

    /// A revocation list with all its dates.
    pub(crate) fn crl_of(&self, revoked: &[u64], this_update: OffsetDateTime, next_update: OffsetDateTime, number: u64) -> String {
        self.crl_with_key_id(revoked, this_update, next_update, number, KeyIdMethod::Sha256)
    }

    /// The same, with a key id that is not that of the certificate unless it is SHA-256.
    pub(crate) fn crl_with_key_id(
        &self,
        revoked: &[u64],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
        number: u64,
        key_identifier_method: KeyIdMethod,
    ) -> String {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(-60),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// The private key, for `openssl`.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What a CA of this name is made of.
    pub(crate) fn params(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (at(-10 * YEAR), at(10 * YEAR));
        (params, KeyPair::generate().unwrap())
    }
}

impl Leaf {
    /// Writes `<name>.pem` and `<name>.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.chain_pem).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &self.key_pem).unwrap();
    }
}

/// A client that believes `server_ca`, shows `leaf` if there is one, and resumes sessions where it can.
pub(crate) fn client(
    server_ca: &Ca,
    leaf: Option<&Leaf>,
    alpn: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    client_of(server_ca.pem.as_bytes(), leaf, alpn, versions)
}

/// [`client`] for a server whose CA is in a PEM file.
pub(crate) fn client_of(
    server_ca: &[u8],
    leaf: Option<&Leaf>,
    alpn: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server_ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

const YEAR: i64 = 365 * 24 * 3600;
