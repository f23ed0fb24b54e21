//! The bytes of a wrap in Azure, and how an RSA key binds the context.
//!
//! | first byte | rest |
//! |---|---|
//! | `0x01`, a symmetric key of a Managed HSM | version (16 bytes) ‖ IV (12) ‖ tag (16) ‖ ciphertext (32). AES-256-GCM; the context is its associated data. |
//! | `0x02`, an RSA key | version (16 bytes) ‖ ciphertext. RSA-OAEP with SHA-256 over data key ‖ digest. |
//!
//! RSA-OAEP takes no associated data in Azure. The digest is SHA-256 over a fixed text, the version and the context. It is compared in constant time
//! after the unwrapping, so that a wrap opens only for its context. RSA-OAEP does not authenticate the sender: everyone who has the public key can make a
//! wrap of a data key of their own. SECURITY.md describes the consequence.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::key_reference::Version;
use crate::{crypto::SecretBytes, domain::EncryptionContext};

/// A wrap, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Made by a symmetric key.
    Gcm { version: Version, iv: [u8; 12], tag: [u8; 16], ciphertext: Vec<u8> },
    /// Made by an RSA key.
    Rsa { version: Version, ciphertext: Vec<u8> },
}

impl Wrap {
    /// The version of the key that made it.
    pub(super) const fn version(&self) -> &Version {
        match self {
            Self::Gcm { version, .. } | Self::Rsa { version, .. } => version,
        }
    }

    /// The bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Gcm { version, iv, tag, ciphertext } => [&[GCM], version.as_slice(), iv, tag, ciphertext].concat(),
            Self::Rsa { version, ciphertext } => [&[RSA], version.as_slice(), ciphertext].concat(),
        }
    }

    /// Reads the bytes. `None` if they are no wrap.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let version = *version;
        match *format {
            GCM => {
                let (iv, rest) = rest.split_first_chunk()?;
                let (tag, ciphertext) = rest.split_first_chunk()?;
                (ciphertext.len() == DATA_KEY).then(|| Self::Gcm { version, iv: *iv, tag: *tag, ciphertext: ciphertext.to_vec() })
            }
            RSA => (256..=MAX_MODULUS).contains(&rest.len()).then(|| Self::Rsa { version, ciphertext: rest.to_vec() }),
            _ => None,
        }
    }
}

/// What an RSA key encrypts.
pub(super) fn with_digest(data_key: &SecretBytes, version: &Version, context: &EncryptionContext) -> SecretBytes {
    SecretBytes::concat(&[data_key.expose(), &digest(version, context)])
}

/// The data key in what an RSA key decrypted. `None` for another context.
pub(super) fn without_digest(opened: &[u8], version: &Version, context: &EncryptionContext) -> Option<SecretBytes> {
    let (data_key, found) = opened.split_last_chunk::<DIGEST>()?;
    let same: bool = found.as_slice().ct_eq(&digest(version, context)).into();
    same.then(|| SecretBytes::copy_of(data_key))
}

fn digest(version: &Version, context: &EncryptionContext) -> [u8; DIGEST] {
    Sha256::new_with_prefix(b"canton-keyvault azure rsa wrap 1\0")
        .chain_update(version)
        .chain_update(context.canonical_bytes())
        .finalize()
        .into()
}

const GCM: u8 = 1;
const RSA: u8 = 2;
/// Bytes.
const DATA_KEY: usize = 32;
const DIGEST: usize = 32;
/// Bytes; RSA of 4096 bits, the longest in Azure.
const MAX_MODULUS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_is_read_as_it_was_written_and_nothing_else_is() {
        let gcm = Wrap::Gcm { version: [7; 16], iv: [8; 12], tag: [9; 16], ciphertext: vec![1; 32] };
        let rsa = Wrap::Rsa { version: [7; 16], ciphertext: vec![1; 256] };
        for wrap in [gcm, rsa] {
            let bytes = wrap.to_bytes();
            assert_eq!(Wrap::parse(&bytes), Some(wrap));
            for other in [
                &[][..],
                &bytes[..1],
                &bytes[..17],
                &bytes[..bytes.len() - 1],
                &[bytes.as_slice(), &[0; 512]].concat(),
                &[&[3], &bytes[1..]].concat(),
            ] {
                assert_eq!(Wrap::parse(other), None);
            }
        }
    }

    #[test]
    fn an_rsa_wrap_opens_for_its_context_and_version_only() {
        let context = |node: &str| EncryptionContext::new(vec![("keyvault:node", node.into())]);
        let data_key = SecretBytes::from(vec![5; 32]);
        let both = with_digest(&data_key, &[1; 16], &context("a"));
        assert_eq!(both.expose().len(), 64);
        assert!(without_digest(both.expose(), &[1; 16], &context("a")).unwrap().same(&data_key));
        assert!(without_digest(both.expose(), &[2; 16], &context("a")).is_none());
        assert!(without_digest(both.expose(), &[1; 16], &context("b")).is_none());
        assert!(without_digest(&both.expose()[..31], &[1; 16], &context("a")).is_none());
    }
}
