//! Certificates and the cryptography provider, shared by the server configuration and the trust anchors.

use std::{path::Path, sync::Arc};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
};

use super::config::{FileError, Files};
use crate::{crypto::read_certificate_file, domain::Timestamp};

/// aws-lc-rs, independent of the process default, with hybrid post-quantum key exchange first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider { kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1], ..aws_lc_rs::default_provider() })
}

/// The certificates of a file, at least one.
pub(super) fn read_certificates(file: &Path, files: &Files) -> Result<Vec<CertificateDer<'static>>, FileError> {
    read_certificate_file(files.bytes(file)).map_err(|problem| FileError::new(file, problem))
}

/// The time at which something expires whose last valid second is `last_second`.
pub(super) const fn ends(last_second: i64) -> Timestamp {
    Timestamp::from_micros(last_second.saturating_add(1).saturating_mul(1_000_000))
}
