//! A wrapper key in the transit engine of OpenBao, on one server: `encrypt` and `decrypt` bound to the context, and `keys` to read its
//! attributes.
//!
//! The guard retries. `error` classifies answers by status and form. The reason of a 400 is only text, so the key is read to find it.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsRotation, PostureLine, VaultId},
};

use crate::kms::{
    Denial, Description, KmsReceipt, Unwrapped, Wrapped, Wrapper, WrapperError, call_error::CallError, provider::check_registrable,
};

use super::cluster::Cluster;
use super::error::UNUSABLE_ANSWER;
use super::http_client::{OpenbaoRequest, OpenbaoServer, SuccessBody, done, sort};
use super::key_info::{KeyInfo, version_of};
use super::key_reference::{KeyPath, OpenbaoKey};

/// A transit key on one server.
pub(super) struct TransitKey {
    pub(super) cluster: Arc<Cluster>,
    pub(super) server: Arc<OpenbaoServer>,
    pub(super) path: KeyPath,
    /// How errors name it.
    pub(super) reference: String,
    /// The expected key. Unknown only while it is being resolved.
    pub(super) registered: Option<OpenbaoKey>,
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Plaintext<'a> {
    /// Borrowed from the answer, which is wiped. Base64 needs no escapes.
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

#[async_trait]
impl Wrapper for TransitKey {
    /// Reads the key first. OpenBao would create a missing key if the policy permits it, and it wraps under a key that can be exported.
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        self.try_wrap(data_key, context).await.map_err(|kind| kind.about(&self.reference))
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        self.try_unwrap(wrapped, context).await.map_err(|kind| kind.about(&self.reference))
    }

    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        let key_info = self.look_as_registered().await.map_err(|kind| kind.about(&self.reference))?;
        Ok(Some(key_info.rotation()))
    }

    async fn posture(&self, _: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        let key_info = self.look_as_registered().await.map_err(|kind| kind.about(&self.reference))?;
        Ok(key_info.posture(&self.path))
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        let key_info = self.look().await.map_err(|kind| kind.about(&self.reference))?;
        let cluster = self.server.cluster_id().await.map_err(|kind| kind.about(&self.reference))?;
        let (created, usable) = match &self.registered {
            None => {
                check_registrable(&self.reference, key_info.unfit(), key_info.refusal())?;
                (key_info.created().unwrap_or_default(), true)
            }
            Some(key) => {
                let same = key.cluster == cluster && key_info.may_be_of(key.created);
                (key_info.created().unwrap_or(key.created), same && key_info.refusal().is_none())
            }
        };
        let identity = OpenbaoKey { cluster, path: self.path.clone(), created }.to_string();
        Ok(Description { identity, reference: self.reference.clone(), regions: Vec::new(), usable })
    }
}

impl TransitKey {
    async fn try_wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, CallError> {
        if let Some(denial) = self.look_as_registered().await?.refusal() {
            return Err(CallError::Denied(denial));
        }
        let plaintext = Zeroizing::new(STANDARD.encode(data_key.expose()));
        let body = Encrypt { plaintext: &plaintext, associated_data: &bound(context) };
        let answer = self.cluster.ask(&self.server, &OpenbaoRequest::post(self.path.api("encrypt"), &body)).await?;
        let answer = done(answer).map_err(|error| error.needing("update on encrypt/ of the transit mount"))?;
        let SuccessBody { request_id, data, .. } = answer.read::<Ciphertext>().ok_or(UNUSABLE_ANSWER)?;
        let bytes = data.ok_or(UNUSABLE_ANSWER)?.ciphertext.into_bytes();
        version_of(&bytes).ok_or(UNUSABLE_ANSWER)?;
        Ok(Wrapped { bytes, receipt: KmsReceipt { region: None, request_id } })
    }

    async fn try_unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, CallError> {
        let (Some(version), Ok(ciphertext)) = (version_of(wrapped), std::str::from_utf8(wrapped)) else {
            return Err(CallError::Invalid);
        };
        let body = Decrypt { ciphertext, associated_data: &bound(context) };
        let answer = self.cluster.ask(&self.server, &OpenbaoRequest::post(self.path.api("decrypt"), &body)).await?;
        match answer.status {
            200 => {
                let SuccessBody { request_id, data, .. } = answer.read::<Plaintext<'_>>().ok_or(UNUSABLE_ANSWER)?;
                let data_key = STANDARD.decode(data.ok_or(UNUSABLE_ANSWER)?.plaintext.as_bytes()).map_err(|_| UNUSABLE_ANSWER)?;
                Ok(Unwrapped { data_key: data_key.into(), receipt: KmsReceipt { region: None, request_id } })
            }
            400 if answer.is_error() => Err(self.why_not(version).await),
            _ => Err(sort(&answer).needing("update on decrypt/ of the transit mount")),
        }
    }

    /// Why the key does not open what its `version` wrapped: it is missing, replaced or disabled, or it did not make the ciphertext.
    async fn why_not(&self, version: u32) -> CallError {
        match self.look_as_registered().await {
            Ok(key_info) => key_info.opens_not(version).map_or(CallError::Invalid, CallError::Denied),
            Err(kind) => kind,
        }
    }

    /// The attributes of the key, if it is the registered one. Another key under its name counts as missing.
    async fn look_as_registered(&self) -> Result<KeyInfo, CallError> {
        let key_info = self.look().await?;
        let same = self.registered.as_ref().is_none_or(|key| key_info.may_be_of(key.created));
        if same { Ok(key_info) } else { Err(CallError::Denied(Denial::NotFound)) }
    }

    async fn look(&self) -> Result<KeyInfo, CallError> {
        let answer = self.cluster.ask(&self.server, &OpenbaoRequest::get(self.path.api("keys"))).await?;
        let answer = done(answer).map_err(|error| error.needing("read on keys/ of the transit mount"))?;
        answer.read::<KeyInfo>().and_then(|reply| reply.data).ok_or(UNUSABLE_ANSWER)
    }
}

fn bound(context: &EncryptionContext) -> String {
    STANDARD.encode(context.canonical_bytes())
}
