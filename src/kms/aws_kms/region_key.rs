//! A wrapper key in AWS KMS, in one region: `Encrypt`, `Decrypt`, `ReEncrypt` and `DescribeKey`. Each call names the keys and the context.
//!
//! The guard retries, so the retries of the SDK are off. `error` classifies the answers of AWS into denials and outages.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kms::{
    Client,
    operation::RequestId,
    primitives::Blob,
    types::{KeyMetadata, KeySpec, KeyState, KeyUsageType},
};

use crate::{
    crypto::SecretBytes,
    domain::{EncryptionContext, KmsRotation, PostureLine, ProviderKind, VaultId, WrapperKey},
};

use super::{
    credentials::{Action, AwsCredentials},
    error::unusable_answer,
    key_arn::AwsKey,
};
use crate::kms::{
    Denial, Description, ForeignWrap, KmsReceipt, Unwrapped, Wrapped, Wrapper, WrapperError, allowlist::Allowlist, not_rewrappable,
};

/// A KMS key in one region.
pub(super) struct RegionKey {
    pub(super) client: Client,
    pub(super) credentials: Arc<AwsCredentials>,
    pub(super) region: String,
    /// How requests name it: its ARN in this region. While it is being resolved, a key id or alias.
    pub(super) target: String,
    /// Whether `describe` refuses a key that is not enabled, and names its state.
    pub(super) must_be_enabled: bool,
    /// Which keys may be the source of a re-wrap.
    pub(super) allowed: Arc<Allowlist>,
}

#[async_trait]
impl Wrapper for RegionKey {
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        // The SDK keeps this copy in buffers that are wiped only when the allocator frees them.
        let plaintext = Blob::new(data_key.expose());
        let request = self.client.encrypt().key_id(&self.target).plaintext(plaintext).set_encryption_context(Some(pairs(context)));
        let answer = self.credentials.send(self.action("Encrypt"), &self.target, "kms:Encrypt", || request.clone().send()).await?;
        let receipt = self.receipt(&answer);
        let bytes = answer.ciphertext_blob.ok_or_else(|| unusable_answer(&self.target))?.into_inner();
        Ok(Wrapped { bytes, receipt })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        // KMS would report these as a malformed request.
        if !(1..=MAX_CIPHERTEXT).contains(&wrapped.len()) {
            return Err(WrapperError::Invalid { reference: self.target.clone(), request_id: None });
        }
        let request = self.client.decrypt().key_id(&self.target).ciphertext_blob(Blob::new(wrapped));
        let request = request.set_encryption_context(Some(pairs(context)));
        let answer = self.credentials.send(self.action("Decrypt"), &self.target, "kms:Decrypt", || request.clone().send()).await?;
        let receipt = self.receipt(&answer);
        let data_key = answer.plaintext.ok_or_else(|| unusable_answer(&self.target))?.into_inner().into();
        Ok(Unwrapped { data_key, receipt })
    }

    fn can_rewrap_from(&self, other: &WrapperKey) -> bool {
        self.here(other).is_ok()
    }

    async fn rewrap(&self, from: ForeignWrap<'_>, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        let source = self.here(from.key)?;
        let invalid = |request_id| WrapperError::Invalid { reference: source.clone(), request_id };
        if !(1..=MAX_CIPHERTEXT).contains(&from.wrapped.len()) {
            return Err(invalid(None));
        }
        // KMS names the refused key in its text only, which is not reliable.
        let either = format!("{} (or {source}, from which it was to take over)", self.target);
        let request = self.client.re_encrypt().ciphertext_blob(Blob::new(from.wrapped));
        let request = request.source_key_id(&source).set_source_encryption_context(Some(pairs(context)));
        let request = request.destination_key_id(&self.target).set_destination_encryption_context(Some(pairs(context)));
        let permission = "kms:ReEncryptFrom on the old key and kms:ReEncryptTo on the new one";
        let answer = self.credentials.send(self.action("ReEncrypt"), &either, permission, || request.clone().send()).await;
        let answer = answer.map_err(|error| match error {
            WrapperError::Invalid { request_id, .. } => invalid(request_id),
            other => other,
        })?;
        let receipt = self.receipt(&answer);
        let bytes = answer.ciphertext_blob.ok_or_else(|| unusable_answer(&self.target))?.into_inner();
        Ok(Wrapped { bytes, receipt })
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        let request = self.client.describe_key().key_id(&self.target);
        let answer = self.credentials.send(self.action("DescribeKey"), &self.target, "kms:DescribeKey", || request.clone().send()).await?;
        let request_id = answer.request_id().map(str::to_owned);
        let metadata = answer.key_metadata.ok_or_else(|| unusable_answer(&self.target))?;
        let refused =
            |denial| WrapperError::Denied { reference: self.target.clone(), denial, permission: None, request_id: request_id.clone() };
        if metadata.key_usage != Some(KeyUsageType::EncryptDecrypt) || metadata.key_spec != Some(KeySpec::SymmetricDefault) {
            return Err(refused(Denial::WrongKind));
        }
        let usable = metadata.key_state == Some(KeyState::Enabled);
        if self.must_be_enabled && !usable {
            return Err(refused(if metadata.key_state == Some(KeyState::Disabled) { Denial::Disabled } else { Denial::InvalidState }));
        }
        let arn = metadata.arn().unwrap_or_default();
        let (key, region) = AwsKey::from_arn(arn).map_err(|_| unusable_answer(&self.target))?;
        Ok(Description { identity: key.to_string(), reference: arn.to_owned(), regions: regions_of(&metadata, region), usable })
    }

    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        self.rotates().await.map(Some)
    }

    async fn posture(&self, vault: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        Box::pin(self.assessed(vault)).await
    }
}

impl RegionKey {
    /// The ARN of another key in this region: where it is registered, or where it was first found.
    fn here(&self, other: &WrapperKey) -> Result<String, WrapperError> {
        let elsewhere = |_| not_rewrappable(&self.target, other);
        if other.provider != ProviderKind::AwsKms {
            return Err(not_rewrappable(&self.target, other));
        }
        let key: AwsKey = other.identity.parse().map_err(elsewhere)?;
        let (named, home) = AwsKey::from_arn(&other.reference).map_err(elsewhere)?;
        let lives_here = if other.regions.is_empty() { home == self.region } else { other.regions.contains(&self.region) };
        let arn = key.arn(&self.region);
        match (lives_here && named == key && self.shares_partition(&key), self.allowed.aws(&key, &self.region)) {
            (true, true) => Ok(arn),
            (true, false) => Err(WrapperError::NotAllowed { reference: arn }),
            (false, _) => Err(not_rewrappable(&self.target, other)),
        }
    }

    fn shares_partition(&self, other: &AwsKey) -> bool {
        AwsKey::from_arn(&self.target).is_ok_and(|(own, _)| own.partition() == other.partition())
    }

    /// A call in this region.
    pub(super) fn action(&self, name: &'static str) -> Action<'_> {
        Action { name, region: &self.region }
    }

    fn receipt(&self, answer: &impl RequestId) -> KmsReceipt {
        KmsReceipt { region: Some(self.region.clone()), request_id: answer.request_id().map(str::to_owned) }
    }
}

fn pairs(context: &EncryptionContext) -> std::collections::HashMap<String, String> {
    context.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every region where the key exists, the one that answered first.
pub(super) fn regions_of(metadata: &KeyMetadata, answered: String) -> Vec<String> {
    let replicas =
        metadata.multi_region_configuration().into_iter().flat_map(|all| all.primary_key().into_iter().chain(all.replica_keys()));
    let mut regions = vec![answered];
    for region in replicas.filter_map(|replica| replica.region()) {
        if !regions.iter().any(|known| known == region) {
            regions.push(region.to_owned());
        }
    }
    regions
}

/// Bytes; the longest ciphertext that KMS accepts.
const MAX_CIPHERTEXT: usize = 6144;
