//! A wrapper key in Azure: `encrypt` and `decrypt` with AES-256-GCM in a Managed HSM, or `wrapkey` and `unwrapkey` with RSA-OAEP-256. A wrap names the
//! version that made it ([`super::wrap_format`]). A rotation in Azure makes another version: older wraps open while their version is enabled.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    api::{Answered, AzureVault, Failed},
    error::Refusal,
    key_info::{Algorithm, KeyInfo},
    key_reference::{AzureKey, Version},
    wrap_format::{Wrap, with_digest, without_digest},
};
use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, Hex, PostureLine, VaultId},
    kms::{
        Denial, Description, Unwrapped, Wrapped, Wrapper, WrapperError,
        call_error::{CallError, UNUSABLE_ANSWER},
        provider::check_registrable,
    },
};

/// A key of one vault.
pub(super) struct VaultKey {
    pub(super) api: Arc<AzureVault>,
    pub(super) key: AzureKey,
    /// How errors name it: its address.
    pub(super) reference: String,
    /// Whether it is registered, so that its state is no error.
    pub(super) registered: bool,
}

/// `KeyOperationsParameters`
#[derive(Serialize)]
struct Operation<'a> {
    alg: &'static str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

/// `KeyOperationResult`. Texts are borrowed from the answer, which is wiped. Base64 needs no escapes.
#[derive(Deserialize)]
struct OperationResult<'a> {
    kid: String,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(default)]
    iv: String,
    #[serde(default)]
    tag: String,
}

#[async_trait]
impl Wrapper for VaultKey {
    /// Reads the key first, to know its current version and its kind.
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

    async fn posture(&self, _: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        self.look().await.map(|key_info| key_info.posture(&self.key)).map_err(|failed| failed.about(&self.reference))
    }
}

impl VaultKey {
    async fn try_wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, Failed> {
        let key_info = self.look().await?;
        if let Some(denial) = key_info.refusal() {
            return Err(CallError::Denied(denial).into());
        }
        let version = key_info.version(&self.key).ok_or(UNUSABLE_ANSWER)?;
        let (wrap, answer) = match key_info.algorithm().ok_or(CallError::Denied(Denial::WrongKind))? {
            Algorithm::Gcm => {
                let plaintext = Zeroizing::new(URL_SAFE_NO_PAD.encode(data_key.expose()));
                let body = Operation { alg: GCM, value: &plaintext, aad: Some(aad(context)), iv: None, tag: None };
                let answer = self.api.post("KeyEncrypt", &self.path(&version, "encrypt"), &body).await;
                let answer = answer.map_err(|failed| failed.needing("keys/encrypt"))?;
                let result = self.result(&answer, &version)?;
                let parts = decoded(&result.iv).zip(decoded(&result.tag)).zip(decoded(&result.value));
                let ((iv, tag), ciphertext) = parts.ok_or_else(|| answer.unusable())?;
                let (Ok(iv), Ok(tag)) = (iv.as_slice().try_into(), tag.as_slice().try_into()) else { return Err(answer.unusable()) };
                drop(result);
                (Wrap::Gcm { version, iv, tag, ciphertext }, answer)
            }
            Algorithm::RsaOaep => {
                let plaintext = with_digest(data_key, &version, context);
                let plaintext = Zeroizing::new(URL_SAFE_NO_PAD.encode(plaintext.expose()));
                let body = Operation { alg: RSA, value: &plaintext, aad: None, iv: None, tag: None };
                let answer = self.api.post("KeyWrap", &self.path(&version, "wrapkey"), &body).await;
                let answer = answer.map_err(|failed| failed.needing("keys/wrapKey"))?;
                let ciphertext = decoded(&self.result(&answer, &version)?.value).ok_or_else(|| answer.unusable())?;
                (Wrap::Rsa { version, ciphertext }, answer)
            }
        };
        let bytes = wrap.to_bytes();
        // What is stored can be read again.
        if Wrap::parse(&bytes).as_ref() != Some(&wrap) {
            return Err(answer.unusable());
        }
        Ok(Wrapped { bytes, receipt: answer.receipt() })
    }

    async fn try_unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, Failed> {
        let wrap = Wrap::parse(wrapped).ok_or(CallError::Invalid)?;
        let version = *wrap.version();
        let answer = match &wrap {
            Wrap::Gcm { iv, tag, ciphertext, .. } => {
                let value = URL_SAFE_NO_PAD.encode(ciphertext);
                let body = Operation { alg: GCM, value: &value, aad: Some(aad(context)), iv: Some(text(iv)), tag: Some(text(tag)) };
                let answer = self.api.post("KeyDecrypt", &self.path(&version, "decrypt"), &body).await;
                answer.map_err(|failed| failed.needing("keys/decrypt"))
            }
            Wrap::Rsa { ciphertext, .. } => {
                let body = Operation { alg: RSA, value: &URL_SAFE_NO_PAD.encode(ciphertext), aad: None, iv: None, tag: None };
                let answer = self.api.post("KeyUnwrap", &self.path(&version, "unwrapkey"), &body).await;
                answer.map_err(|failed| failed.needing("keys/unwrapKey"))
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failed) => return Err(self.explained(failed, &version).await),
        };
        let result = self.result(&answer, &version)?;
        let opened = Zeroizing::new(decoded(&result.value).ok_or_else(|| answer.unusable())?);
        drop(result);
        let data_key = match &wrap {
            Wrap::Gcm { .. } => Some(SecretBytes::copy_of(&opened)),
            Wrap::Rsa { .. } => without_digest(&opened, &version, context),
        };
        match data_key {
            Some(data_key) => Ok(Unwrapped { data_key, receipt: answer.receipt() }),
            None => Err(Failed { why: Refusal::Other(CallError::Invalid), request_id: Some(answer.request_id) }),
        }
    }

    /// Why a wrap does not open: its version is disabled, the key is gone, or this key has no such version and did not make the wrap.
    async fn explained(&self, failed: Failed, version: &Version) -> Failed {
        match failed.why {
            Refusal::BadParameter => failed.meaning(CallError::Invalid),
            Refusal::Disabled => match self.look().await {
                Ok(key_info) if key_info.version(&self.key).as_ref() != Some(version) => {
                    failed.meaning(CallError::Denied(Denial::OldVersion))
                }
                _ => failed,
            },
            Refusal::NotFound => match self.look().await {
                Ok(_) => failed.meaning(CallError::Invalid),
                Err(Failed { why, .. }) => Failed { why, ..failed },
            },
            _ => failed,
        }
    }

    async fn look(&self) -> Result<KeyInfo, Failed> {
        let answer = self.api.get("KeyGet", &format!("keys/{}", self.key.name)).await;
        answer.map_err(|failed| failed.needing("keys/get"))?.read()
    }

    /// The result of an operation with a version, if it is of that version.
    fn result<'a>(&self, answer: &'a Answered, version: &Version) -> Result<OperationResult<'a>, Failed> {
        let result: OperationResult<'_> = answer.read()?;
        if self.key.version_in(&result.kid).as_ref() == Some(version) { Ok(result) } else { Err(answer.unusable()) }
    }

    fn path(&self, version: &Version, operation: &str) -> String {
        format!("keys/{}/{}/{operation}", self.key.name, Hex(version))
    }
}

fn aad(context: &EncryptionContext) -> String {
    URL_SAFE_NO_PAD.encode(context.canonical_bytes())
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

const GCM: &str = "A256GCM";
const RSA: &str = "RSA-OAEP-256";
