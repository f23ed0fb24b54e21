//! rustls as this vault wants it: our own provider, 1.3 unless told otherwise, a client certificate from a CA that we know.

use std::{path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ServerSessionMemoryCache,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};

use super::{
    config::{FileError, Files, TlsConfig, TlsVersion},
    crl::Crl,
    identity,
    peer::{Peer, ends},
    trust::ExpiryKind,
    trust_anchors::Anchors,
};
use crate::domain::{Clock, Timestamp};

/// Everything that `[tls]` says, read and found good: what [`crate::mtls::Trust`] is given whole.
pub struct Material {
    pub(super) api: Arc<ServerConfig>,
    pub(super) ops: Arc<ServerConfig>,
    pub(super) anchors: Arc<Anchors>,
    pub(super) expiries: Vec<(ExpiryKind, Timestamp)>,
}

impl Material {
    /// Parses and checks files read by [`Files::read`] from [`TlsConfig::files`].
    ///
    /// # Errors
    /// The first file that is not good: unreadable, no key for the certificate, an expired server certificate, no CA, …
    pub fn new(config: &TlsConfig, files: &Files, clock: &Clock) -> Result<Self, FileError> {
        let anchors = Arc::new(Anchors::read(config, files)?);
        let expiries = expiries(config, files)?;
        if expiries.iter().any(|(kind, at)| *kind == ExpiryKind::Server && *at <= clock()) {
            return Err(FileError::new(&config.certificate, "the server certificate, or an intermediate of it, has expired; renew it"));
        }
        let verifier = Verifier::new(config, files, &anchors, Arc::clone(clock))?;
        let api = server_config(config, files, Some(Arc::new(verifier)))?;
        let ops = server_config(config, files, None)?;
        Ok(Self { api: Arc::new(api), ops: Arc::new(ops), anchors, expiries })
    }
}

fn server_config(config: &TlsConfig, files: &Files, verifier: Option<Arc<Verifier>>) -> Result<ServerConfig, FileError> {
    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let versions = match config.min_version {
        TlsVersion::Tls13 => &[&TLS13],
        TlsVersion::Tls12 => BOTH,
    };
    let chain = read_certificates(&config.certificate, files)?;
    let key = PrivateKeyDer::from_pem_slice(files.bytes(&config.key)).map_err(|error| FileError::new(&config.key, error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| FileError::new(&config.certificate, error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        FileError::new(&config.key, format!("with {}: {error}; the two files must belong together", config.certificate.display()))
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // None at all would cost each new connection a delayed ACK (40 ms): nothing would follow the client's last flight.
    server.send_tls13_tickets = 1;
    // Its own for every configuration, so that tickets from before a reload resume nothing.
    server.session_storage = ServerSessionMemoryCache::new(1024);
    Ok(server)
}

/// aws-lc-rs, named rather than left to the process default; hybrid post-quantum key exchange first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider { kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1], ..aws_lc_rs::default_provider() })
}

/// The certificates of a PEM file, at least one.
pub(super) fn read_certificates(file: &Path, files: &Files) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all =
        CertificateDer::pem_slice_iter(files.bytes(file)).collect::<Result<Vec<_>, _>>().map_err(|error| FileError::new(file, error))?;
    if all.is_empty() { Err(FileError::new(file, "holds no certificate in PEM form")) } else { Ok(all) }
}

/// Asks our anchors in the handshake, so that what no CA stands behind never reaches HTTP. Who the client is, is asked later: a client
/// with a good chain and a useless name gets an answer that says so.
#[derive(Debug)]
struct Verifier {
    anchors: Arc<Anchors>,
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    clock: ShowlessClock,
}

impl Verifier {
    fn new(config: &TlsConfig, files: &Files, anchors: &Arc<Anchors>, clock: Clock) -> Result<Self, FileError> {
        let mut roots = RootCertStore::empty();
        for ca in &config.client_cas {
            for certificate in read_certificates(&ca.file, files)? {
                roots.add(certificate).map_err(|error| FileError::new(&ca.file, error))?;
            }
        }
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { anchors: Arc::clone(anchors), subjects: roots.subjects(), algorithms, clock: ShowlessClock(clock) })
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).cloned().collect::<Vec<_>>();
        let peer = Peer::read(&chain).map_err(|_| rustls::CertificateError::BadEncoding)?;
        match self.anchors.verify(&peer, (self.clock.0)()) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(reason) => {
                reason.count();
                // Not louder: whoever reaches the port can cause it, with a text of his own.
                tracing::debug!(issuer = peer.issuer(), serial = peer.serial(), %reason, "client certificate refused");
                Err(reason.alert())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// rustls wants verifiers to be `Debug`; a clock has nothing to show.
struct ShowlessClock(Clock);

impl std::fmt::Debug for ShowlessClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

fn expiries(config: &TlsConfig, files: &Files) -> Result<Vec<(ExpiryKind, Timestamp)>, FileError> {
    let mut all = Vec::new();
    let cas = config.client_cas.iter().map(|ca| (ExpiryKind::ClientCa, &ca.file));
    for (kind, file) in std::iter::once((ExpiryKind::Server, &config.certificate)).chain(cas) {
        for certificate in read_certificates(file, files)? {
            let fields = identity::read(&certificate).map_err(|error| FileError::new(file, error))?;
            all.push((kind, ends(fields.not_after)));
        }
    }
    for file in config.client_cas.iter().flat_map(|ca| &ca.crl) {
        all.extend(Crl::read(file, files)?.into_iter().map(|crl| (ExpiryKind::Crl, crl.until)));
    }
    Ok(all)
}
