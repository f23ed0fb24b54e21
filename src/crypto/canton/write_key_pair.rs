//! Writes a key-pair file as a version of Canton writes it. Canton 3.3 requires the public key in it; later versions write none.

use prost::Message;

use crate::crypto::{Random, SecretBytes};
use crate::domain::{Fingerprint, KeySpec, Purpose, Usages, text_enum};

use super::{
    CantonFileError,
    messages::{
        CryptoKeyPair, EncryptionKeyPair, EncryptionPrivateKey, EncryptionPublicKey, FORMAT_PKCS8, FORMAT_SPKI, PROTO_VERSION,
        SigningKeyPair, SigningPrivateKey, SigningPublicKey, UntypedVersionedMessage, encode, share,
    },
    names::{ENCRYPTION_KEY_SPEC, SIGNING_KEY_SPEC, write_usages},
    password::protect,
};

text_enum!(
    /// The version of Canton that a key-pair file is for.
    CantonVersion as "Canton version" {
        /// Canton 3.3. The file contains the public key.
        V3_3 = "3.3",
        /// Canton 3.4. The file contains the private key only.
        V3_4 = "3.4",
        /// Canton 3.5, which reads the same files as 3.4.
        V3_5 = "3.5",
        /// Canton 3.6, which reads the same files as 3.4.
        V3_6 = "3.6",
    }
);

/// The content of a file.
pub struct KeyPairToWrite<'a> {
    /// The purpose: signing or encryption.
    pub purpose: Purpose,
    /// The spec.
    pub spec: KeySpec,
    /// The usages. A signing key needs at least one. Ignored for other keys.
    pub usages: Usages,
    /// The private key in canonical form.
    pub pkcs8: &'a SecretBytes,
    /// `SubjectPublicKeyInfo`, DER.
    pub public_key: &'a [u8],
    /// The fingerprint of the public key.
    pub fingerprint: Fingerprint,
}

/// Writes a file of version 30, byte for byte as that version of Canton does, protected if there is a password. An empty password is no
/// password, as in Canton.
///
/// # Errors
/// [`CantonFileError`] if Canton has no such keys or usages, or if the password is too long.
pub fn write_key_pair(
    pair: &KeyPairToWrite<'_>,
    version: CantonVersion,
    password: Option<&SecretBytes>,
    random: &dyn Random,
) -> Result<SecretBytes, CantonFileError> {
    let file = wrap(&message(pair, version)?);
    match password.filter(|password| !password.expose().is_empty()) {
        None => Ok(file),
        Some(password) => Ok(wrap(&protect(&file, password, random)?)),
    }
}

/// Writes the unencrypted column `data` of a row of Canton's private key store, as Canton 3.3 to 3.6 writes it.
///
/// # Errors
/// [`CantonFileError`] if Canton has no such keys or usages.
pub fn write_private_key_row(pair: &KeyPairToWrite<'_>) -> Result<SecretBytes, CantonFileError> {
    Ok(match private_key(pair)? {
        PrivateKeyMessage::Signing(key) => wrap(&key),
        PrivateKeyMessage::Encryption(key) => wrap(&key),
    })
}

fn wrap(message: &impl Message) -> SecretBytes {
    encode(&UntypedVersionedMessage { data: share(encode(message)), version: PROTO_VERSION })
}

/// The message of a private key.
enum PrivateKeyMessage {
    Signing(SigningPrivateKey),
    Encryption(EncryptionPrivateKey),
}

const NO_SUCH_KEY: CantonFileError = CantonFileError::NotAKeyPair("Canton has no key pairs of this spec and purpose");

fn private_key(pair: &KeyPairToWrite<'_>) -> Result<PrivateKeyMessage, CantonFileError> {
    let id = pair.fingerprint.to_string();
    let private_key = share(SecretBytes::copy_of(pair.pkcs8.expose()));
    match pair.purpose {
        Purpose::Signing => {
            let key_spec = SIGNING_KEY_SPEC.number(pair.spec).ok_or(NO_SUCH_KEY)?;
            let usage = write_usages(pair.usages)?;
            Ok(PrivateKeyMessage::Signing(SigningPrivateKey { id, format: FORMAT_PKCS8, private_key, scheme: 0, usage, key_spec }))
        }
        Purpose::Encryption => {
            let key_spec = ENCRYPTION_KEY_SPEC.number(pair.spec).ok_or(NO_SUCH_KEY)?;
            Ok(PrivateKeyMessage::Encryption(EncryptionPrivateKey { id, format: FORMAT_PKCS8, private_key, scheme: 0, key_spec }))
        }
        Purpose::Symmetric => Err(NO_SUCH_KEY),
    }
}

fn message(pair: &KeyPairToWrite<'_>, version: CantonVersion) -> Result<CryptoKeyPair, CantonFileError> {
    let with_public_key = version == CantonVersion::V3_3;
    let public_key = || pair.public_key.to_vec().into();
    Ok(match private_key(pair)? {
        PrivateKeyMessage::Signing(key) => {
            let (usage, key_spec) = (key.usage.clone(), key.key_spec);
            let public_key =
                with_public_key.then(|| SigningPublicKey { format: FORMAT_SPKI, public_key: public_key(), scheme: 0, usage, key_spec });
            CryptoKeyPair { signing: Some(SigningKeyPair { public_key, private_key: Some(key) }), encryption: None }
        }
        PrivateKeyMessage::Encryption(key) => {
            let key_spec = key.key_spec;
            let public_key =
                with_public_key.then(|| EncryptionPublicKey { format: FORMAT_SPKI, public_key: public_key(), scheme: 0, key_spec });
            CryptoKeyPair { signing: None, encryption: Some(EncryptionKeyPair { public_key, private_key: Some(key) }) }
        }
    })
}
