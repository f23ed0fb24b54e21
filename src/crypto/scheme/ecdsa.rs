//! ECDSA (FIPS 186-5 §6) over P-256 with SHA-256 and P-384 with SHA-384: hashes the message, DER signatures (RFC 3279 §2.2.3).

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, ParsedPublicKey,
    },
};

use crate::crypto::{
    curve::{self, Curve},
    pkcs8::PrivateKeyInfo,
};
use crate::domain::{Algorithm, KeySpec, Purpose, SignatureFormat};

use super::{CryptoError, PrivateKey, Random, Scheme, SecretBytes, check_message, generate_ec};

/// Keys that sign with ECDSA over a NIST curve.
pub(super) struct Ecdsa {
    curve: &'static Curve,
    algorithms: &'static [Algorithm; 1],
    signing: &'static EcdsaSigningAlgorithm,
    verification: &'static EcdsaVerificationAlgorithm,
}

pub(super) static P256: Ecdsa = Ecdsa {
    curve: &curve::P256,
    algorithms: &[Algorithm::EcdsaSha256],
    signing: &ECDSA_P256_SHA256_ASN1_SIGNING,
    verification: &ECDSA_P256_SHA256_ASN1,
};

pub(super) static P384: Ecdsa = Ecdsa {
    curve: &curve::P384,
    algorithms: &[Algorithm::EcdsaSha384],
    signing: &ECDSA_P384_SHA384_ASN1_SIGNING,
    verification: &ECDSA_P384_SHA384_ASN1,
};

impl Scheme for Ecdsa {
    fn spec(&self) -> KeySpec {
        self.curve.spec
    }

    fn purpose(&self) -> Purpose {
        Purpose::Signing
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        self.algorithms
    }

    fn signature_format(&self) -> Option<SignatureFormat> {
        Some(SignatureFormat::Der)
    }

    fn generate(&self, random: &dyn Random) -> Result<SecretBytes, CryptoError> {
        generate_ec(self.curve, random)
    }

    fn parse(&self, material: &SecretBytes) -> Result<Box<dyn PrivateKey>, CryptoError> {
        let (scalar, point) = PrivateKeyInfo::read(material)?.ec(self.curve)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(self.signing, scalar, &point).map_err(|_| CryptoError::Faulty)?;
        let verifier = ParsedPublicKey::new(self.verification, &point).map_err(|_| CryptoError::Faulty)?;
        Ok(Box::new(EcdsaKey { algorithm: self.algorithms[0], pair, verifier, spki: self.curve.spki(&point) }))
    }
}

struct EcdsaKey {
    algorithm: Algorithm,
    pair: EcdsaKeyPair,
    verifier: ParsedPublicKey,
    spki: Vec<u8>,
}

impl PrivateKey for EcdsaKey {
    fn public_key(&self) -> Option<&[u8]> {
        Some(&self.spki)
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if algorithm != self.algorithm {
            return Err(CryptoError::Unsupported(algorithm));
        }
        check_message(message)?;
        // The library generates the nonce itself. The parameter of the signature exists for compatibility with another library.
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| CryptoError::Faulty)?;
        self.verifier.verify_sig(message, signature.as_ref()).map_err(|_| CryptoError::Faulty)?;
        Ok(signature.as_ref().to_vec())
    }
}
