//! A wrapper key in Cloud KMS: `encrypt` and `decrypt` with the context as additional authenticated data.
//!
//! A wrap is `0x01 ‖ version (8 bytes, big-endian) ‖ ciphertext`. The version is the one that wrapped; it is a part of the additional
//! authenticated data, which is `context ‖ version`. A rotation in Cloud KMS makes another version the primary one: new wraps name it, and older
//! ones open while their version is enabled.
//!
//! Every request has checksums, and a result is used only if Cloud KMS has verified them and its own checksum is right
//! (<https://cloud.google.com/kms/docs/data-integrity-guidelines>). Otherwise the guard repeats the call.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    api::{Answered, CloudKms, Failed},
    checksum::{crc32c, from_text},
    error::Refusal,
    key_info::{KeyInfo, VersionInfo},
    key_reference::GcpKey,
};
use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsRotation, PostureLine, VaultId},
    kms::{
        Denial, Description, Unwrapped, Wrapped, Wrapper, WrapperError,
        call_error::{CallError, UNUSABLE_ANSWER},
        provider::check_registrable,
    },
};

/// A key of Cloud KMS.
pub(super) struct CryptoKey {
    pub(super) api: Arc<CloudKms>,
    pub(super) key: GcpKey,
    /// How errors name it: its resource name.
    pub(super) reference: String,
    /// Whether it is registered, so that its state is no error.
    pub(super) registered: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt<'a> {
    plaintext: &'a str,
    additional_authenticated_data: &'a str,
    plaintext_crc32c: String,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    /// The version that was used.
    name: String,
    ciphertext: String,
    #[serde(deserialize_with = "from_text")]
    ciphertext_crc32c: u32,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt<'a> {
    ciphertext: &'a str,
    additional_authenticated_data: &'a str,
    ciphertext_crc32c: String,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted<'a> {
    /// Borrowed from the answer, which is wiped. Base64 needs no escapes.
    #[serde(borrow, default)]
    plaintext: Cow<'a, str>,
    #[serde(deserialize_with = "from_text")]
    plaintext_crc32c: u32,
}

#[async_trait]
impl Wrapper for CryptoKey {
    /// Reads the key first, to know its primary version and that its purpose binds the context.
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        self.try_wrap(data_key, context).await.map_err(|failed| failed.about(&self.reference))
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        self.try_unwrap(wrapped, context).await.map_err(|failed| failed.about(&self.reference))
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        let key_info = self.look().await.map_err(|failed| failed.about(&self.reference))?;
        if !self.registered {
            check_registrable(&self.reference, key_info.unfit(&self.key), key_info.refusal())?;
        }
        let (identity, reference) = (self.key.to_string(), self.key.reference());
        Ok(Description { identity, reference, regions: Vec::new(), usable: key_info.refusal().is_none() })
    }

    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        self.look().await.map(|key_info| Some(key_info.rotation(&self.key))).map_err(|failed| failed.about(&self.reference))
    }

    async fn posture(&self, _: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        self.look().await.map(|key_info| key_info.posture(&self.key)).map_err(|failed| failed.about(&self.reference))
    }
}

impl CryptoKey {
    async fn try_wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, Failed> {
        let key_info = self.look().await?;
        if let Some(denial) = key_info.refusal() {
            return Err(CallError::Denied(denial).into());
        }
        let version = key_info.primary_version(&self.key).ok_or(UNUSABLE_ANSWER)?;
        let bound = bound(context, version);
        let plaintext = Zeroizing::new(STANDARD.encode(data_key.expose()));
        let body = Encrypt {
            plaintext: &plaintext,
            additional_authenticated_data: &STANDARD.encode(&bound),
            plaintext_crc32c: crc32c(data_key.expose()).to_string(),
            additional_authenticated_data_crc32c: crc32c(&bound).to_string(),
        };
        let name = self.key.version(version);
        let answer = self.api.post("Encrypt", &name, ":encrypt", &body).await;
        let answer = answer.map_err(|failed| failed.needing("cloudkms.cryptoKeyVersions.useToEncrypt"))?;
        let encrypted: Encrypted = answer.read()?;
        let verified = encrypted.verified_plaintext_crc32c && encrypted.verified_additional_authenticated_data_crc32c;
        let ciphertext = STANDARD.decode(&encrypted.ciphertext).map_err(|_| answer.unusable())?;
        if !verified || encrypted.name != name || crc32c(&ciphertext) != encrypted.ciphertext_crc32c {
            return Err(damaged(&answer, "encrypt"));
        }
        Ok(Wrapped { bytes: sealed(version, &ciphertext), receipt: answer.receipt() })
    }

    async fn try_unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, Failed> {
        let Some((version, ciphertext)) = parts(wrapped) else { return Err(CallError::Invalid.into()) };
        match self.decrypt(version, ciphertext, context).await {
            // A request that was damaged on its way is refused so too. A wrap is called invalid only if a second request is refused.
            Err(Failed { why: Refusal::InvalidArgument, .. }) => match self.decrypt(version, ciphertext, context).await {
                Err(failed @ Failed { why: Refusal::InvalidArgument, .. }) => Err(failed.meaning(CallError::Invalid)),
                answer => answer,
            },
            Err(failed @ Failed { why: Refusal::FailedPrecondition, .. }) => {
                Err(failed.meaning(CallError::Denied(self.why_not(version).await)))
            }
            answer => answer,
        }
    }

    async fn decrypt(&self, version: u64, ciphertext: &[u8], context: &EncryptionContext) -> Result<Unwrapped, Failed> {
        let bound = bound(context, version);
        let body = Decrypt {
            ciphertext: &STANDARD.encode(ciphertext),
            additional_authenticated_data: &STANDARD.encode(&bound),
            ciphertext_crc32c: crc32c(ciphertext).to_string(),
            additional_authenticated_data_crc32c: crc32c(&bound).to_string(),
        };
        let answer = self.api.post("Decrypt", &self.reference, ":decrypt", &body).await;
        let answer = answer.map_err(|failed| failed.needing("cloudkms.cryptoKeyVersions.useToDecrypt"))?;
        let decrypted: Decrypted<'_> = answer.read()?;
        let data_key = Zeroizing::new(STANDARD.decode(decrypted.plaintext.as_bytes()).map_err(|_| answer.unusable())?);
        if crc32c(&data_key) != decrypted.plaintext_crc32c {
            return Err(damaged(&answer, "decrypt"));
        }
        drop(decrypted);
        Ok(Unwrapped { data_key: SecretBytes::copy_of(&data_key), receipt: answer.receipt() })
    }

    /// Why the version that wrapped may not unwrap.
    async fn why_not(&self, version: u64) -> Denial {
        let name = self.key.version(version);
        let found: Result<VersionInfo, Failed> = self.api.get("GetCryptoKeyVersion", &name).await;
        let primary = match self.look().await {
            Ok(key_info) => key_info.primary_version(&self.key) == Some(version),
            Err(_) => false,
        };
        found.ok().and_then(|found| found.refusal(primary)).unwrap_or(Denial::OldVersion)
    }

    async fn look(&self) -> Result<KeyInfo, Failed> {
        let found = self.api.get("GetCryptoKey", &self.reference).await;
        found.map_err(|failed| failed.needing("cloudkms.cryptoKeys.get"))
    }
}

/// The error of an answer whose checksums do not fit. Repeating may help.
fn damaged(answer: &Answered, method: &str) -> Failed {
    tracing::warn!(method, request_id = answer.request_id, "an answer of Cloud KMS is not used: a checksum is wrong or was not verified");
    answer.unusable()
}

/// The additional authenticated data.
fn bound(context: &EncryptionContext, version: u64) -> Vec<u8> {
    [context.canonical_bytes().as_slice(), &version.to_be_bytes()].concat()
}

fn sealed(version: u64, ciphertext: &[u8]) -> Vec<u8> {
    [&[FORMAT], version.to_be_bytes().as_slice(), ciphertext].concat()
}

/// The version and the ciphertext of a wrap.
fn parts(wrapped: &[u8]) -> Option<(u64, &[u8])> {
    let (version, ciphertext) = wrapped.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    (!ciphertext.is_empty()).then(|| (u64::from_be_bytes(*version), ciphertext))
}

const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_names_its_version() {
        let wrap = sealed(258, &[7, 8]);
        assert_eq!(wrap, [1, 0, 0, 0, 0, 0, 0, 1, 2, 7, 8]);
        assert_eq!(parts(&wrap), Some((258, [7, 8].as_slice())));
        for other in [&[][..], &[1], &wrap[..9], &[&[2], &wrap[1..]].concat()] {
            assert_eq!(parts(other), None, "{other:?}");
        }
    }
}
