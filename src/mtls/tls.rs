//! The TLS configuration of the server: TLS 1.3 unless configured otherwise, and a client certificate of a configured CA.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ServerSessionMemoryCache,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};

use sha2::{Digest as _, Sha256};

use super::{
    certificate::{provider, read_certificates},
    config::{FileError, Files, TlsConfig, TlsVersion},
    expiry::{self, End, ExpiryKind},
    identity,
    peer::Peer,
    refusal_log::{RefusalLog, Stage},
    server_certificate,
    trust_anchors::TrustAnchors,
};
use crate::{
    crypto::read_private_key,
    domain::{Clock, Timestamp},
};

/// The files of `[tls]`, read and checked.
pub struct TlsMaterial {
    pub(super) api: Arc<ServerConfig>,
    pub(super) ops: Arc<ServerConfig>,
    pub(super) anchors: Arc<TrustAnchors>,
    pub(super) expiries: Vec<(ExpiryKind, End)>,
    pub(super) refusals: Arc<RefusalLog>,
    /// What clients would refuse of the server certificate.
    pub(super) server_faults: Vec<String>,
}

impl TlsMaterial {
    /// The parts of the configuration that have no effect or refuse everybody, each with the fix: revocation lists
    /// that cannot be used, entries of the deny-list that deny nobody.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        self.anchors.warnings(now)
    }
}

impl TlsMaterial {
    /// Parses and checks the files that [`Files::read`] read.
    ///
    /// # Errors
    /// The first file that is not valid: unreadable, a key that does not belong to the certificate, an expired server certificate, no CA, …
    pub fn new(config: &TlsConfig, files: &Files, clock: &Clock) -> Result<Self, FileError> {
        let anchors = Arc::new(TrustAnchors::read(config, files)?);
        valid_already(config, files, clock())?;
        let mut expiries = expiry::of_certificates(config, files)?;
        if expiries.iter().any(|(kind, end)| *kind == ExpiryKind::Server && end.at <= clock()) {
            return Err(FileError::new(&config.certificate, "the server certificate, or an intermediate of it, has expired. Renew it"));
        }
        expiries.extend(anchors.crl_ends().into_iter().map(|at| (ExpiryKind::Crl, End { at, lifetime: 0 })));
        let refusals = Arc::new(RefusalLog::new(Arc::clone(clock)));
        let verifier = ChainVerifier::new(config, files, &anchors, Arc::clone(clock), Arc::clone(&refusals))?;
        let api = server_config(config, files, Some(Arc::new(verifier)))?;
        let ops = server_config(config, files, None)?;
        let chain = read_certificates(&config.certificate, files)?;
        let server_faults = chain.first().map(|first| server_certificate::faults(&config.certificate, first)).unwrap_or_default();
        Ok(Self { api: Arc::new(api), ops: Arc::new(ops), anchors, expiries, refusals, server_faults })
    }
}

fn server_config(config: &TlsConfig, files: &Files, verifier: Option<Arc<ChainVerifier>>) -> Result<ServerConfig, FileError> {
    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let versions = match config.min_version {
        TlsVersion::Tls13 => &[&TLS13],
        TlsVersion::Tls12 => BOTH,
    };
    let chain = read_certificates(&config.certificate, files)?;
    let key = read_private_key(files.bytes(&config.key)).map_err(|problem| FileError::new(&config.key, problem))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| FileError::new(&config.certificate, error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        let certificate = config.certificate.display();
        FileError::new(
            &config.key,
            format!("the key does not belong to the certificate {certificate}, whose first section must be that of the server: {error}"),
        )
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Without a ticket, each new connection would wait for a delayed ACK (40 ms), because no data follows the last flight of the client.
    server.send_tls13_tickets = 1;
    // Each configuration has its own cache, so that tickets from before a reload are not resumed.
    server.session_storage = ServerSessionMemoryCache::new(1024);
    Ok(server)
}

/// Verifies the chain of the client in the handshake, so that a client without a trusted CA does not reach HTTP. The name is checked later: a
/// client with a valid chain and an unusable name gets a response that says so.
#[derive(Debug)]
struct ChainVerifier {
    anchors: Arc<TrustAnchors>,
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    clock: DebugClock,
    refusals: Arc<RefusalLog>,
}

impl ChainVerifier {
    fn new(
        config: &TlsConfig,
        files: &Files,
        anchors: &Arc<TrustAnchors>,
        clock: Clock,
        refusals: Arc<RefusalLog>,
    ) -> Result<Self, FileError> {
        let mut roots = RootCertStore::empty();
        for ca in &config.client_cas {
            for certificate in read_certificates(&ca.file, files)? {
                roots.add(certificate).map_err(|error| FileError::new(&ca.file, error))?;
            }
        }
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { anchors: Arc::clone(anchors), subjects: roots.subjects(), algorithms, clock: DebugClock(clock), refusals })
    }
}

impl ClientCertVerifier for ChainVerifier {
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
        let peer = Peer::read(&chain).map_err(|error| {
            self.refusals.malformed(&Sha256::digest(end_entity).into(), &error);
            rustls::CertificateError::BadEncoding
        })?;
        match self.anchors.verify(&peer, (self.clock.0)()) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(reason) => {
                reason.count();
                self.refusals.certificate(Stage::Handshake, Some(&peer), reason, "");
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

/// A clock with `Debug`, which rustls requires of verifiers.
struct DebugClock(Clock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Refuses a server certificate that is not valid yet, like one that has expired: a reload then keeps the former one.
fn valid_already(config: &TlsConfig, files: &Files, now: Timestamp) -> Result<(), FileError> {
    for certificate in read_certificates(&config.certificate, files)? {
        let fields = identity::read(&certificate).map_err(|error| FileError::new(&config.certificate, error))?;
        if fields.not_before > now.seconds() {
            let from = Timestamp::from_micros(fields.not_before.saturating_mul(1_000_000));
            let problem = format!(
                "the server certificate, or an intermediate of it, is not valid before {from}. Check the clock, or use one that is valid now"
            );
            return Err(FileError::new(&config.certificate, problem));
        }
    }
    Ok(())
}
