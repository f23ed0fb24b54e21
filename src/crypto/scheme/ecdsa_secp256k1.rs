//! ECDSA over secp256k1 with SHA-256 by k256, which is seven times as fast as aws-lc for this curve: RFC 6979 nonces, low S, DER
//! signatures.

use k256::ecdsa::{
    DerSignature, SigningKey,
    signature::{Signer, Verifier},
};

use crate::crypto::{curve::SECP256K1, pkcs8::PrivateKeyInfo};
use crate::domain::{Algorithm, KeySpec, Purpose, SignatureFormat};

use super::{CryptoError, PrivateKey, Random, Scheme, SecretBytes, check_message, generate_ec};

/// Keys that sign with ECDSA over secp256k1.
pub(super) struct EcdsaSecp256k1;

impl Scheme for EcdsaSecp256k1 {
    fn spec(&self) -> KeySpec {
        KeySpec::EcSecp256k1
    }

    fn purpose(&self) -> Purpose {
        Purpose::Signing
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::EcdsaSha256]
    }

    fn signature_format(&self) -> Option<SignatureFormat> {
        Some(SignatureFormat::Der)
    }

    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
        generate_ec(&SECP256K1, random)
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let (scalar, point) = PrivateKeyInfo::read(material)?.ec(&SECP256K1)?;
        let pair = SigningKey::from_slice(scalar).map_err(|_| CryptoError::Faulty)?;
        Ok(Box::new(Secp256k1Key { pair, spki: SECP256K1.spki(&point) }))
    }
}

/// The signing key wipes its scalar on drop.
struct Secp256k1Key {
    pair: SigningKey,
    spki: Vec<u8>,
}

impl PrivateKey for Secp256k1Key {
    fn public_key(&self) -> Option<&[u8]> {
        Some(&self.spki)
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if algorithm != Algorithm::EcdsaSha256 {
            return Err(CryptoError::Unsupported(algorithm));
        }
        check_message(message)?;
        let signature: DerSignature = self.pair.try_sign(message).map_err(|_| CryptoError::Faulty)?;
        self.pair.verifying_key().verify(message, &signature).map_err(|_| CryptoError::Faulty)?;
        Ok(signature.as_bytes().to_vec())
    }
}
