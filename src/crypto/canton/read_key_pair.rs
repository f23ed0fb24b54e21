//! Reads a key pair in each form that Canton writes: file, protected file, bare message, row of the private key store. It reads what Canton's
//! import reads, except for the forms that ARCHITECTURE.md lists as refused.

use prost::{Message, bytes::Bytes};

use crate::crypto::{SecretBytes, fingerprint, pkcs8, read_pkcs8, scheme, scheme::ed25519};
use crate::domain::{Fingerprint, KeySpec, Purpose, Usages};

use super::{
    CantonFileError,
    messages::{
        CryptoKeyPair, EncryptionKeyPair, EncryptionPrivateKey, FORMAT_DER, FORMAT_PKCS8, FORMAT_RAW, FORMAT_SPKI, PasswordBasedEncrypted,
        SigningKeyPair, SigningPrivateKey, UntypedVersionedMessage, share,
    },
    names::{ENCRYPTION_KEY_SCHEME, ENCRYPTION_KEY_SPEC, SIGNING_KEY_SCHEME, SIGNING_KEY_SPEC, check_key_id, read_usages},
    password::unprotect,
};

const NEITHER: CantonFileError = CantonFileError::NotAKeyPair("it holds neither a key pair nor a private key");

/// A key pair of Canton.
///
/// ```compile_fail
/// fn show(pair: &canton_keyvault::crypto::canton::CantonKeyPair) -> String {
///     format!("{pair:?}")
/// }
/// ```
pub struct CantonKeyPair {
    /// The purpose: signing or encryption.
    pub purpose: Purpose,
    /// The spec.
    pub spec: KeySpec,
    /// The usages. None for an encryption key.
    pub usages: Usages,
    /// The private key in canonical form, validated by its scheme.
    pub pkcs8: SecretBytes,
}

impl CantonKeyPair {
    /// The public key, `SubjectPublicKeyInfo` in DER, and its fingerprint, which is the id of the key in Canton and in the vault.
    ///
    /// # Errors
    /// [`CantonFileError`] if the private key is not valid.
    pub fn public_key(&self) -> Result<(Fingerprint, Vec<u8>), CantonFileError> {
        let private = scheme(self.spec, self.purpose).ok_or(NEITHER)?.parse(&self.pkcs8)?;
        let spki = private.public_key().ok_or(NEITHER)?.to_vec();
        Ok((fingerprint(self.spec, self.purpose, &spki), spki))
    }
}

/// Reads a key pair. An empty password is no password, as in Canton. With a password it takes tens of milliseconds and 12 MiB.
///
/// The version in the wrapper is ignored, as in Canton. The id in the file must be one that Canton reads, but the key gets its own
/// fingerprint. A public key in the file must belong to the private key.
///
/// # Errors
/// [`CantonFileError`].
pub fn read_key_pair(bytes: &SecretBytes, password: Option<&SecretBytes>) -> Result<CantonKeyPair, CantonFileError> {
    let password = password.filter(|password| !password.expose().is_empty());
    match (Content::read(bytes)?, password) {
        (Content::Key(_), Some(_)) => Err(CantonFileError::NotProtected),
        (Content::Key(key), None) => key.check(),
        (Content::Protected(_), None) => Err(CantonFileError::PasswordNeeded),
        (Content::Protected(protected), Some(password)) => match Content::read(&unprotect(&protected, password)?)? {
            Content::Key(key) => key.check(),
            Content::Protected(_) => Err(CantonFileError::NotAKeyPair("it is protected twice")),
        },
    }
}

/// Reads the unencrypted column `data` of a row of Canton's private key store. The column `purpose` says which message it is.
///
/// # Errors
/// [`CantonFileError`].
pub fn read_private_key_row(data: &SecretBytes, purpose: Purpose) -> Result<CantonKeyPair, CantonFileError> {
    const NO_ROW: CantonFileError = CantonFileError::NotAKeyPair("the row holds no private key. It may be encrypted or corrupted");
    let wrapper = UntypedVersionedMessage::decode(share(SecretBytes::copy_of(data.expose()))).map_err(|_| NO_ROW)?;
    let key = match purpose {
        Purpose::Signing => SigningPrivateKey::decode(wrapper.data).map(KeyMessage::from),
        _ => EncryptionPrivateKey::decode(wrapper.data).map(KeyMessage::from),
    };
    key.map_err(|_| NO_ROW)?.check()
}

/// The content of a file.
enum Content {
    Key(KeyMessage),
    Protected(PasswordBasedEncrypted),
}

impl Content {
    /// The wire types distinguish the forms: field 2 is a message in `CryptoKeyPair` and a number in all others; field 3 is bytes in a
    /// private key and a number in `PasswordBasedEncrypted`.
    fn read(bytes: &SecretBytes) -> Result<Self, CantonFileError> {
        let bytes = share(SecretBytes::copy_of(bytes.expose()));
        // A bare pair does not decode as a wrapper, or as one whose data has none of the forms below.
        let wrapped = UntypedVersionedMessage::decode(bytes.clone()).ok().and_then(|wrapper| Self::unwrapped(wrapper.data));
        wrapped.or_else(|| key_pair(bytes).map(Self::Key)).ok_or(NEITHER)
    }

    fn unwrapped(data: Bytes) -> Option<Self> {
        if let Some(key) = key_pair(data.clone()) {
            return Some(Self::Key(key));
        }
        match PasswordBasedEncrypted::decode(data.clone()) {
            Ok(protected) if !protected.ciphertext.is_empty() && !protected.salt.is_empty() => Some(Self::Protected(protected)),
            _ => stored_private_key(data).map(Self::Key),
        }
    }
}

/// One private key with its description, for signing and encryption keys.
struct KeyMessage {
    id: String,
    purpose: Purpose,
    format: i32,
    private_key: Bytes,
    scheme: i32,
    key_spec: i32,
    usage: Vec<i32>,
    /// Format and bytes of the public key in the message.
    public: Option<(i32, Bytes)>,
}

/// A `CryptoKeyPair`, if the message is one.
fn key_pair(data: Bytes) -> Option<KeyMessage> {
    let pair = CryptoKeyPair::decode(data).ok()?;
    match (pair.signing, pair.encryption) {
        (Some(SigningKeyPair { public_key, private_key: Some(private) }), None) => {
            Some(KeyMessage { public: public_key.map(|key| (key.format, key.public_key)), ..private.into() })
        }
        (None, Some(EncryptionKeyPair { public_key, private_key: Some(private) })) => {
            Some(KeyMessage { public: public_key.map(|key| (key.format, key.public_key)), ..private.into() })
        }
        _ => None,
    }
}

/// A private key alone, as in the column `data` of Canton's private key store. A message without an id is a public key. Signing and
/// encryption keys have the spec in different fields. Without a spec they cannot be distinguished safely, and are refused.
fn stored_private_key(data: Bytes) -> Option<KeyMessage> {
    let signing = SigningPrivateKey::decode(data.clone()).ok().filter(|key| key.key_spec != 0 && !key.id.is_empty());
    let encryption = || EncryptionPrivateKey::decode(data).ok().filter(|key| key.key_spec != 0 && !key.id.is_empty());
    signing.map(KeyMessage::from).or_else(|| encryption().map(KeyMessage::from))
}

impl From<SigningPrivateKey> for KeyMessage {
    fn from(key: SigningPrivateKey) -> Self {
        let SigningPrivateKey { id, format, private_key, scheme, usage, key_spec } = key;
        Self { id, purpose: Purpose::Signing, format, private_key, scheme, key_spec, usage, public: None }
    }
}

impl From<EncryptionPrivateKey> for KeyMessage {
    fn from(key: EncryptionPrivateKey) -> Self {
        let EncryptionPrivateKey { id, format, private_key, scheme, key_spec } = key;
        Self { id, purpose: Purpose::Encryption, format, private_key, scheme, key_spec, usage: Vec::new(), public: None }
    }
}

impl KeyMessage {
    fn check(self) -> Result<CantonKeyPair, CantonFileError> {
        check_key_id(&self.id)?;
        let (specs, schemes) = match self.purpose {
            Purpose::Signing => (SIGNING_KEY_SPEC, SIGNING_KEY_SCHEME),
            _ => (ENCRYPTION_KEY_SPEC, ENCRYPTION_KEY_SCHEME),
        };
        let spec = if self.key_spec == 0 { schemes.spec(self.scheme)? } else { specs.spec(self.key_spec)? };
        let usages = if self.purpose == Purpose::Signing { read_usages(&self.usage)? } else { Usages::NONE };
        let (_, pkcs8) = read_pkcs8(Some(spec), Some(self.purpose), &self.migrated(spec)?)?;
        self.check_public(spec, &pkcs8)?;
        Ok(CantonKeyPair { purpose: self.purpose, spec, usages, pkcs8 })
    }

    /// The private key as PKCS#8, converted as Canton migrates legacy formats: RAW is an Ed25519 seed, DER always was PKCS#8.
    fn migrated(&self, spec: KeySpec) -> Result<SecretBytes, CantonFileError> {
        match (self.format, spec) {
            (FORMAT_RAW, KeySpec::EcCurve25519) if self.private_key.len() == 32 => Ok(pkcs8::write_ed25519(&self.private_key)),
            (FORMAT_RAW, KeySpec::EcCurve25519) => Err(CantonFileError::NotAKeyPair("its raw Ed25519 seed is not 32 bytes")),
            (FORMAT_PKCS8, _) | (FORMAT_DER, KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::Rsa2048) => {
                Ok(SecretBytes::copy_of(&self.private_key))
            }
            (number, _) => Err(CantonFileError::Unsupported { what: "private key format", number, name: "" }),
        }
    }

    fn check_public(&self, spec: KeySpec, pkcs8: &SecretBytes) -> Result<(), CantonFileError> {
        let Some((format, public)) = &self.public else { return Ok(()) };
        let scheme = scheme(spec, self.purpose).ok_or(NEITHER)?;
        let key = scheme.parse(pkcs8)?;
        let own = key.public_key().unwrap_or_default();
        let own = if *format == FORMAT_RAW { own.strip_prefix(ed25519::SPKI_HEAD).unwrap_or_default() } else { own };
        let is_own = matches!(*format, FORMAT_DER | FORMAT_RAW | FORMAT_SPKI) && own == public;
        if is_own { Ok(()) } else { Err(CantonFileError::PublicKeyMismatch) }
    }
}
